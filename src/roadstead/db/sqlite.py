"""SQLite: reads on the event loop, one writing thread, group commit (design decision 3).

A read is a prepared statement on a read-only connection, a few microseconds, so it stays on the loop. No transaction
is kept open between reads: each sees the last commit of any process, and none holds up a checkpoint. What is read with
most requests is remembered until somebody writes (`SeenRows`).

Writes queue up for one thread. It takes the turn among processes (a lock on a file beside the database, which wakes
its waiters; SQLite's own lock is polled for), begins, runs everything that waits, each in a savepoint so that one
failing doesn't hurt the rest, and commits: one fsync for all of them. Only then is anybody told.
"""

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Self
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from roadstead.db.access import Access, P, Query, Row, T
from roadstead.db.errors import StoreFailedError
from roadstead.db.migrating import upgrade
from roadstead.db.seen_rows import SeenRows
from roadstead.db.turns import ChangeCount, Turns
from roadstead.errors import RoadsteadError
from roadstead.registry.errors import StoreBusyError
from roadstead.storage.folders import make_folder

MAX_BATCH = 256
"""Intentions in one transaction: enough to share an fsync, few enough that the first need not wait long for it."""

BUSY_TIMEOUT = timedelta(seconds=5)
"""How long a write may wait for its turn before the caller is told to come back."""

COMMITS_SEEN_EVERY_S = 0.02
"""How often whoever waits for commits looks (design, "Shape"): a look is a few microseconds."""

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

_COMMON_PRAGMAS = ("PRAGMA trusted_schema = OFF", "PRAGMA cache_size = -8192")
# A reader meets a lock only while the log is recovered or taken down; it waits on the loop, so not for long.
_READER_PRAGMAS = (*_COMMON_PRAGMAS, "PRAGMA busy_timeout = 250")
_WRITER_PRAGMAS = (
    *_COMMON_PRAGMAS,
    "PRAGMA busy_timeout = 5000",  # for programs that don't know of turns
    "PRAGMA foreign_keys = ON",
    "PRAGMA synchronous = FULL",  # in WAL mode: an fsync with every commit
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA temp_store = MEMORY",
)


def our_error(error: sqlite3.Error) -> RoadsteadError:
    """Return what an error of SQLite means to a caller."""
    if isinstance(error, sqlite3.OperationalError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY:
        return StoreBusyError("the database is busy; try again")
    return StoreFailedError(f"the database answered with an error: {error}")


def connect_for_writing(path: Path) -> sqlite3.Connection:
    """Open the database to write to it, made where there is none, readable by its owner alone: it holds secrets.

    The connection belongs to the thread that opens it and begins no transaction by itself.
    """
    # Only a file that isn't there is opened so. Closing one that SQLite has open elsewhere in this process would let
    # go of SQLite's locks on it.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for pragma in _WRITER_PRAGMAS:
            connection.execute(pragma)
        # Needs a lock only where the file isn't in this mode yet; the mode stays with the file.
        connection.execute("PRAGMA journal_mode = WAL")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_for_reading(path: Path) -> sqlite3.Connection:
    """Open an existing database read-only."""
    # One thread uses it, the one that runs the loop; that need not be the one that opened it.
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )
    for pragma in _READER_PRAGMAS:
        connection.execute(pragma)
    return connection


def engine_over(connection: sqlite3.Connection) -> Engine:
    """Return an engine that runs Core statements on this one connection and begins nothing by itself."""
    return create_engine("sqlite+pysqlite://", creator=lambda: connection, poolclass=StaticPool)


@dataclass(slots=True, eq=False)
class Pending(Generic[T]):
    """An intention on its way to the writing thread, and the future of whoever waits for it."""

    run: Callable[[Connection], T]
    future: asyncio.Future[T]
    cold: bool = False
    result: T | None = None
    error: Exception | None = None
    _claim: threading.Lock = field(default_factory=threading.Lock)

    def claim(self) -> bool:
        """Take the intention, to run it or to drop it: true for the first who asks, and only for that one."""
        return self._claim.acquire(blocking=False)

    def give_up(self) -> None:
        """Tell whoever waits that it took too long, unless it is being run; on the loop."""
        if self.claim() and not self.future.done():
            self.future.set_exception(StoreBusyError("the database didn't take the write in time; try again"))

    def settle(self) -> None:
        """Tell whoever waits how it went; on the loop."""
        if self.future.done():  # cancelled, or given up
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]  # None only where T is


