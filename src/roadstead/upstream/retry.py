"""When to try again: growing waits with chance in them, and what the registry itself says (RFC 9110 §10.2.3)."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

RETRYABLE = frozenset({408, 429, 500, 502, 503, 504, 520, 522, 524})
"""Statuses after which the same request may work: those of HTTP, and a proxy's for an origin that didn't answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How often and how long: ``first_s``, then ``factor`` times as long each time, a ``jitter`` more or less."""

    attempts: int = 5
    """Tries in all; 1 never tries again."""

    first_s: float = 0.5
    factor: float = 2.0
    longest_s: float = 30.0
    jitter: float = 0.25
    patience_s: float = 90.0
    """The longest ``Retry-After`` that is waited out; one beyond is told to the caller instead."""

    def wait_s(self, attempt: int, retry_after_s: float | None = None) -> float | None:
        """Return the seconds to wait after the failed try number *attempt* (from 1); None: give up.

        What the registry asks for is kept to, and chance adds to it only: who was told the same doesn't come at once.
        """
        if attempt >= self.attempts or (retry_after_s is not None and retry_after_s > self.patience_s):
            return None
        own = min(self.longest_s, self.first_s * self.factor ** (attempt - 1))
        chance = random.uniform(-self.jitter, self.jitter)  # noqa: S311 (spreads load, guards nothing)
        if retry_after_s is not None:
            return retry_after_s + own * abs(chance)
        return own * (1 + chance)


def parse_retry_after(text: str | None, now: datetime) -> float | None:
    """Read ``Retry-After``: seconds, or a date; None if it is neither. What has passed is 0 seconds. Pure."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
