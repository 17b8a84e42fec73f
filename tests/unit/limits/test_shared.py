"""Marks and places in a file that several processes have open."""

import os
import subprocess
import sys
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.auth.limiter import OwnMarks
from roadstead.limits.providers import shared
from roadstead.limits.providers.shared import SharedMarks, SharedPlaces

CHILD = """
import sys
from pathlib import Path
from roadstead.limits.providers.shared import SharedMarks, SharedPlaces
path = Path(sys.argv[2])
if sys.argv[1] == "marks":
    marks = SharedMarks(path)
    print(sum(marks.advance("key", 100.0, 1.0, 500.0) == 0 for _ in range(400)))
else:
    print(SharedPlaces(path).enter("key", 2), flush=True)
    sys.stdin.readline()
"""


def child(what: str, path: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", CHILD, what, str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)


STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 3), st.floats(0.1, 2), st.floats(1, 5)), max_size=50)


@given(STEPS)
def test_as_if_it_were_one_process(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, float, float, float]]
) -> None:
    """Two openings of one file say what a dictionary says."""
    path = tmp_path_factory.mktemp("marks") / "file"
    openings, known, now = (SharedMarks(path), SharedMarks(path)), OwnMarks(), 1000.0
    for number, (key, gap, by, most) in enumerate(steps):
        now += gap
        marks = openings[number % 2]
        assert marks.advance(key, now, by, most) == pytest.approx(known.advance(key, now, by, most), abs=1e-6)
        assert openings[0].read(key, now) == pytest.approx(known.read(key, now), abs=1e-6)


def test_processes_lose_no_count(tmp_path: Path) -> None:
    """Two that count as fast as they can let through what one would, neither more nor less."""
    running = [child("marks", tmp_path / "file") for _ in range(2)]

    through = [int(process.communicate(timeout=60)[0]) for process in running]

    assert sum(through) == 500
    assert SharedMarks(tmp_path / "file").read("key", 100.0) == 500


def test_who_has_used_most_is_forgotten_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are more keys than slots, those that are least ahead make room."""
    monkeypatch.setattr(shared, "_SETS", 1)
    marks = SharedMarks(tmp_path / "file")
    marks.advance("greedy", 100.0, 50.0, inf)
    for number in range(100):
        marks.advance(f"modest {number}", 100.0, 1.0, inf)

    assert marks.read("greedy", 100.0) == 50
    assert marks.read("modest 0", 100.0) == 0


def test_places_are_counted_together(tmp_path: Path) -> None:
    """Over processes; one that is given back is free, and so is one whose process died."""
    path = tmp_path / "file"
    places = SharedPlaces(path)
    assert places.enter("key", 2)
    other = child("places", path)
    assert other.stdout is not None
    assert other.stdout.readline() == "True\n"
    assert not places.enter("key", 2)
    assert places.enter("another", 2)

    other.kill()
    other.communicate(timeout=30)

    assert places.enter("key", 2)
    assert not places.enter("key", 2)
    places.leave("key")
    assert places.enter("key", 2)


def test_a_process_id_that_came_again(tmp_path: Path) -> None:
    """What somebody dead had taken is free, though another process lives under its id: another one, or ourselves."""
    path = tmp_path / "file"
    dead = SharedPlaces(path)
    pid, started = dead._process
    dead._process = (pid, (started + 1) & 0xFFFF)
    assert dead.enter("key", 1)

    places = SharedPlaces(path)

    assert places.enter("key", 1)
    assert not places.enter("key", 1)
    places.leave("key")
    assert places.enter("key", 1)
