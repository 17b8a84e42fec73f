"""Rows that are remembered until somebody writes, and the count by which that is known."""

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, bindparam, select

import roadstead
from roadstead.db import seen_rows, turns
from roadstead.db.access import Query, Row, Upsert
from roadstead.db.errors import StoreFailedError
from roadstead.db.schema import instance
from roadstead.db.seen_rows import SEEN_FOR_S, SEEN_ROWS, SeenRows
from roadstead.db.sqlite import SqliteAccess
from roadstead.db.turns import ChangeCount, Turns

VALUE = Query(select(instance.c.value).where(instance.c.name == bindparam("name")), "name", hot=True)
PUT = Upsert(
    instance,
    lambda insert: insert.on_conflict_do_update(index_elements=["name"], set_={"value": insert.excluded.value}),
)
SOURCES = str(Path(roadstead.__path__[0]).parent)


@pytest.fixture
async def two(path: Path) -> AsyncIterator[tuple[SqliteAccess, SqliteAccess]]:
    """Two processes' ways to it."""
    both = SqliteAccess.open(path), SqliteAccess.open(path)
    yield both
    for each in both:
        await each.close()


def put(connection: Connection, value: bytes) -> None:
    """Write a value."""
    connection.execute(PUT.on(connection), {"name": "it", "value": value})


async def value(access: SqliteAccess) -> bytes | None:
    """Read it as requests do."""
    row = await access.row(VALUE, "it")
    return None if row is None else row[0]


class Reading:
    """What is read, and how often that was done."""

    def __init__(self) -> None:
        self.times = 0

    def read(self, _: Query, arguments: tuple[Any, ...]) -> Row | None:
        """Return a row that tells when it was read."""
        self.times += 1
        return (arguments[0], self.times)


async def test_every_write_is_seen_at_once(two: tuple[SqliteAccess, SqliteAccess]) -> None:
    """Whoever writes, the other reads it, a hundred times over; that there is nothing is seen, too."""
    assert [await value(each) for each in two] == [None, None]
    for number in range(100):
        written = b"%d" % number
        await two[number % 2].write(put, written)
        assert [await value(each) for each in two] == [written, written]


def test_nothing_is_read_twice_while_nobody_writes(path: Path) -> None:
    """One look for each row, until somebody had a turn or the time is over."""
    now, reading = [0.0], Reading()
    rows = SeenRows(ChangeCount(path), clock=lambda: now[-1])

    def find(name: str) -> Row | None:
        return rows.find(VALUE, (name,), reading.read)

    assert [find("a"), find("b"), find("a")] == [("a", 1), ("b", 2), ("a", 1)]
    with closing(Turns(path)) as turns, turns.turn(), turns.noted():
        assert [find("a"), find("a")] == [("a", 3), ("a", 4)]  # who knows what is being written
    assert [find("a"), find("a")] == [("a", 5), ("a", 5)]
    now.append(SEEN_FOR_S)
    assert find("a") == ("a", 6)


def test_only_so_many_are_remembered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that came first; the others are read as ever."""
    monkeypatch.setattr(seen_rows, "SEEN_ROWS", 2)
    reading = Reading()
    rows = SeenRows(ChangeCount(path), clock=lambda: 0.0)

    for name in "abcabc":
        rows.find(VALUE, (name,), reading.read)

    assert reading.times == 4
    assert SEEN_ROWS >= 1000


async def test_a_writer_that_is_killed_hides_nothing(path: Path, two: tuple[SqliteAccess, SqliteAccess]) -> None:
    """In the middle of its turn: everybody reads until the next one has had theirs."""
    program = (
        "import os, signal, pathlib\n"
        "from roadstead.db.turns import Turns\n"
        f"turns = Turns(pathlib.Path({str(path)!r}))\n"
        "with turns.turn(), turns.noted():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    before = two[0].change_count()
    environment = {**os.environ, "PYTHONPATH": SOURCES}
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", program, env=environment)
    await killed.wait()

    assert killed.returncode == -signal.SIGKILL
    assert before is not None
    assert two[0].change_count() is None
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("INSERT INTO instance (name, value) VALUES ('it', x'01')")
    assert await value(two[1]) == b"\x01"
    await two[0].write(put, b"2")
    assert two[1].change_count() not in (None, before)
    assert await value(two[1]) == b"2"


async def test_what_is_written_cold_leaves_what_is_remembered(two: tuple[SqliteAccess, SqliteAccess]) -> None:
    """Also by whoever has written it; together with something else it counts."""
    await two[0].write(put, b"before")
    known = [await value(each) for each in two], two[1].change_count()
    await two[0].write_cold(lambda _: None)
    assert ([await value(each) for each in two], two[1].change_count()) == known

    await asyncio.gather(two[0].write_cold(lambda _: None), two[0].write(put, b"after"))
    assert [await value(each) for each in two] == [b"after"] * 2
    assert two[1].change_count() != known[1]


async def test_what_is_written_cold_ends_what_has_no_end(path: Path, two: tuple[SqliteAccess, SqliteAccess]) -> None:
    """A writer that was killed leaves everybody reading no longer than until somebody writes, whatever that is."""
    with closing(ChangeCount(path)) as count:
        count.write(count.ask() | 1)
    assert two[1].change_count() is None
    await two[0].write_cold(lambda _: None)
    assert two[1].change_count() is not None


async def test_a_turn_that_cannot_be_noted_writes_nothing(
    path: Path, two: tuple[SqliteAccess, SqliteAccess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others would go on believing what they remember; the next write is as good as ever."""
    await two[0].write(put, b"before")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(StoreFailedError, match="No space left"):
            await two[0].write(put, b"lost")
    assert [await value(each) for each in two] == [b"before"] * 2
    await two[0].write(put, b"after")
    assert [await value(each) for each in two] == [b"after"] * 2


