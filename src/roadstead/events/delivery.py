"""Everything that is delivered: a courier for each endpoint, woken by commits."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import structlog

from roadstead.clock import Clock
from roadstead.errors import UnavailableError
from roadstead.events.courier import Courier
from roadstead.events.ports import OutboxStore, Tally

WAIT_S = 1.0
"""How long a commit may go unnoticed where nothing tells of it."""

COUNT_EVERY_S = 5.0
"""How often waiting events are counted: of a million that takes a tenth of a second."""

AGAIN_AFTER_S = 1.0
"""How long an endpoint's delivery rests after it met what nobody foresaw, or a database that doesn't answer."""

_log = structlog.get_logger()


class Delivery:
    """Runs couriers. One process of all replicas does that: whoever leads the background work."""

    def __init__(self, couriers: Sequence[Courier], outbox: OutboxStore, tally: Tally) -> None:
        self._couriers = couriers
        self._outbox = outbox
        self._tally = tally

    async def run(self) -> int:
        """Deliver until cancelled. Raises what the database raises; then nothing is lost, and it may be run again."""
        try:
            async with asyncio.TaskGroup() as group:
                for courier in self._couriers:
                    group.create_task(_on_and_on(courier))
                group.create_task(self._wake())
                group.create_task(self._count())
        except ExceptionGroup as failed:
            raise _first(failed) from failed
        finally:
            for courier in self._couriers:
                self._tally.pending(courier.endpoint, 0)  # whoever leads next tells it
        return 0

    async def _wake(self) -> None:
        async with self._outbox.commits() as commits:
            while True:
                await commits.wait(WAIT_S)
                for courier in self._couriers:
                    courier.wake()

    async def _count(self) -> None:
        while True:
            waiting = await self._outbox.pending()
            for courier in self._couriers:
                self._tally.pending(courier.endpoint, waiting.get(courier.endpoint, 0))
            await asyncio.sleep(COUNT_EVERY_S)


async def _on_and_on(courier: Courier) -> None:
    """Deliver to one endpoint, whatever happens: what goes wrong with one is nothing to the others."""
    while True:
        try:
            await courier.run()
        except UnavailableError as error:
            _log.warning("events wait", endpoint=courier.endpoint, error=str(error))
        except Exception as error:  # noqa: BLE001 -- the outermost frame of the work: told, and tried again
            _log.error("events wait", endpoint=courier.endpoint, exc_info=_first(error))
        await asyncio.sleep(AGAIN_AFTER_S)


def _first(error: Exception) -> Exception:
    """Return the first error of a group, however deep it lies."""
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error


class Purge:
    """Removes what was delivered long ago, and what nobody is left to be told."""

    def __init__(self, outbox: OutboxStore, clock: Clock, endpoints: Sequence[str], retention: timedelta) -> None:
        self._outbox = outbox
        self._clock = clock
        self._endpoints = endpoints
        self._retention = retention

    async def run(self) -> int:
        """Remove it; return how many letters went."""
        before = self._clock.now() - self._retention
        return await self._outbox.purge(settled_before=before, endpoints=self._endpoints)
