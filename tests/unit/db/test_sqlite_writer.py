"""The writing thread of SQLite: batches, turns among processes, and what goes wrong in between."""

import asyncio
import fcntl
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select, text

import roadstead
from roadstead.db.errors import StoreFailedError
from roadstead.db.schema import instance
from roadstead.db.sqlite import SqliteAccess, migrate
from roadstead.registry.errors import StoreBusyError

SOURCES = str(Path(roadstead.__path__[0]).parent)


@pytest.fixture
async def access(path: Path) -> AsyncIterator[SqliteAccess]:
    """A process's way to it, with little patience."""
    access = SqliteAccess.open(path, busy_timeout=timedelta(seconds=0.2))
    yield access
    await access.close()


@contextmanager
def turn_taken(path: Path) -> Iterator[None]:
    """Hold the turn to write, as another process would."""
    with path.with_name(path.name + ".lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def note(connection: Connection, name: str) -> None:
    """Write a row."""
    connection.execute(insert(instance), {"name": name, "value": b""})


def noted(connection: Connection) -> list[str]:
    """Return what was written."""
    return sorted(connection.execute(select(instance.c.name)).scalars())


async def test_what_waits_is_one_transaction(path: Path, access: SqliteAccess) -> None:
    """Everything that queued up while another process wrote is committed together."""
    watcher = sqlite3.connect(path)
    before = watcher.execute("PRAGMA data_version").fetchone()
    commits = 0
    with turn_taken(path):
        first = asyncio.create_task(access.write(note, "first"))
        await asyncio.sleep(0)
        writing = [asyncio.create_task(access.write(note, f"{number:02}")) for number in range(40)]
        await asyncio.sleep(0)

    for task in asyncio.as_completed([first, *writing]):
        await task
        after = watcher.execute("PRAGMA data_version").fetchone()
        commits += after != before
        before = after
    watcher.close()

    assert len(await access.write(noted)) == 41
    assert commits <= 2


async def test_a_write_that_waits_too_long_is_refused_and_never_happens(path: Path, access: SqliteAccess) -> None:
    """StoreBusyError means that nothing was written and nothing will be."""
    with turn_taken(path), pytest.raises(StoreBusyError):
        await access.write(note, "late")

    assert await access.write(noted) == []


async def test_a_write_that_was_cancelled_while_it_waited_never_happens(path: Path, access: SqliteAccess) -> None:
    """It is dropped from the queue."""
    with turn_taken(path):
        writing = asyncio.create_task(access.write(note, "cancelled"))
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing

    assert await access.write(noted) == []


async def test_a_write_that_was_cancelled_while_it_ran_happens_whole(access: SqliteAccess) -> None:
    """The thread goes on; only the one who waited is gone."""
    running, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        note(connection, "a")
        running.set()
        go_on.wait()
        note(connection, "b")

    writing = asyncio.create_task(access.write(slow))
    await asyncio.to_thread(running.wait)
    writing.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await writing

    assert await access.write(noted) == ["a", "b"]


async def test_a_lost_transaction_is_told_to_all_of_it(path: Path, access: SqliteAccess) -> None:
    """Where SQLite gives up the whole transaction nobody is told that his write was done."""

    def lose(connection: Connection) -> None:
        connection.execute(text("ROLLBACK"))  # as SQLite does by itself on a full disk
        raise sqlite3.OperationalError("database or disk is full")

    with turn_taken(path):
        writing = [
            asyncio.create_task(access.write(note, "before")),
            asyncio.create_task(access.write(lose)),
            asyncio.create_task(access.write(note, "after")),
        ]
        await asyncio.sleep(0)
    results = await asyncio.gather(*writing, return_exceptions=True)

    stored = await access.write(noted)
    told = {name for name, result in zip(("before", "lost", "after"), results, strict=True) if result is None}
    assert isinstance(results[1], StoreFailedError)
    assert told == set(stored)


async def test_others_programs_are_waited_for(path: Path, access: SqliteAccess) -> None:
    """One that doesn't know of turns holds SQLite's own lock: reads go on, writes wait."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(access.write(note, "patient"))
    await asyncio.sleep(0)
    assert access.revision() is not None
    other.execute("COMMIT")
    other.close()

    await writing
    assert await access.write(noted) == ["patient"]


async def test_closing_finishes_what_was_asked(path: Path) -> None:
    """Writes that were queued before are done."""
    access = SqliteAccess.open(path)
    writing = [asyncio.create_task(access.write(note, f"{number:02}")) for number in range(10)]
    await asyncio.sleep(0)

    await access.close()

    await asyncio.gather(*writing)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM instance").fetchone() == (10,)
    connection.close()


async def test_two_processes_take_turns(path: Path) -> None:
    """Each gets its writes done while the other writes without a pause."""
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from sqlalchemy import insert\n"
        "from roadstead.db.schema import instance\n"
        "from roadstead.db.sqlite import SqliteAccess\n"
        "def note(connection, name):\n"
        "    connection.execute(insert(instance), {'name': name, 'value': b''})\n"
        "async def main():\n"
        "    access = SqliteAccess.open(Path(sys.argv[1]))\n"
        "    for number in range(100):\n"
        "        await access.write(note, f'{sys.argv[2]}{number}')\n"
        "    await access.close()\n"
        "asyncio.run(main())\n"
    )
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(path), name, env={"PYTHONPATH": SOURCES})
        for name in "ab"
    ]

    assert [await process.wait() for process in processes] == [0, 0]
    access = SqliteAccess.open(path)
    assert len(await access.write(noted)) == 200
    await access.close()


async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """With an error of ours, and no thread left behind."""
    path = tmp_path / "roadstead.db"
    path.write_bytes(b"this is no database" * 100)
    threads = threading.active_count()

    with pytest.raises(StoreFailedError):
        SqliteAccess.open(path)
    with pytest.raises(StoreFailedError):
        migrate(path)

    assert threading.active_count() == threads
