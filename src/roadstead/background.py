"""The work that nobody waits for, in the process beside the workers.

Among replicas one process does it: whoever holds the lease. The others wait to take over. What each replica has to do
for itself, it does besides.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import structlog

from roadstead.clock import Clock
from roadstead.lease import Lease, LeaseStore

LEASE_NAME = "background"
LEASE_LIFETIME = timedelta(seconds=30)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Loop:
    """A piece of work to be done again and again; `run` returns how much it did, for the log."""

    name: str
    every: timedelta
    run: Callable[[], Awaitable[int]]


class Background:
    """Runs loops while it holds the lease; ``run`` never returns by itself, cancelling it gives the lease back."""

    def __init__(
        self,
        loops: Sequence[Loop],
        leases: LeaseStore,
        owner: str,
        clock: Clock,
        *,
        lease_lifetime: timedelta = LEASE_LIFETIME,
        everywhere: Sequence[Loop] = (),
    ) -> None:
        self._loops = loops
        self._everywhere = everywhere
        self._leases = leases
        self._owner = owner
        self._clock = clock
        self._lifetime = lease_lifetime

    async def run(self) -> None:
        """Wait for the lease, work for as long as it is held, and begin again."""
        async with self._working(self._everywhere):
            while True:
                lease = await self._acquire()
                try:
                    lease = await self._lead(lease)
                finally:
                    await self._leases.release(lease)
                _log.warning("another replica has taken the background work over", token=lease.token)

    async def _acquire(self) -> Lease:
        while True:
            lease = await self._leases.acquire(LEASE_NAME, self._owner, self._lifetime, self._clock.now())
            if lease is not None:
                return lease
            await asyncio.sleep(self._lifetime.total_seconds() / 3)

    async def _lead(self, lease: Lease) -> Lease:
        """Work until the lease is lost; return it as it was last held."""
        async with self._working(self._loops):
            while True:
                await asyncio.sleep(self._lifetime.total_seconds() / 3)
                renewed = await self._leases.renew(lease, self._lifetime, self._clock.now())
                if renewed is None:
                    return lease
                lease = renewed

    @asynccontextmanager
    async def _working(self, loops: Sequence[Loop]) -> AsyncGenerator[None, None]:
        working = [asyncio.ensure_future(self._repeat(loop)) for loop in loops]
        try:
            yield
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    async def _repeat(self, loop: Loop) -> None:
        while True:
            try:
                done = await loop.run()
            except Exception:  # noqa: BLE001 -- the outermost frame of the work: told, and tried again at its time
                _log.exception("background work failed", work=loop.name)
            else:
                if done:
                    _log.info("background work done", work=loop.name, count=done)
            await asyncio.sleep(loop.every.total_seconds())
