"""What a registry says is left of our budget: ``RateLimit-Remaining: 97;w=21600``, as Docker Hub writes it.

When it is full again Docker Hub doesn't say; ``RateLimit-Reset`` of others is in seconds (the IETF's draft of the
RateLimit fields), or, at GitLab, a moment in seconds since 1970.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

_VALUE = re.compile(r"\s*+([0-9]{1,18}+)(?:\s*+;\s*+w=([0-9]{1,18}+))?+")
_A_MOMENT = 10**9
"""From here on a number of seconds is one since 1970: a wait isn't thirty years long."""

_NEAR = 20
"""The last such part of a budget isn't spent on what can be done without."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How many requests are left in the present window."""

    remaining: int
    limit: int | None = None
    window_s: int | None = None
    reset_s: int | None = None
    """Seconds until there are more; None where it isn't told."""

    @property
    def is_near_its_end(self) -> bool:
        """Say whether only the last twentieth is left, and at most the very last where nobody says of how many."""
        return self.remaining <= max(1, (self.limit or 0) // _NEAR)


def parse_budget(headers: Mapping[str, str], now: float | None = None) -> Budget | None:
    """Read the budget that an answer's headers tell of (names compared as *headers* does); None if they don't.

    *now* is in seconds since 1970.
    """
    remaining = _VALUE.match(headers.get("ratelimit-remaining", ""))
    if remaining is None:
        return None
    limit = _VALUE.match(headers.get("ratelimit-limit", ""))
    window = remaining[2] or (limit[2] if limit else None)
    reset = _VALUE.match(headers.get("ratelimit-reset", ""))
    reset_s = int(reset[1]) if reset else None
    if reset_s is not None and reset_s >= _A_MOMENT:
        reset_s = max(0, reset_s - int(time.time() if now is None else now))
    return Budget(int(remaining[1]), int(limit[1]) if limit else None, int(window) if window else None, reset_s)
