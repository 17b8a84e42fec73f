"""So many at a time, in this process and beside others."""

import asyncio
from pathlib import Path

from roadstead.proxy.slots import Slots


async def test_no_more_than_the_limit_at_a_time(tmp_path: Path) -> None:
    """Of two processes' worth of downloads only so many run, and nothing is left behind."""
    both = [Slots(tmp_path, "up.example", 3), Slots(tmp_path, "up.example", 3)]
    other = Slots(tmp_path, "other.example", 1)
    running = most = done = 0

    async def work(slots: Slots) -> None:
        nonlocal running, most, done
        async with slots.one():
            running += 1
            most = max(most, running)
            async with other.one():  # another upstream's don't count
                await asyncio.sleep(0)
            running -= 1
            done += 1

    await asyncio.gather(*(work(slots) for slots in both for _ in range(10)))

    assert (most, done) == (3, 20)
    assert not list(tmp_path.iterdir())
