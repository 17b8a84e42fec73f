"""How often somebody may be wrong: a bucket for each client, shared by all that count in the same marks."""

import math
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from roadstead.auth.errors import AttemptsTooManyError

FAILURES = 10
"""Wrong passwords that one client may give for one name in a row; a person who mistypes stays well below."""

CLIENT_FAILURES = 100
"""Those it may give for whatever names; many people may stand behind one address (a proxy, an office)."""

REFILL_S = 6.0
"""After so long one more is forgiven: ten guesses a minute for a name at the most, from one client."""

MAX_BUCKETS = 10_000


class Marks(Protocol):
    """Moments by key: how far ahead of now a key is says how many wrong passwords aren't forgiven yet."""

    def read(self, key: str, now: float) -> float:
        """Return how many seconds the key is ahead of `now`."""
        ...

    def advance(self, key: str, now: float, by: float, most: float) -> float:
        """Move the key `by` seconds on, unless it would then be more than `most` ahead; return what is too much."""
        ...


class OwnMarks:
    """Marks of this process alone; the oldest are forgotten."""

    def __init__(self) -> None:
        self._marks: OrderedDict[str, float] = OrderedDict()

    def read(self, key: str, now: float) -> float:
        """Return how far ahead a key is."""
        return max(0.0, self._marks.get(key, now) - now)

    def advance(self, key: str, now: float, by: float, most: float) -> float:
        """Move a key on."""
        ahead = self.read(key, now) + by
        if ahead > most:
            return ahead - most
        self._marks[key] = now + ahead
        self._marks.move_to_end(key)
        if len(self._marks) > MAX_BUCKETS:
            self._marks.popitem(last=False)
        return 0.0


class FailureLimiter:
    """Counts wrong passwords by client, and by client and name; right ones are never counted.

    A name alone isn't limited: whoever wants to lock somebody else out could.
    """

    def __init__(
        self,
        marks: Marks | None = None,
        *,
        source: Callable[[str], str] = str,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`source` tells what stands for an address: somebody who has many is to be one client."""
        self._marks = marks or OwnMarks()
        self._source = source
        self._clock = clock

    def check(self, client: str, name: str) -> None:
        """Raise AttemptsTooManyError if a further guess has to wait."""
        source = self._source(client)
        wait_s = max(self._wait_s(_of(source, name), FAILURES), self._wait_s(_of(source, None), CLIENT_FAILURES))
        if wait_s > 0:
            raise AttemptsTooManyError(math.ceil(wait_s))

    def failed(self, client: str, name: str) -> None:
        """Count a wrong password; those that were being checked together may go a little beyond."""
        source = self._source(client)
        for key in (_of(source, name), _of(source, None)):
            self._marks.advance(key, self._clock(), REFILL_S, math.inf)

    def _wait_s(self, key: str, limit: int) -> float:
        return self._marks.read(key, self._clock()) - (limit - 1) * REFILL_S


def _of(client: str, name: str | None) -> str:
    # An address has no space in it, so what follows the first one is the name, whatever is in that.
    return f"wrong client {client}" if name is None else f"wrong name {client} {name}"
