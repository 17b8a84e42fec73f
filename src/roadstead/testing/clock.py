"""A clock that stands still until a test moves it."""

from datetime import UTC, datetime, timedelta

from roadstead.clock import Clock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class FrozenClock:
    """Tells the moment that it was set to."""

    def __init__(self, now: datetime = START) -> None:
        self._now = now

    def now(self) -> datetime:
        """Return the moment."""
        return self._now

    def advance(self, by: timedelta) -> datetime:
        """Move the clock and return the new moment."""
        self._now += by
        return self._now


_: Clock = FrozenClock()
