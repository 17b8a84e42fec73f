"""What a `PullStore` promises. A subclass gives the fixtures ``pulls`` and ``pulls_elsewhere``: one database, two
connections.
"""

import asyncio
from datetime import UTC, datetime, timedelta

from roadstead.limits.ports import PullStore, PullWindow

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


class PullStoreContract:
    """The promises of `PullStore`."""

    async def test_a_window_begins_with_a_pull(self, pulls: PullStore, pulls_elsewhere: PullStore) -> None:
        """It stays where it began until it is over; the next pull begins another."""
        assert await pulls.find_window("a") is None
        assert await pulls.count_pull("a", NOW, HOUR) == PullWindow(NOW, 1)
        assert await pulls_elsewhere.count_pull("a", NOW + HOUR / 2, HOUR) == PullWindow(NOW, 2)
        assert await pulls_elsewhere.find_window("a") == PullWindow(NOW, 2)

        assert await pulls.count_pull("a", NOW + HOUR, HOUR) == PullWindow(NOW + HOUR, 1)

    async def test_everybody_has_their_own(self, pulls: PullStore) -> None:
        """Names are told apart to the letter."""
        for subject in ("user:ana", "user:Ana", "client 192.0.2.1"):
            assert await pulls.count_pull(subject, NOW, HOUR) == PullWindow(NOW, 1)

    async def test_windows_that_are_over_are_forgotten(self, pulls: PullStore) -> None:
        """When somebody else begins one."""
        await pulls.count_pull("a", NOW, HOUR)
        await pulls.count_pull("b", NOW + HOUR / 2, HOUR)

        await pulls.count_pull("c", NOW + HOUR, HOUR)

        assert await pulls.find_window("a") is None
        assert await pulls.find_window("b") == PullWindow(NOW + HOUR / 2, 1)

    async def test_no_pull_is_lost(self, pulls: PullStore, pulls_elsewhere: PullStore) -> None:
        """However they meet: each gets a number of its own."""
        counted = await asyncio.gather(
            *((pulls, pulls_elsewhere)[number % 2].count_pull("a", NOW, HOUR) for number in range(20))
        )

        assert sorted(window.pulls for window in counted) == list(range(1, 21))
