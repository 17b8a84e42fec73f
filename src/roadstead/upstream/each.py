"""Many things at once, but not too many."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def for_each(items: Iterable[T] | AsyncIterator[T], run: Callable[[T], Awaitable[None]], *, limit: int) -> None:
    """Run something for every item, *limit* at a time; the first error ends all and is raised by itself.

    Items are taken as they are needed, so their number costs no memory.
    """
    arriving = items if isinstance(items, AsyncIterator) else _as_async(items)
    taking = asyncio.Lock()
    done = object()

    async def work() -> None:
        while True:
            async with taking:
                item = await anext(arriving, done)
            if item is done:
                return
            await run(item)  # type: ignore[arg-type]  # it isn't the mark of the end

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(limit):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    finally:
        if isinstance(arriving, AsyncGenerator):
            await arriving.aclose()


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _as_async(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item
