"""The model of a disk allows after a power cut what POSIX allows, and nothing that was flushed is ever lost."""

import random
from pathlib import Path

import pytest

from roadstead.testing.powercut.disk import Disk, State
from roadstead.testing.powercut.trace import Call, TraceError, read_trace

ROOT = Path("/data")


def disk_after(*steps: tuple) -> Disk:
    """Return a disk after calls written as (name, path, more…): each ended before the next began."""
    disk = Disk(ROOT)
    for number, (name, path, *more) in enumerate(steps):
        facts: dict[str, object] = {}
        if name == "write":
            facts = {"position": more[0], "data": more[1]}
        elif name == "truncate":
            facts = {"position": more[0]}
        elif name == "rename":
            facts = {"target": f"/data/{more[0]}"}
        whole = f"/data/{path}" if path else "/data"
        disk.apply(Call(name=name, path=whole, began_at=float(number), began_after=number, **facts))
    return disk


def states(disk: Disk, mixtures: int = 200) -> list[State]:
    return list(disk.states(random.Random(1), mixtures))


def test_what_was_never_flushed_may_be_lost_or_kept() -> None:
    """A new file may be missing, empty, zeros, whole, or whole in some sectors."""
    disk = disk_after(("create", "file"), ("write", "file", 0, b"a" * 1024))

    found = {state.files.get("file") for state in states(disk)}

    assert {None, b"", bytes(1024), b"a" * 1024, b"a" * 512, bytes(512) + b"a" * 512} <= found


def test_what_was_flushed_stays() -> None:
    """Bytes after their file's flush and a name after its folder's flush are in every state."""
    disk = disk_after(("create", "file"), ("write", "file", 0, b"kept"), ("flush", "file"), ("flush", ""))

    assert {state.files["file"] for state in states(disk)} == {b"kept"}


@pytest.mark.parametrize("flushed", ["file", ""])
def test_data_and_name_are_two_things(flushed: str) -> None:
    """Flushing a file doesn't keep its name, nor flushing the folder the file's bytes."""
    disk = disk_after(("create", "file"), ("write", "file", 0, b"kept"), ("flush", flushed))

    assert any(state.files.get("file") != b"kept" for state in states(disk))


def test_a_flush_covers_only_what_ended_before_it_began() -> None:
    """A write that ends while the flush is under way isn't promised."""
    disk = Disk(ROOT)
    disk.apply(Call(name="create", path="/data/file", began_at=0, began_after=0))
    disk.apply(Call(name="flush", path="/data", began_at=1, began_after=1))
    disk.apply(Call(name="write", path="/data/file", data=b"late", began_at=2, began_after=2))
    disk.apply(Call(name="flush", path="/data/file", began_at=2, began_after=2))

    assert disk.promised().files == {"file": b""}


def test_a_rename_never_loses_the_file() -> None:
    """In every state a flushed file has its old name, its new one, or for a while both."""
    disk = disk_after(
        ("mkdir", "from"),
        ("mkdir", "to"),
        ("flush", ""),
        ("create", "from/file"),
        ("flush", "from"),
        ("rename", "from/file", "to/file"),
    )

    found = {tuple(sorted(state.files)) for state in states(disk)}

    assert found == {("from/file",), ("to/file",), ("from/file", "to/file")}


def test_a_flush_of_the_new_folder_keeps_the_new_name() -> None:
    """After it the rename can't be undone; the old name may live a little longer."""
    disk = disk_after(
        ("mkdir", "from"), ("mkdir", "to"), ("flush", ""), ("create", "from/file"), ("flush", "from"),
        ("rename", "from/file", "to/file"), ("flush", "to"),
    )  # fmt: skip

    assert all("to/file" in state.files for state in states(disk))


def test_memory_that_processes_share_is_lost() -> None:
    """SQLite's index of its log is no part of any state."""
    disk = disk_after(("create", "x.db-shm"), ("write", "x.db-shm", 0, b"index"), ("flush", "x.db-shm"), ("flush", ""))

    assert all(state.files == {} for state in states(disk))


def test_a_trace_is_read_in_the_order_in_which_calls_ended(tmp_path: Path) -> None:
    """A call that strace wrote in two pieces counts where it ended, and remembers where it began."""
    written = 'pwrite64(3<\\x2f\\x64\\x2f\\x66>, "\\x61\\x62", 2, 7'
    (tmp_path / "trace").write_text(
        '10 1.0 openat(AT_FDCWD<\\x2f>, "\\x2f\\x64\\x2f\\x66", O_RDWR|O_CREAT, 0600) = 3<\\x2f\\x64\\x2f\\x66>\n'
        f"10 2.0 {written} <unfinished ...>\n"
        "11 3.0 fsync(3<\\x2f\\x64\\x2f\\x66>) = 0\n"
        "10 4.0 <... pwrite64 resumed>) = 2\n"
        "11 5.0 fsync(3<\\x2f\\x65>) = 0\n"
        '11 6.0 rename("\\x2f\\x64\\x2f\\x66", "\\x2f\\x64\\x2f\\x67") = -1 ENOENT (No such file)\n'
        "11 7.0 +++ exited with 0 +++\n"
    )

    calls = read_trace(tmp_path / "trace", Path("/d"))

    assert [call.name for call in calls] == ["create", "flush", "write"]
    assert (calls[2].data, calls[2].position, calls[2].began_after, calls[2].began_at) == (b"ab", 7, 1, 2.0)


def test_a_call_that_the_model_does_not_know_is_loud(tmp_path: Path) -> None:
    """Whoever teaches the driver a new call is told to teach the model too."""
    (tmp_path / "trace").write_text("10 1.0 fallocate(3<\\x2f\\x64\\x2f\\x66>, 0, 0, 100) = 0\n")

    with pytest.raises(TraceError, match="fallocate on /d/f"):
        read_trace(tmp_path / "trace", Path("/d"))
