"""Directories of runs: made, locked, and removed after those who couldn't."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

from roadstead.cli.run_directory import PREFIX, run_directory, sweep


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_run_cleans_up_behind_itself(temporary: Path) -> None:
    """The directory is there inside, and nothing is afterwards."""
    with run_directory() as directory:
        (directory / "numbers").write_text("1")
        assert directory.parent == temporary

    assert list(temporary.iterdir()) == []


def test_a_killed_runs_directory_goes_with_the_next(temporary: Path) -> None:
    """The kernel lets go of a dead process's lock, and the next run removes what it left."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        with run_directory() as directory:
            (directory / "numbers").write_text("1")
            os.write(writable, b"1")
            signal.pause()
    os.read(readable, 1)
    [left] = temporary.iterdir()

    sweep(temporary)
    assert left.exists()  # it lives
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with run_directory() as directory:
        assert list(temporary.iterdir()) == [directory]


def test_only_what_is_a_runs(temporary: Path) -> None:
    """Links, files and others' directories stay."""
    (temporary / "other").mkdir()
    (temporary / f"{PREFIX}link").symlink_to(temporary / "other")
    (temporary / f"{PREFIX}file").write_text("")
    (temporary / "roadstead-else").mkdir()

    sweep(temporary)

    assert {path.name for path in temporary.iterdir()} == {"other", f"{PREFIX}link", f"{PREFIX}file", "roadstead-else"}
