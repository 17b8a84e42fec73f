"""PostgreSQL: a read is one round trip of a prepared statement, a write a transaction (design decision 3).

Reads have connections of their own (readers.py), which keep the prepared statements. Writes go through SQLAlchemy, at
READ COMMITTED: the stores lock what their promises hang on. Where two transactions still lock each other out the
loser runs again, and so does one whose connection was lost before it committed; after that nobody knows, so it is
never repeated.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Concatenate, Self

from sqlalchemy import Connection, func, literal, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from roadstead.db.access import CHANNEL, Access, P, Query, Row, T
from roadstead.db.errors import DatabaseUrlError, DriverMissingError, StoreFailedError
from roadstead.db.migrating import upgrade
from roadstead.db.readers import Readers
from roadstead.errors import RoadsteadError
from roadstead.registry.errors import StoreBusyError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

MAX_ATTEMPTS = 5

_MIGRATION_LOCK = 0x526F_6164_7374_6561  # "Roadstea": the advisory lock of whoever migrates

# 40001 serialization_failure, 40P01 deadlock_detected. 23503 foreign_key_violation: content that two repositories
# share went away with the one while the other took it up; the next attempt stores it again.
_RUN_AGAIN = frozenset({"40001", "40P01", "23503"})

# The connection ends: connection_exception (08), and operator_intervention by a shutdown (57P).
_CUT = ("08", "57P")

# Besides: no room (53300), a lock or a statement that took too long (55P03, 57014), a
# server that only reads, as one does while it is being replaced (25006).
_BUSY = (*_CUT, "53300", "55P03", "57014", "25006")


class _UndoneError(Exception):
    """A transaction came to nothing, for certain, and may be run again."""


def check_driver() -> None:
    """Raise DriverMissingError unless what PostgreSQL takes is installed."""
    # SQLAlchemy wants greenlet for asyncpg, and would say so only at the first statement.
    missing = [name for name in ("asyncpg", "greenlet") if find_spec(name) is None]
    if missing:
        raise DriverMissingError(missing[0], "postgres")


class Driver:
    """asyncpg, an optional part: imported by those who use it, so that its absence can be named."""

    def __init__(self) -> None:
        check_driver()
        import asyncpg
        from sqlalchemy.ext.asyncio import create_async_engine

        self.connect = asyncpg.connect
        self.create_engine = create_async_engine
        # A connection that was cut answers with any of these, as far as it has noticed: the last word of the server,
        # that it is closed, or (InternalClientError) that it is still at something else.
        self.lost: tuple[type[Exception], ...] = (
            asyncpg.PostgresConnectionError,
            asyncpg.AdminShutdownError,
            asyncpg.CrashShutdownError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            ConnectionError,
        )
        self.refused: type[Exception] = asyncpg.PostgresError  # an answer of the server's
        self.errors: tuple[type[Exception], ...] = (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            OSError,
            TimeoutError,
        )


class PostgresAccess:
    """One process's way to a PostgreSQL database. It belongs to one event loop."""

    def __init__(
        self,
        driver: Driver,
        url: str,
        readers: Readers,
        engine: "AsyncEngine",
        busy_timeout: timedelta,
    ) -> None:
        self._driver = driver
        self._url = url
        self._readers = readers
        self._engine = engine
        self._busy_timeout_s = busy_timeout.total_seconds()

    @classmethod
    async def open(cls, url: str, *, busy_timeout: timedelta, pool_size: int) -> Self:
        """Connect to a database.

        Raises DriverMissingError and DatabaseUrlError; StoreBusyError where it doesn't answer, StoreFailedError where
        it refuses.
        """
        driver = Driver()
        seconds = busy_timeout.total_seconds()
        options: dict[str, Any] = {
            "timeout": seconds,
            "command_timeout": seconds,
            "server_settings": {
                "application_name": "roadstead",
                "default_transaction_isolation": "read committed",
                "lock_timeout": f"{int(seconds * 1000)}ms",
            },
        }
        engine = driver.create_engine(
            "postgresql+asyncpg://",
            async_creator=lambda: driver.connect(url, **options),
            pool_size=max(1, pool_size // 2),
            max_overflow=0,
            pool_timeout=seconds,
        )
        readers = Readers(lambda: driver.connect(url, **options), most=pool_size, patience_s=seconds)
        try:
            readers.give_back(await readers.wait())
        except ValueError as error:
            await engine.dispose()
            raise DatabaseUrlError("asyncpg can't read it") from error
        except driver.errors as error:
            await engine.dispose()
            raise our_error(error) from error
        return cls(driver, url, readers, engine, busy_timeout)

    async def migrate(self) -> None:
        """Bring the database to this release's revision; processes that start together take turns.

        Over a connection of its own, which waits for as long as the one whose turn it is may need.
        """
        engine = self._driver.create_engine("postgresql+asyncpg://", async_creator=self._connect_patiently)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(_migrate)
        except DBAPIError as error:
            raise our_error(error.orig or error) from error
        except self._driver.errors as error:
            raise our_error(error) from error
        finally:
            await engine.dispose()

    async def _connect_patiently(self) -> Any:
        return await self._driver.connect(self._url, timeout=self._busy_timeout_s)

    async def revision(self) -> str | None:
        """Return the revision of the schema, or None where there is none yet."""
        known = await self._read("SELECT to_regclass('alembic_version')", (), many=False)
        if known is None or known[0] is None:
            return None
        found = await self._read("SELECT version_num FROM alembic_version", (), many=False)
        return None if found is None else str(found[0])

    async def row(self, query: Query, *arguments: Any) -> Row | None:
        """Return the first row of a query, or None."""
        prepared = query.postgres
        row: Row | None = await self._read(prepared.text, prepared.parameters(arguments), many=False)
        return row

    def change_count(self) -> None:
        """Return nothing: other machines write, too."""
        return

    async def rows(self, query: Query, *arguments: Any) -> Sequence[Row]:
        """Return all rows of a query."""
        prepared = query.postgres
        rows: Sequence[Row] = await self._read(prepared.text, prepared.parameters(arguments), many=True)
        return rows

    async def _read(self, text: str, parameters: tuple[Any, ...], *, many: bool) -> Any:
        for _ in range(MAX_ATTEMPTS - 1):
            try:
                return await self._read_once(text, parameters, many=many)
            except self._driver.lost:
                # It died while it lay idle, and the others with it, likely. A read may be repeated.
                self._readers.discard_idle()
            except self._driver.errors as error:
                raise our_error(error) from error
        try:
            return await self._read_once(text, parameters, many=many)
        except self._driver.errors as error:
            raise our_error(error) from error

    async def _read_once(self, text: str, parameters: tuple[Any, ...], *, many: bool) -> Any:
        connection = self._readers.take() or await self._readers.wait()
        try:
            if many:
                answer: Any = await connection.fetch(text, *parameters)
            else:
                answer = await connection.fetchrow(text, *parameters)
        except BaseException as error:
            # After an answer it can be used again. Cut or interrupted it may not know yet how it stands.
            if isinstance(error, self._driver.refused) and not isinstance(error, self._driver.lost):
                self._readers.give_back(connection)
            else:
                self._readers.discard(connection)
            raise
        self._readers.give_back(connection)
        return answer

    async def write(self, intention: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an intention as one transaction."""
        for _ in range(MAX_ATTEMPTS):
            try:
                return await self._attempt(lambda connection: intention(connection, *args, **kwargs))
            except _UndoneError:
                continue
            except DBAPIError as error:
                raise our_error(error.orig or error) from error
            except PoolTimeoutError as error:
                raise StoreBusyError("every connection to the database is in use; try again") from error
            except self._driver.errors as error:
                raise our_error(error) from error
        raise StoreBusyError("the database didn't take the write, which others kept crossing; try again")

    async def write_cold(
        self, intention: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run an intention as one transaction: nothing is remembered here."""
        return await self.write(intention, *args, **kwargs)

    async def _attempt(self, run: Callable[[Connection], T]) -> T:
        async with self._engine.connect() as connection:
            try:
                result = await connection.run_sync(run)
            except DBAPIError as error:
                code = sqlstate(error.orig)
                if code.startswith(_CUT):
                    await connection.invalidate(error)
                if connection.invalidated or code in _RUN_AGAIN:
                    raise _UndoneError from error
                raise
            except self._driver.lost as error:
                await connection.invalidate(error)
                raise _UndoneError from error
            await connection.commit()
        return result

    @asynccontextmanager
    async def commits(self) -> AsyncGenerator["PostgresCommits", None]:
        """Watch for commits that notify, from now on; over a connection of its own."""
        commits = PostgresCommits(self._driver, self._connect_patiently)
        try:
            yield commits
        finally:
            await commits.close()

    async def close(self) -> None:
        """Let go of all connections."""
        await self._engine.dispose()
        await self._readers.close()


class PostgresCommits:
    """Hears notifications. Without a connection it only lets time pass, and tries again to have one."""

    def __init__(self, driver: Driver, connect: Callable[[], Awaitable[Any]]) -> None:
        self._driver = driver
        self._connect = connect
        self._connection: Any = None
        self._heard = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Return when something was notified since the last call, or when the time is over."""
        await self._listen()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._heard.wait()
        self._heard.clear()

    async def _listen(self) -> None:
        if self._connection is not None and not self._connection.is_closed():
            return
        self._connection = None
        with suppress(*self._driver.errors):
            connection = await self._connect()
            await connection.add_listener(CHANNEL, self._hear)
            self._connection = connection
            self._heard.set()  # what was committed while nobody listened

    def _hear(self, *_: object) -> None:
        self._heard.set()

    async def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            with suppress(*self._driver.errors):
                await self._connection.close(timeout=1)


def sqlstate(error: BaseException | None) -> str:
    """Return PostgreSQL's code of an error, empty where it has none."""
    return str(getattr(error, "sqlstate", None) or "")


def our_error(error: BaseException) -> RoadsteadError:
    """Return what an error of the server, the driver or the network means to a caller."""
    code = sqlstate(error)
    if code.startswith(_BUSY) or not code:
        return StoreBusyError("the database doesn't answer; try again")
    return StoreFailedError(f"the database answered with an error: {error}")


def _migrate(connection: Connection) -> None:
    connection.execute(select(func.pg_advisory_xact_lock(literal(_MIGRATION_LOCK))))
    upgrade(connection)


if TYPE_CHECKING:
    _: type[Access] = PostgresAccess
