"""How stores reach a database: hot reads as text that the driver takes, writes as intentions.

A statement is written once, as SQLAlchemy Core. A *query* is compiled once for each kind of database and then run
by the driver itself, because building it anew costs a hundred times what SQLite needs to answer (design decision
3). An *intention* is a synchronous function of a connection, and one transaction: whole or not at all. What it runs
often is a *step*: on SQLite text, too, for SQLAlchemy takes several times as long as the statement (decision 0004).
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection, Dialect, Executable, Insert, Select, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.dialects.sqlite.pysqlite import dialect as pysqlite_dialect

P = ParamSpec("P")
T = TypeVar("T")

CHANNEL = "roadstead"
"""Where PostgreSQL is asked to wake those who wait for commits."""

Row = Sequence[Any]
"""Columns by position, as the driver gives them."""

UpsertInsert = postgresql.Insert | sqlite.Insert
"""An INSERT that knows ON CONFLICT; both databases spell it alike, SQLAlchemy has a class for each."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A query in one database's words, and how its arguments become the driver's parameters."""

    text: str
    order: tuple[int, ...] | None  # positions in `arguments + constants`; None where they are the arguments as given
    constants: tuple[Any, ...] = ()

    def parameters(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return what the driver is given."""
        if self.order is None:
            return arguments
        values = arguments + self.constants
        return tuple(values[position] for position in self.order)


class Query:
    """A read that is run often: one Core statement, and the names of its parameters in the order callers give them.

    A `hot` one is run with most requests, and its rows are small: the first may be remembered until somebody commits.
    """

    def __init__(self, statement: Select[Any], *names: str, hot: bool = False) -> None:
        self.statement = statement
        self.names = names
        self.hot = hot

    @cached_property
    def sqlite(self) -> Prepared:
        """The query for the standard library's ``sqlite3``."""
        return self._prepare(pysqlite_dialect())

    @cached_property
    def postgres(self) -> Prepared:
        """The query for asyncpg."""
        return self._prepare(asyncpg_dialect())  # type: ignore[no-untyped-call]

    def _prepare(self, dialect: Dialect) -> Prepared:
        compiled = self.statement.compile(dialect=dialect)
        asked: Sequence[str] = getattr(compiled, "positiontup", None) or ()
        # SQLite's dialect adds an OFFSET of its own, a parameter that isn't the caller's.
        extra = [name for name in dict.fromkeys(asked) if name not in self.names]
        if tuple(asked) == self.names:
            return Prepared(str(compiled), None)
        places = {name: position for position, name in enumerate((*self.names, *extra))}
        constants = tuple(compiled.params[name] for name in extra)
        return Prepared(str(compiled), tuple(places[name] for name in asked), constants)


class Commits(Protocol):
    """Wakes whoever waits for a commit. It may wake for nothing, and late, so it is never all one relies on."""

    async def wait(self, timeout_s: float) -> None:
        """Return when something was committed since the last call, or when the time is over."""
        ...


class Access(Protocol):
    """One process's way to a database. ``db.sqlite`` and ``db.postgres`` each have one.

    Every method raises ``StoreBusyError`` when the database doesn't answer in time and ``StoreFailedError`` when it
    answers with an error.
    """

    async def row(self, query: Query, *arguments: Any) -> Row | None:
        """Return the first row of a query, or None; it sees everything that was committed before the call."""
        ...

    async def rows(self, query: Query, *arguments: Any) -> Sequence[Row]:
        """Return all rows of a query."""
        ...

    async def write(self, intention: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an intention as one transaction and return its result once that is durable.

        What the intention raises undoes it and is raised here. It may be run more than once, so it changes nothing
        but the database. Cancelled, it happens whole or not at all.
        """
        ...

    async def write_cold(
        self, intention: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do what `write` does, with an intention that changes no table that a hot query reads.

        What is remembered of those stays true. `tests/contract/db/test_cold_writes.py` looks at what each changes.
        """
        ...

    def change_count(self) -> int | None:
        """Return a number that is another one once anybody has begun to write, without asking the database.

        What `write_cold` writes doesn't count.

        None where there is none (PostgreSQL), and while somebody writes.
        """
        ...

    def commits(self) -> AbstractAsyncContextManager[Commits]:
        """Watch for commits of any process, from now on.

        On SQLite every commit wakes, on PostgreSQL those that notify `CHANNEL`.
        """
        ...


class Upsert:
    """An INSERT with an ON CONFLICT clause, built once for each kind of database."""

    def __init__(self, table: Table, build: Callable[[Any], Insert]) -> None:
        self._by_dialect: dict[str, Insert] = {
            "sqlite": build(sqlite.insert(table)),
            "postgresql": build(postgresql.insert(table)),
        }

    def on(self, connection: Connection) -> Insert:
        """Return the statement for the connection's database."""
        return self.for_dialect(connection.dialect.name)

    def for_dialect(self, name: str) -> Insert:
        """Return the statement for a kind of database."""
        return self._by_dialect[name]


Values = Mapping[str, Any]
"""A statement's arguments by their names; a list for what stands in ``IN (…)``."""

Rows = Sequence[Row]


class Step:
    """A statement that intentions run often.

    On SQLite it's compiled once for each set of names that it is given (and number of values in a list), and run by
    ``sqlite3`` on the connection's own driver, in the transaction that is open there. Elsewhere SQLAlchemy runs it.
    Values are what the driver takes: text, whole numbers, bytes, None, and truth.
    """

    def __init__(self, statement: Executable | Upsert) -> None:
        self.statement = statement
        self._texts: dict[tuple[Any, ...], _Text] = {}

    def first(self, connection: Connection, values: Values) -> Row | None:
        """Run the statement; return its first row, or None."""
        if connection.dialect.name == "sqlite":
            cursor = self._run(connection, values)
            row: Row | None = cursor.fetchone()
            cursor.close()  # else a statement with RETURNING isn't over
            return row
        found: Row | None = connection.execute(self._for(connection), values).first()
        return found

    def one(self, connection: Connection, values: Values) -> Any:
        """Run the statement; return its first row's first column, or None where there is no row."""
        row = self.first(connection, values)
        return None if row is None else row[0]

    def rows(self, connection: Connection, values: Values) -> Rows:
        """Run the statement; return all its rows."""
        if connection.dialect.name == "sqlite":
            found: Rows = self._run(connection, values).fetchall()
            return found
        return connection.execute(self._for(connection), values).all()

    def count(self, connection: Connection, values: Values) -> int:
        """Run a statement that changes rows; return how many."""
        if connection.dialect.name == "sqlite":
            return self._run(connection, values).rowcount
        return connection.execute(self._for(connection), values).rowcount

    def each(self, connection: Connection, rows: Sequence[Values]) -> None:
        """Run a statement that changes rows for each of these, which have the same names."""
        if not rows:
            return
        if connection.dialect.name == "sqlite":
            text = self._text(rows[0])
            _driver(connection).executemany(text.words, [text.parameters(values) for values in rows])
        else:
            connection.execute(self._for(connection), rows)

    def _run(self, connection: Connection, values: Values) -> sqlite3.Cursor:
        text = self._text(values)
        return _driver(connection).execute(text.words, text.parameters(values))

    def _text(self, values: Values) -> "_Text":
        shape = tuple((name, len(value)) if isinstance(value, list) else name for name, value in values.items())
        text = self._texts.get(shape)
        if text is None:
            text = self._texts[shape] = _compiled(self._for(None), values)
        return text

    def _for(self, connection: Connection | None) -> Executable:
        if not isinstance(self.statement, Upsert):
            return self.statement
        return self.statement.for_dialect("sqlite" if connection is None else connection.dialect.name)


@dataclass(frozen=True, slots=True)
class _Text:
    """A statement in SQLite's words, the names of its parameters in order, and those that have fixed values."""

    words: str
    names: tuple[str, ...]
    fixed: Mapping[str, Any]
    lists: frozenset[str]

    def parameters(self, values: Values) -> Sequence[Any]:
        """Return what the driver is given."""
        fixed, lists = self.fixed, self.lists
        if not lists:
            return [fixed[name] if name in fixed else values[name] for name in self.names]
        found: list[Any] = []
        for name in self.names:
            found += values[name] if name in lists else (fixed[name] if name in fixed else values[name],)
        return found


def _compiled(statement: Any, values: Values) -> _Text:
    compiled = statement.compile(dialect=pysqlite_dialect(), column_keys=list(values))
    words = str(compiled)
    lists = frozenset(name for name, value in values.items() if isinstance(value, list))
    for name in lists:
        words = words.replace(f"(__[POSTCOMPILE_{name}])", f"({', '.join('?' * len(values[name]))})")
    fixed = {name: value for name, value in compiled.params.items() if name not in values}
    return _Text(words, tuple(compiled.positiontup), fixed, lists)


def _driver(connection: Connection) -> sqlite3.Connection:
    driver: Any = connection.connection.driver_connection
    return driver  # type: ignore[no-any-return]
