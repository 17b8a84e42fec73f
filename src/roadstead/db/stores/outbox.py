"""Events on their way: written with the change they tell of, and found by what is undelivered (``events.ports``).

A store that changes something runs its intention through `Announcer.write`: what the intention returns says what is
told, and the letters are the last rows of the same transaction. So their positions are taken while the locks are held
that order the change, and where no endpoint is configured there is nothing to write and nothing to decide
(docs/decisions/0013-outbox.md).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Concatenate

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    text,
    update,
)

from roadstead.acts import ActKind, Asked
from roadstead.db.access import CHANNEL, Access, Commits, P, Query, Row, Step, T
from roadstead.db.moments import from_micros, to_micros
from roadstead.db.schema import outbox
from roadstead.db.stores.acts import write_act
from roadstead.events.bundle import Bundle, unbundled
from roadstead.events.event import Action, Event, Source, Subject
from roadstead.events.ports import Letter, LetterState, OutboxStore
from roadstead.events.rules import NOBODY, Interests

NOWHERE = Source("", "")
_LAST = (1 << 63) - 1
_PURGED_AT_ONCE = 1000
_MAX_ERROR = 500  # characters of what went wrong

_IS_PENDING = outbox.c.state == literal_column("'pending'")
_LIMIT = bindparam("limit", type_=Integer)
_COLUMNS = (
    outbox.c.position,
    outbox.c.endpoint,
    outbox.c.event_id,
    outbox.c.repository,
    outbox.c.subject,
    outbox.c.action,
    outbox.c.event,
    outbox.c.state,
    outbox.c.attempts,
    outbox.c.error,
    outbox.c.created_at,
    outbox.c.held_until,
    outbox.c.settled_at,
    outbox.c.events,
)
_held = outbox.alias("held")
DUE = Query(
    select(*_COLUMNS)
    .where(
        _IS_PENDING,
        outbox.c.endpoint == bindparam("endpoint"),
        ~select(_held.c.position)
        .where(
            _held.c.endpoint == outbox.c.endpoint,
            _held.c.repository == outbox.c.repository,
            _held.c.held_until.is_not(None),
            _held.c.held_until > bindparam("now", type_=BigInteger),
        )
        .exists(),
    )
    .order_by(outbox.c.position)
    .limit(_LIMIT),
    "endpoint",
    "now",
    "limit",
)
NEXT_DUE = Query(
    select(func.min(outbox.c.held_until)).where(
        outbox.c.endpoint == bindparam("endpoint"), outbox.c.held_until.is_not(None)
    ),
    "endpoint",
)
PENDING = Query(select(outbox.c.endpoint, func.sum(outbox.c.events)).where(_IS_PENDING).group_by(outbox.c.endpoint))
_BEFORE = outbox.c.position < bindparam("before", type_=BigInteger)


@cache
def letters_query(state: LetterState | None, *, of_endpoint: bool) -> Query:
    """Return the query for letters, the latest first; one for each choice, so that an index leads to what waits."""
    conditions: list[ColumnElement[bool]] = [outbox.c.endpoint == bindparam("endpoint")] if of_endpoint else []
    if state is not None:
        conditions.append(outbox.c.state == literal_column(f"'{state.value}'"))
    statement = select(*_COLUMNS).where(_BEFORE, *conditions).order_by(outbox.c.position.desc()).limit(_LIMIT)
    return Query(statement, *(["endpoint"] if of_endpoint else []), "before", "limit")


_WRITE = Step(insert(outbox))
_ONE = outbox.c.position == bindparam("at")
_DELIVERED_PULL = delete(outbox).where(_ONE, outbox.c.action == Action.PULL.value)
_DELIVERED = (
    update(outbox).where(_ONE).values(state=LetterState.DELIVERED.value, held_until=None, settled_at=bindparam("now"))
)
_FAILED = update(outbox).where(_ONE, _IS_PENDING)
_HOLD = _FAILED.values(attempts=outbox.c.attempts + 1, error=bindparam("reason"), held_until=bindparam("until"))
_BURY = _FAILED.values(
    attempts=outbox.c.attempts + 1,
    error=bindparam("reason"),
    state=LetterState.DEAD.value,
    held_until=None,
    settled_at=bindparam("now"),
)
_RELEASE = (
    update(outbox)
    .where(outbox.c.endpoint == bindparam("of"), outbox.c.held_until > bindparam("now"))
    .values(held_until=bindparam("now"))
)


class Announcer:
    """Writes letters in the transaction of what they tell of."""

    def __init__(self, access: Access, interests: Interests = NOBODY, source: Source = NOWHERE) -> None:
        self._access = access
        self._interests = interests
        self._source = source

    @property
    def references(self) -> bool:
        """Say whether events of manifests tell what these refer to."""
        return self._interests.references and self._interests.any

    async def write(
        self,
        describe: Callable[[Connection, T], Iterable[Event]],
        intention: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run an intention as one transaction, and tell in it what `describe` makes of its result."""
        if not self._interests.any:
            return await self._access.write(intention, *args, **kwargs)

        def run(connection: Connection) -> T:
            result = intention(connection, *args, **kwargs)
            self.tell(connection, describe(connection, result))
            return result

        return await self._access.write(run)

    async def add(self, bundles: Sequence[Bundle]) -> None:
        """Tell of pulls."""
        if bundles:
            await self._access.write_cold(_write, [self._bundled(bundle) for bundle in bundles])

    def tell(self, connection: Connection, events: Iterable[Event]) -> None:
        """Write letters to whoever wants to hear."""
        letters = [letter for event in events for letter in self._letters(event)]
        if letters:
            _write(connection, letters)

    def _letters(self, event: Event) -> Iterable[dict[str, Any]]:
        listeners = self._interests.listeners(event)
        if not listeners:
            return
        plain = _text(event.as_plain(self._source))
        for endpoint in listeners:
            yield _row(endpoint, event, plain, 1)

    def _bundled(self, bundle: Bundle) -> dict[str, Any]:
        if len(bundle.pulls) == 1:
            first = bundle.first
            return _row(bundle.endpoint, first, _text(first.as_plain(self._source)), 1)
        # What isn't in the bundle's text is that of its first pull.
        like, said = bundle.likes[bundle.pulls.places[0]], _text(bundle.as_plain(self._source))
        row = _row(bundle.endpoint, like, said, len(bundle.pulls))
        return {**row, "event_id": bundle.id, "created_at": bundle.pulls.micros[0]}


