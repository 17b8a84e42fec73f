"""Leases: one owner at a time, among processes and replicas.

Whoever holds a lease may lose it without noticing (a stopped process, a cut network). So every lease carries a
fencing token, higher than that of any holder before: what is guarded compares tokens and refuses an older one.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from roadstead.clock import Clock


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to do something alone until a moment."""

    name: str
    owner: str  # of one process at a time: two at once that call themselves alike would take it from each other
    token: int  # 1 for the first holder ever, higher for each that follows
    expires_at: datetime


class LeaseStore(Protocol):
    """Where leases are agreed on. Time comes from the caller; clocks of replicas should differ by far less than a
    lease's lifetime.
    """

    async def acquire(self, name: str, owner: str, lifetime: timedelta, now: datetime) -> Lease | None:
        """Take the lease if it is free, expired or the owner's already; None while somebody else holds it.

        Each time it is given out its token is higher than ever before, for the same owner too.
        """
        ...

    async def renew(self, lease: Lease, lifetime: timedelta, now: datetime) -> Lease | None:
        """Extend the lease to `lifetime` from now, under the same token; None if it expired or went to another."""
        ...

    async def release(self, lease: Lease) -> None:
        """Give the lease back, so that the next need not wait; nothing happens if it is no longer held."""
        ...


@asynccontextmanager
async def hold(
    store: LeaseStore, name: str, owner: str, clock: Clock, *, lifetime: timedelta = timedelta(seconds=10)
) -> AsyncGenerator[Lease | None, None]:
    """Hold a lease while inside, renewed in time; gives None where somebody else has it.

    For work that two may do at once without harm, only to no purpose: nobody is told when the lease is lost.
    """
    lease = await store.acquire(name, owner, lifetime, clock.now())
    if lease is None:
        yield None
        return
    renewing = asyncio.ensure_future(_renew(store, lease, clock, lifetime))
    try:
        yield lease
    finally:
        renewing.cancel()
        with suppress(asyncio.CancelledError):
            await renewing
        await store.release(lease)


async def _renew(store: LeaseStore, lease: Lease, clock: Clock, lifetime: timedelta) -> None:
    held: Lease | None = lease
    while held is not None:
        await asyncio.sleep(lifetime.total_seconds() / 3)
        held = await store.renew(held, lifetime, clock.now())
