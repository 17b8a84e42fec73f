"""How SQLite is read and written: which road costs what.

``python benchmarks/decisions/sqlite_access.py [DIRECTORY]`` works in a temporary directory there.
"""

import asyncio
import fcntl
import importlib.metadata
import os
import queue
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import aiosqlite
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

READ = "SELECT digest, media_type, size FROM tag WHERE repository = ? AND name = ?"
WRITE = "INSERT INTO tag VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET digest = excluded.digest"
ROWS = 10_000
ARGUMENTS = [("team/app", f"v{number}") for number in range(ROWS)]


def connect(path: Path, *, write: bool = True) -> sqlite3.Connection:
    """Open the database as the registry would."""
    address = f"file:{path}" if write else f"file:{path}?mode=ro"
    connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA busy_timeout=10000")
    return connection


def prepare(path: Path) -> None:
    """Make the table and its rows."""
    connection = connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(
        "CREATE TABLE tag (repository TEXT, name TEXT, digest TEXT, media_type TEXT, size INTEGER,"
        " PRIMARY KEY (repository, name)) WITHOUT ROWID"
    )
    connection.execute("BEGIN")
    connection.executemany(WRITE, [(*pair, "sha256:" + "a" * 64, "application/json", 1000) for pair in ARGUMENTS])
    connection.execute("COMMIT")
    connection.close()


def table(title: str, rows: list[tuple[str, float]], unit: str, *, more_is_better: bool) -> None:
    """Print figures and their ratio to the best."""
    print(f"\n## {title}")
    best = (max if more_is_better else min)(figure for _, figure in rows)
    for name, figure in rows:
        print(f"{name:<58}{figure:>10.1f} {unit}  x{figure / best:.2f}")


TAG = sa.table("tag", *(sa.column(name) for name in ("repository", "name", "digest", "media_type", "size")))
SELECT = sa.select(TAG.c.digest, TAG.c.media_type, TAG.c.size).where(
    TAG.c.repository == sa.bindparam("repository_"), TAG.c.name == sa.bindparam("name_")
)


def named(arguments: tuple[str, str]) -> dict[str, str]:
    return {"repository_": arguments[0], "name_": arguments[1]}


async def read_rows(path: Path) -> None:
    """Time one single-row read over each road, one after another on one loop."""
    connection = connect(path, write=False)
    engine = sa.create_engine(f"sqlite:///{path}")
    rows: list[tuple[str, float]] = []

    async def measure(name: str, count: int, read: Callable) -> None:
        started = time.perf_counter()
        for number in range(count):
            result = await read(ARGUMENTS[number * 7919 % ROWS])
            assert result[2] == 1000
        rows.append((name, (time.perf_counter() - started) / count * 1e6))

    async def direct(arguments):
        return connection.execute(READ, arguments).fetchone()

    async def threaded(arguments):
        return await asyncio.to_thread(lambda: connection.execute(READ, arguments).fetchone())

    await measure("sqlite3 on the loop, read-only connection", 20_000, direct)
    await measure("sqlite3 through to_thread", 3000, threaded)
    async with aiosqlite.connect(f"file:{path}?mode=ro", uri=True) as other:

        async def through_aiosqlite(arguments):
            async with other.execute(READ, arguments) as cursor:
                return await cursor.fetchone()

        await measure("aiosqlite", 2000, through_aiosqlite)
    with engine.connect() as core:

        async def through_core(arguments):
            return core.execute(SELECT, named(arguments)).fetchone()

        await measure("SQLAlchemy Core on the loop, connection kept", 5000, through_core)
    asynchronous = create_async_engine(f"sqlite+aiosqlite:///{path}")
    async with asynchronous.connect() as kept:

        async def through_async(arguments):
            return (await kept.execute(SELECT, named(arguments))).fetchone()

        await measure("SQLAlchemy + aiosqlite, connection kept", 1000, through_async)

    async def through_pool(arguments):
        async with asynchronous.connect() as taken:
            return (await taken.execute(SELECT, named(arguments))).fetchone()

    await measure("SQLAlchemy + aiosqlite, connection from the pool", 500, through_pool)
    await asynchronous.dispose()
    engine.dispose()

    async def version(_arguments):
        return 0, 0, 1000 if connection.execute("PRAGMA data_version").fetchone() else 0

    await measure("PRAGMA data_version", 20_000, version)
    connection.close()
    table("one single-row read", rows, "us", more_is_better=False)