def _text(plain: Mapping[str, Any]) -> str:
    return msgspec.json.encode(plain).decode()


def _row(endpoint: str, event: Event, plain: str, events: int) -> dict[str, Any]:
    return {
        "endpoint": endpoint,
        "event_id": event.id,
        "repository": event.repository.value,
        "subject": event.subject.value,
        "action": event.action.value,
        "event": plain,
        "state": LetterState.PENDING.value,
        "attempts": 0,
        "error": "",
        "created_at": to_micros(event.at),
        "events": events,
    }


def _write(connection: Connection, letters: Sequence[Mapping[str, Any]]) -> None:
    _WRITE.each(connection, letters)
    if connection.dialect.name == "postgresql":
        # It is heard after the commit, and only wakes: SQLite's commits are seen without it.
        connection.execute(text(f"SELECT pg_notify('{CHANNEL}', '')"))


class DatabaseOutbox:
    """`OutboxStore` on a database."""

    def __init__(self, access: Access, announcer: Announcer) -> None:
        self._access = access
        self._announcer = announcer

    async def add(self, bundles: Sequence[Bundle]) -> None:
        """Write letters for pulls."""
        await self._announcer.add(bundles)

    async def due(self, endpoint: str, *, now: datetime, limit: int) -> Sequence[Letter]:
        """Return pending letters by position, but of repositories that are held."""
        return [_letter(row) for row in await self._access.rows(DUE, endpoint, to_micros(now), limit)]

    async def next_due(self, endpoint: str) -> datetime | None:
        """Return when the first held letter is due."""
        row = await self._access.row(NEXT_DUE, endpoint)
        return None if row is None or row[0] is None else from_micros(row[0])

    async def settle(self, positions: Sequence[int], *, now: datetime) -> None:
        """Mark letters as delivered; those of pulls are removed."""
        if positions:
            await self._access.write_cold(_settle, sorted(positions), to_micros(now))

    async def hold(self, position: int, *, error: str, until: datetime) -> None:
        """Count a failed attempt, and hold the repository."""
        await self._access.write_cold(
            _run, _HOLD, {"at": position, "reason": error[:_MAX_ERROR], "until": to_micros(until)}
        )

    async def bury(self, position: int, *, error: str, now: datetime) -> None:
        """Count a failed attempt, and give the letter up."""
        await self._access.write_cold(
            _run, _BURY, {"at": position, "reason": error[:_MAX_ERROR], "now": to_micros(now)}
        )

    async def release(self, endpoint: str, *, now: datetime) -> None:
        """Hold nothing of this endpoint any longer."""
        await self._access.write_cold(_run, _RELEASE, {"of": endpoint, "now": to_micros(now)})

    async def pending(self) -> Mapping[str, int]:
        """Return how many events wait, by endpoint."""
        return {row[0]: int(row[1]) for row in await self._access.rows(PENDING)}

    async def letters(
        self, *, endpoint: str | None, state: LetterState | None, before: int | None, limit: int
    ) -> Sequence[Letter]:
        """Return letters, the latest first."""
        query = letters_query(state, of_endpoint=endpoint is not None)
        whose = () if endpoint is None else (endpoint,)
        rows = await self._access.rows(query, *whose, _LAST if before is None else before, limit)
        return [_letter(row) for row in rows]

    async def replay(
        self,
        *,
        endpoint: str | None = None,
        event_id: str | None = None,
        state: LetterState | None = None,
        since: datetime | None = None,
        asked: Asked | None = None,
    ) -> int:
        """Make settled letters pending again."""
        at = None if since is None else to_micros(since)
        return await self._access.write(_replay, endpoint, event_id, state, at, asked)

    async def purge(self, *, settled_before: datetime, endpoints: Sequence[str]) -> int:
        """Remove what was settled long ago, and what nobody is left to be told; in small transactions."""
        removed = 0
        while count := await self._access.write_cold(_purge, to_micros(settled_before), list(endpoints)):
            removed += count
        return removed

    def commits(self) -> AbstractAsyncContextManager[Commits]:
        """Watch for commits of any process, from now on."""
        return self._access.commits()


