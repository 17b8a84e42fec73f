"""How many blobs of one upstream arrive at a time, counted over all processes of this machine."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

from roadstead.proxy.errors import SpoolFailedError
from roadstead.proxy.locks import PAUSE_S, claim, release


class Slots:
    """So many locks on files as downloads may run; who has none waits, in this process in the order of coming."""

    def __init__(self, directory: Path, host: str, limit: int) -> None:
        self._paths = [directory / f"{sha256(host.encode()).hexdigest()[:32]}.{number}.slot" for number in range(limit)]
        self._turns = asyncio.Semaphore(limit)

    @asynccontextmanager
    async def one(self) -> AsyncGenerator[None, None]:
        """Hold one of them while inside. Raises SpoolFailedError."""
        async with self._turns:
            path, descriptor = await self._claim()
            try:
                yield
            finally:
                release(path, descriptor)

    async def _claim(self) -> tuple[Path, int]:
        while True:
            for path in self._paths:
                try:
                    descriptor = claim(path)
                except OSError as error:
                    raise SpoolFailedError(error) from error
                if descriptor is not None:
                    return path, descriptor
            await asyncio.sleep(PAUSE_S)
