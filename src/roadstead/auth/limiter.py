"""How often somebody may be wrong: a bucket for each client, in this process alone."""

import math
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from roadstead.auth.errors import AttemptsTooManyError

FAILURES = 10
"""Wrong passwords that one client may give for one name in a row; a person who mistypes stays well below."""

CLIENT_FAILURES = 100
"""Those it may give for whatever names; many people may stand behind one address (a proxy, an office)."""

REFILL_S = 6.0
"""After so long one more is forgiven: ten guesses a minute for a name at the most, from one client."""

MAX_BUCKETS = 10_000


class FailureLimiter:
    """Counts wrong passwords by client, and by client and name; right ones are never counted.

    A name alone isn't limited: whoever wants to lock somebody else out could.
    """

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, str | None], tuple[float, float]] = OrderedDict()

    def check(self, client: str, name: str) -> None:
        """Raise AttemptsTooManyError if a further guess has to wait."""
        wait_s = max(self._wait_s((client, name), FAILURES), self._wait_s((client, None), CLIENT_FAILURES))
        if wait_s > 0:
            raise AttemptsTooManyError(math.ceil(wait_s))

    def failed(self, client: str, name: str) -> None:
        """Count a wrong password."""
        for key in ((client, name), (client, None)):
            now = self._clock()
            self._buckets[key] = (self._level(key, now) + 1, now)
            self._buckets.move_to_end(key)
        while len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)

    def _wait_s(self, key: tuple[str, str | None], limit: int) -> float:
        return (self._level(key, self._clock()) - limit + 1) * REFILL_S

    def _level(self, key: tuple[str, str | None], now: float) -> float:
        level, at = self._buckets.get(key, (0.0, now))
        return max(0.0, level - (now - at) / REFILL_S)
