"""Many things at once, but not too many."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from roadstead.upstream.each import for_each


async def test_all_are_run_and_few_at_once() -> None:
    """Every item is run once, no more than the limit at a time, and items are taken as they are needed."""
    running = most = taken = 0
    done: list[int] = []

    async def items() -> AsyncIterator[int]:
        nonlocal taken
        for item in range(20):
            taken += 1
            assert taken <= len(done) + 4
            yield item

    async def run(item: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        done.append(item)

    await for_each(items(), run, limit=3)

    assert sorted(done) == list(range(20))
    assert most == 3


async def test_the_first_error_ends_all() -> None:
    """An error is raised by itself, the others are cancelled, and the source of the items is closed."""
    closed, cancelled = asyncio.Event(), asyncio.Event()

    async def items() -> AsyncIterator[int]:
        try:
            for item in range(20):
                yield item
        finally:
            closed.set()

    async def run(item: int) -> None:
        if item == 1:
            raise ValueError("the second")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(ValueError, match="the second"):
        await for_each(items(), run, limit=2)

    assert closed.is_set()
    assert cancelled.is_set()