class Writer:
    """One thread that writes; what waits while it commits shares the next transaction."""

    def __init__(self, path: Path, *, group: int) -> None:
        self.path, self.group = path, group
        self.jobs: queue.SimpleQueue = queue.SimpleQueue()
        self.commits = 0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def submit(self, job: Callable[[sqlite3.Connection], object]) -> Future:
        future: Future = Future()
        self.jobs.put((job, future))
        return future

    def run(self) -> None:
        connection = connect(self.path)
        stopping = False
        while not stopping:
            batch = [self.jobs.get()]
            while len(batch) < self.group and not self.jobs.empty():
                batch.append(self.jobs.get())
            stopping = None in batch
            done = []
            connection.execute("BEGIN IMMEDIATE")
            for job, future in (entry for entry in batch if entry is not None):
                if self.group > 1:
                    connection.execute("SAVEPOINT one")
                done.append((future, job(connection)))
                if self.group > 1:
                    connection.execute("RELEASE one")
            connection.execute("COMMIT")
            self.commits += 1
            for future, result in done:
                future.set_result(result)
        connection.close()

    def stop(self) -> None:
        self.jobs.put(None)
        self.thread.join()


def put(number: int) -> Callable[[sqlite3.Connection], object]:
    """Give a write like a tag's: two statements."""

    def job(connection: sqlite3.Connection) -> int:
        connection.execute(READ, ARGUMENTS[number % ROWS]).fetchone()
        # Always a new value: SQLite doesn't write (nor sync) a row that stays the same.
        connection.execute(
            WRITE, (*ARGUMENTS[number % ROWS], f"sha256:{os.urandom(32).hex()}", "application/json", 1000)
        )
        return number

    return job


async def write_rows(path: Path, seconds: float = 1.5) -> None:
    """Count transactions a second for a number of writers at once."""
    for writers in (1, 8, 64):
        rows, waits = [], []
        for group in (1, 256):
            writer, count, slow = Writer(path, group=group), 0, []
            until = time.perf_counter() + seconds

            async def client(start: int) -> None:
                nonlocal count
                while time.perf_counter() < until:  # noqa: B023 (awaited in this turn)
                    began = time.perf_counter()
                    await asyncio.wrap_future(writer.submit(put(start + count)))  # noqa: B023 (the same)
                    slow.append(time.perf_counter() - began)  # noqa: B023 (the same)
                    count += 1

            await asyncio.gather(*(client(number * 1000) for number in range(writers)))
            writer.stop()
            name = "one commit each" if group == 1 else "group commit"
            rows.append((name, count / seconds))
            slow.sort()
            waits.append(
                f"{name}: {writer.commits / seconds:.0f} commits/s, "
                f"p50 {slow[len(slow) // 2] * 1e3:.2f} ms, p99 {slow[int(len(slow) * 0.99)] * 1e3:.2f} ms"
            )
        table(f"{writers} writers at once, WAL, synchronous=FULL", rows, "tx/s", more_is_better=True)
        print("\n".join(waits))


def contend(path: Path, how: str, seconds: float, pause: float) -> None:
    """Write in a loop until time is up, print each wait: one of a few processes."""
    connection = connect(path)
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
    waits, number, until = [], os.getpid(), time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        if how == "flock":
            fcntl.flock(lock, fcntl.LOCK_EX)
        connection.execute("BEGIN IMMEDIATE")
        put(number)(connection)
        connection.execute("COMMIT")
        if how == "flock":
            fcntl.flock(lock, fcntl.LOCK_UN)
        waits.append(time.perf_counter() - started)
        number += 1
        time.sleep(pause)
    print(*waits)