class Writer:
    """The one thread of a process that writes."""

    def __init__(self, path: Path, *, max_batch: int) -> None:
        self._path = path
        self._max_batch = max_batch
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Pending[Any] | None] = queue.SimpleQueue()
        self._opened: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        # A daemon: a process may end although another, stopped while writing, never gives the turn back.
        self._thread = threading.Thread(target=self._work, name="roadstead-sqlite-writer", daemon=True)

    def start(self) -> None:
        """Open the database in the thread; raise what that raises."""
        self._thread.start()
        error = self._opened.get()
        if error is not None:
            self._thread.join()
            raise error

    def submit(self, pending: Pending[Any]) -> None:
        """Queue an intention."""
        self._queue.put(pending)

    def close(self) -> None:
        """Finish what is queued and end the thread; blocks."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        with ExitStack() as stack:
            try:
                turns = stack.enter_context(closing(Turns(self._path)))
                driver = stack.enter_context(closing(connect_for_writing(self._path)))
                connection = stack.enter_context(engine_over(driver).connect())
            except sqlite3.Error as error:
                self._opened.put(our_error(error))
                return
            except Exception as error:  # noqa: BLE001  # start() raises it
                self._opened.put(error)
                return
            self._opened.put(None)
            self._serve(connection, driver, turns)

    def _serve(self, connection: Connection, driver: sqlite3.Connection, turns: Turns) -> None:
        more = True
        while more and (first := self._queue.get()) is not None:
            batch = [first]
            try:
                with turns.turn():
                    more = self._drain(batch)
                    is_cold = all(pending.cold for pending in batch) and not turns.left_open
                    with nullcontext() if is_cold else turns.noted():
                        write_batch(connection, driver, batch)
            except OSError as error:
                for pending in batch:
                    if pending.claim():
                        pending.error = StoreFailedError(f"the turn to write can't be noted: {error.strerror}")
            self._tell(batch)

    def _drain(self, batch: list[Pending[Any]]) -> bool:
        """Add to the batch what has queued up; return whether there may be more later."""
        while len(batch) < self._max_batch:
            try:
                pending = self._queue.get_nowait()
            except queue.Empty:
                return True
            if pending is None:
                return False
            batch.append(pending)
        return True

    def _tell(self, batch: Sequence[Pending[Any]]) -> None:
        def settle() -> None:
            for pending in batch:
                pending.settle()

        # A loop that is closed has nobody waiting on it.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(settle)


def write_batch(connection: Connection, driver: sqlite3.Connection, batch: Sequence[Pending[Any]]) -> None:
    """Run intentions in one transaction, and leave with each its result or its error; raises nothing."""
    run: list[Pending[Any]] = []
    try:
        driver.execute("BEGIN IMMEDIATE")
        for pending in batch:
            if pending.claim():
                run.append(pending)
                if len(batch) == 1:
                    _run_alone(connection, driver, pending)
                else:
                    _run_in_savepoint(connection, driver, pending)
        if driver.in_transaction:
            driver.execute("COMMIT")
    except sqlite3.Error as error:
        # Nothing of this batch is stored, whatever single intentions came to.
        _roll_back(driver)
        run.extend(pending for pending in batch if pending.claim())
        for pending in run:
            pending.error = our_error(error)
            pending.error.__cause__ = error
    finally:
        connection.rollback()  # ends what SQLAlchemy takes for a transaction; the driver's own has ended


def _run_alone(connection: Connection, driver: sqlite3.Connection, pending: Pending[Any]) -> None:
    """Run the only intention of a transaction: what undoes it undoes everything, so it needs no savepoint."""
    try:
        pending.result = pending.run(connection)
    except Exception as error:  # noqa: BLE001  # it is raised where the intention is waited for
        pending.error = _translated(error)
        _roll_back(driver)


def _run_in_savepoint(connection: Connection, driver: sqlite3.Connection, pending: Pending[Any]) -> None:
    """Run one intention; keep its error with it. Raises sqlite3.Error where the whole transaction is lost."""
    driver.execute("SAVEPOINT intention")
    try:
        pending.result = pending.run(connection)
    except Exception as error:  # it is raised where the intention is waited for
        pending.error = _translated(error)
        if not driver.in_transaction:  # a full disk, an I/O error: SQLite has rolled back by itself
            raise sqlite3.OperationalError(str(error)) from error
        driver.execute("ROLLBACK TO intention")
    driver.execute("RELEASE intention")


def _translated(error: Exception) -> Exception:
    if isinstance(error, sqlite3.Error):
        ours = our_error(error)
        ours.__cause__ = error
        return ours
    if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error):
        ours = our_error(error.orig)
        ours.__cause__ = error
        return ours
    return error


def _roll_back(driver: sqlite3.Connection) -> None:
    if driver.in_transaction:
        with suppress(sqlite3.Error):
            driver.execute("ROLLBACK")


class SqliteAccess:
    """One process's way to an SQLite file. It belongs to one event loop."""

    def __init__(self, reader: sqlite3.Connection, writer: Writer, count: ChangeCount, busy_timeout: timedelta) -> None:
        self._reader = reader
        self._count = count
        self._seen = SeenRows(count)
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._busy_timeout_s = busy_timeout.total_seconds()

    @classmethod
    def open(cls, path: Path, *, busy_timeout: timedelta = BUSY_TIMEOUT, max_batch: int = MAX_BATCH) -> Self:
        """Open an existing database; raise StoreBusyError or StoreFailedError where it can't be."""
        writer = Writer(path, max_batch=max_batch)
        writer.start()
        try:
            return cls(connect_for_reading(path), writer, ChangeCount(path), busy_timeout)
        except sqlite3.Error as error:
            writer.close()
            raise our_error(error) from error

    def revision(self) -> str | None:
        """Return the revision of the schema, or None where there is none yet."""
        try:
            return read_revision(self._reader)
        except sqlite3.Error as error:
            raise our_error(error) from error

    async def row(self, query: Query, *arguments: Any) -> Row | None:
        """Return the first row of a query, or None."""
        return self._seen.find(query, arguments, self._read) if query.hot else self._read(query, arguments)

    def _read(self, query: Query, arguments: tuple[Any, ...]) -> Row | None:
        prepared = query.sqlite
        try:
            found: Row | None = self._reader.execute(prepared.text, prepared.parameters(arguments)).fetchone()
        except sqlite3.Error as error:
            raise our_error(error) from error
        return found

    def change_count(self) -> int | None:
        """Return the number that the processes of the database share; programs that take no turns don't change it."""
        count = self._count.read()
        return None if count & 1 else count

    async def rows(self, query: Query, *arguments: Any) -> Sequence[Row]:
        """Return all rows of a query."""
        prepared = query.sqlite
        try:
            return self._reader.execute(prepared.text, prepared.parameters(arguments)).fetchall()
        except sqlite3.Error as error:
            raise our_error(error) from error

    async def write(self, intention: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an intention as one transaction."""
        return await self._write(lambda connection: intention(connection, *args, **kwargs), cold=False)

    async def write_cold(
        self, intention: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run an intention as one transaction, of which whoever remembers rows needn't know."""
        return await self._write(lambda connection: intention(connection, *args, **kwargs), cold=True)

    async def _write(self, run: Callable[[Connection], T], *, cold: bool) -> T:
        future: asyncio.Future[T] = self._loop.create_future()
        pending = Pending(run, future, cold)
        patience = self._loop.call_later(self._busy_timeout_s, pending.give_up)
        self._writer.submit(pending)
        try:
            return await future
        except asyncio.CancelledError:
            pending.claim()  # still queued: it is dropped; being run: it happens whole
            raise
        finally:
            patience.cancel()

    @asynccontextmanager
    async def commits(self) -> AsyncGenerator["SqliteCommits", None]:
        """Watch for commits of any process, from now on."""
        yield SqliteCommits(self._reader)

    async def close(self) -> None:
        """Finish the writes that wait and close the file."""
        self._reader.close()
        self._count.close()
        await asyncio.to_thread(self._writer.close)


class SqliteCommits:
    """Sees commits by a number that SQLite raises for other connections: our writer's is another, too."""

    def __init__(self, reader: sqlite3.Connection) -> None:
        self._reader = reader
        self._seen = self._version()

    async def wait(self, timeout_s: float) -> None:
        """Return when something was committed since the last call, or when the time is over."""
        loop = asyncio.get_running_loop()
        over = loop.time() + timeout_s
        # Other processes tell nobody, so it is looked for.
        while (version := self._version()) == self._seen and (left := over - loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(COMMITS_SEEN_EVERY_S, left))
        self._seen = version

    def _version(self) -> int:
        try:
            found: int = self._reader.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error as error:
            raise our_error(error) from error
        return found


def read_revision(connection: sqlite3.Connection) -> str | None:
    """Return the revision of the schema, or None where there is none yet."""
    known = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'alembic_version'").fetchone()
    if known is None:
        return None
    found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if found is None else str(found[0])


def migrate(path: Path) -> None:
    """Bring the database to this release's revision, made where there is none; blocks.

    Processes that start together take turns. Raises SchemaTooNewError.
    """
    if not path.exists():  # else it was made by one who had the folder's name durable before
        make_folder(str(path.parent))
    try:
        with (
            closing(Turns(path)) as turns,
            turns.turn(),
            turns.noted(),
            closing(connect_for_writing(path)) as driver,
            engine_over(driver).connect() as connection,
        ):
            # Not before: as it connects, SQLAlchemy asks the database what it is, and rolls back. Whoever is killed
            # in the middle must leave no half of a schema.
            driver.execute("BEGIN IMMEDIATE")
            upgrade(connection)
            connection.commit()
    except sqlite3.Error as error:
        raise our_error(error) from error
    except DBAPIError as error:
        raise _translated(error) from error


if TYPE_CHECKING:
    _: type[Access] = SqliteAccess