def _letter(row: Row) -> Letter:
    held_until, settled_at, count = row[11], row[12], row[13]
    plain = msgspec.json.decode(row[6])
    pulls = None if count == 1 else plain
    return Letter(
        position=row[0],
        endpoint=row[1],
        event_id=row[2],
        repository=row[3],
        subject=Subject(row[4]),
        action=Action(row[5]),
        event=plain if pulls is None else unbundled(row[2], pulls, most=1)[0],
        state=LetterState(row[7]),
        attempts=row[8],
        error=row[9],
        created_at=from_micros(row[10]),
        held_until=None if held_until is None else from_micros(held_until),
        settled_at=None if settled_at is None else from_micros(settled_at),
        more=count - 1,
        pulls=pulls,
    )


def _run(connection: Connection, statement: Any, arguments: Mapping[str, object]) -> None:
    connection.execute(statement, arguments)


def _settle(connection: Connection, positions: Sequence[int], now: int) -> None:
    connection.execute(_DELIVERED_PULL, [{"at": position} for position in positions])
    connection.execute(_DELIVERED, [{"at": position, "now": now} for position in positions])


def _replay(
    connection: Connection,
    endpoint: str | None,
    event_id: str | None,
    state: LetterState | None,
    since: int | None,
    asked: Asked | None,
) -> int:
    statement = update(outbox).where(outbox.c.state != LetterState.PENDING.value)
    if endpoint is not None:
        statement = statement.where(outbox.c.endpoint == endpoint)
    if event_id is not None:
        statement = statement.where(outbox.c.event_id == event_id)
    if state is not None:
        # Written out, so that the index of those is good for it.
        statement = statement.where(outbox.c.state == literal_column(f"'{state.value}'"))
    if since is not None:
        statement = statement.where(outbox.c.created_at >= since)
    again = statement.values(state=LetterState.PENDING.value, attempts=0, error="", held_until=None, settled_at=None)
    count = connection.execute(again).rowcount
    if not count:
        return 0  # nothing is done, and no line says that something is
    said = f"{count} events" if count > 1 else "1 event"
    said += f" with the id {event_id}" if event_id is not None else ""
    write_act(connection, asked, ActKind.EVENTS_REPLAY, endpoint or "all endpoints", said)
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_notify('{CHANNEL}', '')"))
    return count


def _purge(connection: Connection, before: int, endpoints: Sequence[str]) -> int:
    settled = and_(outbox.c.settled_at.is_not(None), outbox.c.settled_at < before)
    orphaned = and_(_IS_PENDING, outbox.c.endpoint.not_in(endpoints), outbox.c.created_at < before)
    removed = 0
    for old in (settled, orphaned):
        some = select(outbox.c.position).where(old).limit(_PURGED_AT_ONCE)
        removed += connection.execute(delete(outbox).where(outbox.c.position.in_(some))).rowcount
    return removed


if TYPE_CHECKING:
    _: type[OutboxStore] = DatabaseOutbox