@given(turns=st.lists(st.booleans(), max_size=30))
def test_the_count_is_never_the_same_again(turns: list[bool], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever looks between turns sees a new even number after each, of whichever process; in a turn an odd one."""
    database = tmp_path_factory.mktemp("count") / "roadstead.db"
    with closing(Turns(database)) as one, closing(Turns(database)) as other, closing(ChangeCount(database)) as count:
        seen = []
        for is_one in turns:
            turns = one if is_one else other
            with turns.turn(), turns.noted():
                assert count.read() % 2 == 1
            seen.append(count.read())
    assert all(number % 2 == 0 for number in seen)
    assert len({*seen}) == len(seen)


async def test_a_count_that_is_cut_short_is_noticed(
    path: Path, two: tuple[SqliteAccess, SqliteAccess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever hasn't looked for a moment: everybody reads, and after the next turn all is as it was."""
    monkeypatch.setattr(turns, "LOOKED_AT_S", 0.0)
    await two[0].write(put, b"before")
    before = two[1].change_count()
    assert await value(two[1]) == b"before"

    os.truncate(changes_of(path), 0)

    assert [each.change_count() for each in two] == [None, None]
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE instance SET value = x'01' WHERE name = 'it'")
    assert [await value(each) for each in two] == [b"\x01"] * 2
    await two[0].write(put, b"after")
    assert [await value(each) for each in two] == [b"after"] * 2
    count = two[1].change_count()
    assert before is not None
    assert count is not None
    assert count > before  # one that there was would have rows that were remembered by it


async def test_a_count_cut_short_in_a_turn_is_there_after_it(path: Path) -> None:
    """And whoever opens the file in between makes none of its own."""
    changes = changes_of(path)
    with closing(Turns(path)) as turns, closing(ChangeCount(path)) as count:
        with turns.turn(), turns.noted():
            before = count.ask()
            os.truncate(changes, 3)
            with closing(ChangeCount(path)) as late:
                assert late.read() % 2 == 1
            assert changes.stat().st_size == 3
        assert count.read() == count.ask() == before + 1


def test_a_count_cut_short_as_it_is_mapped_is_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was long enough a moment before, and isn't any longer."""
    measured = os.fstat

    def measured_and_cut(descriptor: int) -> os.stat_result:
        found = measured(descriptor)
        os.truncate(changes_of(path), 0)
        return found

    with closing(ChangeCount(path)) as count:
        monkeypatch.setattr(os, "fstat", measured_and_cut)
        assert count.read() % 2 == 1


def test_turns_are_taken_whatever_becomes_of_the_file(path: Path) -> None:
    """Who writes asks the kernel: a file that is cut short while they look ends none of them."""
    with closing(Turns(path)) as turns:
        seen = []
        for _ in range(50):
            os.truncate(changes_of(path), 0)
            with turns.turn(), turns.noted():
                pass
            with closing(ChangeCount(path)) as count:
                seen.append(count.read())
    assert len({*seen}) == len(seen)
    assert all(number % 2 == 0 for number in seen)


def changes_of(database: Path) -> Path:
    """Return the file with the count."""
    return database.with_name(f"{database.name}.changes")


async def test_a_file_of_turns_that_is_removed_delays_what_is_seen(
    path: Path, two: tuple[SqliteAccess, SqliteAccess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes later takes turns of their own: their writes are seen as those of a program without any are."""
    path.with_name(path.name + ".lock").unlink()
    changes_of(path).unlink()
    other = SqliteAccess.open(path)
    try:
        assert [await value(each) for each in (*two, other)] == [None] * 3
        await other.write(put, b"theirs")
        await two[0].write(put, b"ours")
        monkeypatch.setattr(seen_rows, "SEEN_FOR_S", 0.0)
        await asyncio.sleep(SEEN_FOR_S)
        assert [await value(each) for each in (*two, other)] == [b"ours"] * 3
    finally:
        await other.close()
