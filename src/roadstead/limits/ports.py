"""What limits are counted in."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol


class Marks(Protocol):
    """Moments by key, which only move forward: how far ahead of now a key is says how much it has used up.

    They may be shared with other processes, on a clock that is the same for all of them. A key that is no longer ahead
    may be forgotten at any time.
    """

    def read(self, key: str, now: float) -> float:
        """Return how many seconds the key is ahead of `now`: 0 or more."""
        ...

    def advance(self, key: str, now: float, by: float, most: float) -> float:
        """Move the key `by` seconds on, unless it would then be more than `most` ahead of `now`.

        Return how many seconds too many that would be; it was moved where this is 0.
        """
        ...


class Places(Protocol):
    """How many there are of a key at once. What a process that died had taken is free again."""

    def enter(self, key: str, most: int) -> bool:
        """Take a place unless `most` are taken; say whether it was."""
        ...

    def leave(self, key: str) -> None:
        """Give a place back that was taken."""
        ...


@dataclass(frozen=True, slots=True)
class PullWindow:
    """So many pulls since a moment."""

    began_at: datetime
    pulls: int


class PullStore(Protocol):
    """Counts pulls by whom they are of, for every process of every replica."""

    async def find_window(self, subject: str) -> PullWindow | None:
        """Return the last window of somebody, which may be over."""
        ...

    async def count_pull(self, subject: str, now: datetime, window: timedelta) -> PullWindow:
        """Count a pull in the window that is open, or begin one with it."""
        ...
