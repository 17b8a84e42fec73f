"""Rows that were read a moment ago, for as long as nobody has written since (design decision 3)."""

from collections.abc import Callable
from time import monotonic
from typing import Any, Final, cast

from roadstead.db.access import Query, Row
from roadstead.db.turns import ChangeCount

SEEN_FOR_S = 0.02
"""How long a row is remembered at most: so late a change by a program that doesn't take turns is seen."""

SEEN_ROWS = 1024
"""Rows that a process remembers at most; they are of a few hundred bytes."""

_UNKNOWN: Final = object()


class SeenRows:
    """The rows of hot queries, for as long as nothing was written: an answer is what reading now would give.

    Programs that don't know of turns (``sqlite3`` in an operator's hands) change no count; `SEEN_FOR_S` bounds that.
    """

    def __init__(self, count: ChangeCount, *, clock: Callable[[], float] = monotonic) -> None:
        self._count = count
        self._clock = clock
        self._rows: dict[tuple[Query, tuple[Any, ...]], object] = {}
        self._at = 0
        self._until = 0.0

    def find(
        self, query: Query, arguments: tuple[Any, ...], read: Callable[[Query, tuple[Any, ...]], Row | None]
    ) -> Row | None:
        """Return the row that is known, else what `read` reads."""
        at, now = self._count.read(), self._clock()
        if at != self._at or now >= self._until:
            self._rows.clear()
            self._at, self._until = at, now + SEEN_FOR_S
        key = (query, arguments)
        known = self._rows.get(key, _UNKNOWN)
        if known is not _UNKNOWN:
            return cast("Row | None", known)
        found = read(query, arguments)
        if at % 2 == 0 and len(self._rows) < SEEN_ROWS:  # odd: who knows whether it saw what is being written
            self._rows[key] = found
        return found