def beside_a_busy_one(path: Path, seconds: float = 3) -> None:
    """Let one process write all the time and one now and then: how long does that one wait?"""
    print("\n## one process writes without a pause, another each 20 ms: waits of the second")
    for how in ("busy_timeout", "flock"):
        commands = [
            [sys.executable, __file__, "contend", str(path), how, str(seconds), pause] for pause in ("0", "0.02")
        ]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
        busy, other = (sorted(map(float, process.communicate()[0].split())) for process in processes)
        print(
            f"{how}: {len(other)} writes beside {len(busy)}, p50 {statistics.median(other) * 1e3:.2f} ms, "
            f"p99 {other[int(len(other) * 0.99)] * 1e3:.2f} ms, longest {other[-1] * 1e3:.0f} ms"
        )


def two_processes(path: Path, seconds: float = 3) -> None:
    """Let processes write at once, by polling or by a lock that wakes."""
    for count in (2, 4):
        rows, notes = [], []
        for how in ("busy_timeout", "flock"):
            command = [sys.executable, __file__, "contend", str(path), how, str(seconds), "0"]
            processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
            outputs = [process.communicate()[0].split() for process in processes]
            waits = sorted(float(word) for output in outputs for word in output)
            rows.append((how, len(waits) / seconds))
            shares = "/".join(str(len(output)) for output in outputs)
            notes.append(
                f"{how}: p50 {statistics.median(waits) * 1e3:.2f} ms, "
                f"p99 {waits[int(len(waits) * 0.99)] * 1e3:.2f} ms, "
                f"longest {waits[-1] * 1e3:.0f} ms, writes of each {shares}"
            )
        table(f"{count} processes writing at once", rows, "tx/s", more_is_better=True)
        print("\n".join(notes))


def statements(path: Path) -> None:
    """What a write statement costs through SQLAlchemy Core, in one open transaction."""
    rows, values, count = [], {"media_type": "application/json", "size": 1000}, 5000
    connection = connect(path)
    connection.execute("BEGIN IMMEDIATE")
    started = time.perf_counter()
    for number in range(count):
        digest = f"sha256:{number:064x}"
        connection.execute(WRITE, (*ARGUMENTS[number % ROWS], digest, *values.values()))
    rows.append(("sqlite3", (time.perf_counter() - started) / count * 1e6))
    connection.execute("ROLLBACK")
    connection.close()
    tag = sa.Table("tag", sa.MetaData(), *(sa.Column(column.name, sa.String) for column in TAG.c))
    from sqlalchemy.dialects.sqlite import insert

    made = insert(tag)
    made = made.on_conflict_do_update(index_elements=["repository", "name"], set_={"digest": made.excluded.digest})
    compiled = str(made.compile(dialect=sa.create_engine("sqlite://").dialect))
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.connect() as core:
        for name, run in (
            ("Core statement built once, values as parameters", lambda row: core.execute(made, row)),
            ("Core statement built anew each time", lambda row: core.execute(rebuilt(tag, row))),
            ("Core's connection, exec_driver_sql", lambda row: core.exec_driver_sql(compiled, tuple(row.values()))),
        ):
            started = time.perf_counter()
            for number in range(count // 2):
                repository, name_ = ARGUMENTS[number % ROWS]
                run({"repository": repository, "name": name_, "digest": f"sha256:{number:064x}", **values})
            rows.append((name, (time.perf_counter() - started) / (count // 2) * 1e6))
        core.rollback()
    engine.dispose()
    table("one upsert inside a transaction", rows, "us", more_is_better=False)


def rebuilt(tag: sa.Table, row: dict) -> sa.Insert:
    """Build the upsert of one row."""
    from sqlalchemy.dialects.sqlite import insert

    made = insert(tag).values(**row)
    return made.on_conflict_do_update(index_elements=["repository", "name"], set_={"digest": made.excluded.digest})


def main() -> None:
    if sys.argv[1:2] == ["contend"]:
        contend(Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]), float(sys.argv[5]))
        return
    names = ("sqlalchemy", "aiosqlite")
    print(
        f"SQLite {sqlite3.sqlite_version},", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    )
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as directory:
        path = Path(directory) / "bench.db"
        prepare(path)
        asyncio.run(read_rows(path))
        statements(path)
        asyncio.run(write_rows(path))
        two_processes(path)
        beside_a_busy_one(path)


if __name__ == "__main__":
    main()
