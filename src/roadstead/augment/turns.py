"""Whose turn it is to have a layer fetched: a process has few places for it, and nobody who asks may fill them all.

A server that is slow to send keeps a place for as long as there is patience for it, and callers choose the servers. So
places aren't given to whoever comes first: who has as many already as are free waits, until it has fewer. Alone one
gets half of them; what is left is for those who come next, whatever the first does. A place that is given back goes to
the one who has the fewest, and among those to the one who came first.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from roadstead.errors import UnavailableError

RETRY_AFTER_S = 30


class TurnsTakenError(UnavailableError):
    """Somebody has as many layers fetched already as they may, and more have waited, or for longer, than may (429)."""

    retry_after_s = RETRY_AFTER_S

    def __init__(self, running: int) -> None:
        super().__init__(
            f"{running} of your layers are being fetched, and no more can be now; try again in {self.retry_after_s} s"
        )
        self.running = running

    def advice(self) -> str:
        """Return what is quicker."""
        return "Where a server is slow to send, push its layers to a registry and give docker://HOST/NAME@DIGEST."


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How much is done at once in one process, and how much of one who asks may wait for it."""

    places: int = 8
    waiting: int = 32  # of each
    patience_s: float = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    who: str
    granted: asyncio.Future[None] = field(repr=False)


class Turns:
    """The places of one process. Safe to cancel."""

    def __init__(self, shares: Shares | None = None) -> None:
        self._shares = shares or Shares()
        self._taken: Counter[str] = Counter()
        self._waiters: list[_Waiter] = []  # in the order in which they came

    @asynccontextmanager
    async def turn(self, who: str) -> AsyncIterator[None]:
        """Hold a place while the block runs; waits for one. Raises TurnsTakenError."""
        if self._may(who):
            self._taken[who] += 1
        else:
            await self._wait(who)
        try:
            yield
        finally:
            self._give_back(who)

    def _may(self, who: str) -> bool:
        return self._taken[who] < self._shares.places - self._taken.total()

    async def _wait(self, who: str) -> None:
        """Return with a place taken."""
        if sum(waiter.who == who for waiter in self._waiters) >= self._shares.waiting:
            raise TurnsTakenError(self._taken[who])
        waiter = _Waiter(who, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self._shares.patience_s):
                await waiter.granted
        except TimeoutError as error:
            self._leave(waiter)
            raise TurnsTakenError(self._taken[who]) from error
        except asyncio.CancelledError:
            self._leave(waiter)
            raise

    def _leave(self, waiter: _Waiter) -> None:
        """Wait no longer; a place that was given in this very moment is given back."""
        with suppress(ValueError):
            self._waiters.remove(waiter)
        if waiter.granted.done() and not waiter.granted.cancelled():
            self._give_back(waiter.who)

    def _give_back(self, who: str) -> None:
        self._taken[who] -= 1
        while waiter := self._next():
            self._waiters.remove(waiter)
            self._taken[waiter.who] += 1
            waiter.granted.set_result(None)
        if not self._taken[who]:
            del self._taken[who]

    def _next(self) -> _Waiter | None:
        """Return whoever gets the next place, if anybody may have one."""
        waiting = [waiter for waiter in self._waiters if not waiter.granted.done()]
        first = min(waiting, key=lambda waiter: self._taken[waiter.who], default=None)
        return first if first is not None and self._may(first.who) else None
