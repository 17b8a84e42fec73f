"""Pulls on their way to the outbox: kept in memory for a second, since no transaction tells of them.

Whoever pulls doesn't wait for a write. So a worker that is killed loses the last second's, and where more come than
can be written the surplus is dropped, and counted.
"""

import asyncio
from collections import deque
from datetime import timedelta

import structlog

from roadstead.errors import UnavailableError
from roadstead.events.event import Event
from roadstead.events.ports import OutboxStore, Tally
from roadstead.events.rules import Interests

FLUSH_EVERY = timedelta(seconds=1)
MAX_WAITING = 10_000
"""Pulls that a worker keeps: at half a kilobyte each, some megabytes."""

_AT_ONCE = 200  # in one transaction: others wait for it

_log = structlog.get_logger()


class PullBuffer:
    """The pulls of one worker that aren't written yet."""

    def __init__(
        self,
        interests: Interests,
        outbox: OutboxStore,
        tally: Tally,
        *,
        every: timedelta = FLUSH_EVERY,
        limit: int = MAX_WAITING,
    ) -> None:
        self._interests = interests
        self._outbox = outbox
        self._tally = tally
        self._every_s = every.total_seconds()
        self._limit = limit
        self._waiting: deque[Event] = deque()

    def note(self, event: Event) -> None:
        """Keep a pull if anybody wants to hear of it; drop it where too many wait."""
        listeners = self._interests.listeners(event)
        if listeners and len(self._waiting) < self._limit:
            self._waiting.append(event)
            return
        for endpoint in listeners:
            self._tally.dropped(endpoint)

    async def run(self) -> None:
        """Write what came, each second, until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.flush()
            except Exception:  # noqa: BLE001 -- the outermost frame of the work: told, and tried again at its time
                _log.exception("pulls can't be noted for events")

    async def flush(self) -> None:
        """Write what waits; what the database doesn't take now is tried again the next time."""
        while self._waiting:
            some = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            try:
                await self._outbox.add(some)
            except UnavailableError as error:
                self._waiting.extendleft(reversed(some))
                _log.warning("pulls can't be noted for events", waiting=len(self._waiting), error=str(error))
                return
            except BaseException:
                self._waiting.extendleft(reversed(some))
                raise
