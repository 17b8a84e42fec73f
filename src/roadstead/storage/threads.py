"""Calls in threads that are over when we are told so."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def call_in(pool: Executor, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run the function in a thread of the pool, and don't come back before it ended, cancelled or not.

    A thread can't be stopped: if we left, it would go on with a descriptor that somebody else has meanwhile, or with
    the bytes of a buffer that the caller uses again.
    """
    call = asyncio.wrap_future(pool.submit(function, *args, **kwargs))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        while not call.done():
            try:
                await asyncio.wait([call])
            except asyncio.CancelledError:  # Cancelled twice: the thread is still at it.
                continue
        call.exception()  # It is looked at, so that asyncio doesn't log it as forgotten.
        raise
