"""The audit log (``acts.ActStore``), and lines in the transaction of what they tell of."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, ColumnElement, Connection, Integer, bindparam, delete, insert, select, tuple_

from roadstead.acts import Act, ActKind, ActStore, Asked, Line, Outcome, printable
from roadstead.db.access import Access, Query, Row
from roadstead.db.moments import from_micros, to_micros
from roadstead.db.schema import acts

_PURGED_AT_ONCE = 1000

_OTHERS = acts.alias("others")
_COLUMNS = (
    acts.c.position,
    acts.c.at,
    acts.c.by,
    acts.c.client,
    acts.c.kind,
    acts.c.target,
    acts.c.outcome,
    acts.c.reason,
    acts.c.count,
)
_BEFORE = bindparam("before", type_=BigInteger)
_MOMENT_BEFORE = select(_OTHERS.c.at).where(_OTHERS.c.position == _BEFORE).scalar_subquery()
_WANTED: Mapping[str, ColumnElement[bool]] = {
    "by": acts.c.by == bindparam("by"),
    "kind": acts.c.kind == bindparam("kind"),
    "since": acts.c.at >= bindparam("since", type_=BigInteger),
    "before": tuple_(acts.c.at, acts.c.position) < tuple_(_MOMENT_BEFORE, _BEFORE),
}


@cache
def lines_query(*wanted: str) -> Query:
    """Return the query for lines of which these are asked; one for each choice, so that an index leads to them.

    Refusals are written some seconds after their moments, so positions aren't in the order of moments.
    """
    statement = select(*_COLUMNS).where(*(_WANTED[name] for name in wanted))
    statement = statement.order_by(acts.c.at.desc(), acts.c.position.desc())
    return Query(statement.limit(bindparam("limit", type_=Integer)), *wanted, "limit")


_WRITE = insert(acts)


def write_act(connection: Connection, asked: Asked | None, kind: ActKind, target: str, reason: str = "") -> None:
    """Write down what the open transaction does, if somebody asked for it by name."""
    if asked is not None:
        write_acts(connection, [asked.act(kind, target, reason=reason)])


def write_acts(connection: Connection, written: Sequence[Act]) -> None:
    """Write lines."""
    if written:
        connection.execute(_WRITE, [_values(act) for act in written])


class DatabaseActs:
    """`ActStore` on a database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def record(self, acts: Sequence[Act]) -> None:
        """Write lines."""
        if acts:
            await self._access.write_cold(write_acts, acts)

    async def lines(
        self,
        *,
        since: datetime | None = None,
        by: str | None = None,
        kind: ActKind | None = None,
        before: int | None = None,
        limit: int,
    ) -> Sequence[Line]:
        """Return lines, the latest first."""
        wanted: dict[str, str | int] = {}
        if by is not None:
            wanted["by"] = printable(by)
        if kind is not None:
            wanted["kind"] = kind.value
        if since is not None:
            wanted["since"] = to_micros(since)
        if before is not None:
            wanted["before"] = before
        rows = await self._access.rows(lines_query(*wanted), *wanted.values(), limit)
        return [_line(row) for row in rows]

    async def purge(self, *, before: datetime) -> int:
        """Remove old lines, in small transactions."""
        removed = 0
        while count := await self._access.write_cold(_purge, to_micros(before)):
            removed += count
        return removed


def _purge(connection: Connection, before: int) -> int:
    some = select(acts.c.position).where(acts.c.at < before).limit(_PURGED_AT_ONCE)
    return connection.execute(delete(acts).where(acts.c.position.in_(some))).rowcount


def _values(act: Act) -> dict[str, object]:
    return {
        "at": to_micros(act.at),
        "by": printable(act.by),
        "client": printable(act.client),
        "kind": act.kind.value,
        "target": printable(act.target),
        "outcome": act.outcome.value,
        "reason": printable(act.reason),
        "count": act.count,
    }


def _line(row: Row) -> Line:
    position, at, by, client, kind, target, outcome, reason, count = row
    return Line(
        position,
        Act(
            at=from_micros(at),
            by=by,
            client=client,
            kind=ActKind(kind),
            target=target,
            outcome=Outcome(outcome),
            reason=reason,
            count=count,
        ),
    )


if TYPE_CHECKING:
    _: type[ActStore] = DatabaseActs
