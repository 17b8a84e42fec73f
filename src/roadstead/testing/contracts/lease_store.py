"""What a `LeaseStore` promises. A subclass gives the fixtures ``leases`` and ``leases_elsewhere``: one database,
two connections.
"""

import asyncio
from datetime import UTC, datetime, timedelta

from roadstead.lease import Lease, LeaseStore

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class LeaseStoreContract:
    """The promises of `LeaseStore`."""

    async def test_one_holder_at_a_time(self, leases: LeaseStore, leases_elsewhere: LeaseStore) -> None:
        """Who comes second gets nothing until the lease expires; then its token is higher."""
        first = await leases.acquire("gc", "a", MINUTE, NOW)
        assert first == Lease("gc", "a", 1, NOW + MINUTE)

        assert await leases_elsewhere.acquire("gc", "b", MINUTE, NOW + MINUTE - timedelta(microseconds=1)) is None
        second = await leases_elsewhere.acquire("gc", "b", MINUTE, NOW + MINUTE)

        assert second is not None
        assert second.token > 1
        assert await leases.renew(first, MINUTE, NOW + MINUTE) is None

    async def test_names_are_apart(self, leases: LeaseStore) -> None:
        """A lease on one thing says nothing of another."""
        assert await leases.acquire("gc", "a", MINUTE, NOW) is not None
        assert await leases.acquire("watch", "b", MINUTE, NOW) is not None

    async def test_renewing_keeps_the_token(self, leases: LeaseStore) -> None:
        """Until it has expired: then it has to be taken anew, though nobody else did."""
        lease = await leases.acquire("gc", "a", MINUTE, NOW)
        assert lease is not None

        renewed = await leases.renew(lease, MINUTE, NOW + MINUTE / 2)

        assert renewed == Lease("gc", "a", lease.token, NOW + MINUTE * 1.5)
        assert await leases.renew(renewed, MINUTE, NOW + MINUTE * 2) is None
        again = await leases.acquire("gc", "a", MINUTE, NOW + MINUTE * 2)
        assert again is not None
        assert again.token > lease.token

    async def test_a_released_lease_is_free(self, leases: LeaseStore) -> None:
        """At once, and the next token is higher all the same; a lease that was lost releases nothing."""
        first = await leases.acquire("gc", "a", MINUTE, NOW)
        assert first is not None
        await leases.release(first)
        second = await leases.acquire("gc", "b", MINUTE, NOW)
        assert second is not None
        assert second.token > first.token

        await leases.release(first)

        assert await leases.acquire("gc", "c", MINUTE, NOW) is None
        assert await leases.renew(first, MINUTE, NOW) is None

    async def test_of_many_who_ask_one_gets_it(self, leases: LeaseStore, leases_elsewhere: LeaseStore) -> None:
        """However they meet."""
        taken = await asyncio.gather(
            *((leases, leases_elsewhere)[number % 2].acquire("gc", f"o{number}", MINUTE, NOW) for number in range(20))
        )

        assert len([lease for lease in taken if lease is not None]) == 1
