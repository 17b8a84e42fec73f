"""Pushes, unlinks and collects blobs and pushes them again, to be recorded: ``python -m tests.soak.collecting DIR``.

Collection waits for a day and a minute, so it runs here under a clock that is moved by hand. Each thing that a client
would have been told is a line of JSON on standard output.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

from roadstead.db.engine import Database, open_database
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.registry.gc import Collector, Policy
from roadstead.registry.upload_ids import UploadIds, UploadLifetimes
from roadstead.registry.uploads import Uploads
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.testing.clock import FrozenClock

REPOSITORY = RepositoryName.parse("collected/app")
BLOBS = 6


class Whole:
    """A request's body that came in one piece."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def announced(self) -> int:
        return len(self._data)

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._data


class Scene:
    """A registry without HTTP, and its one client."""

    def __init__(self, database: Database, driver: FilesystemDriver) -> None:
        self._database = database
        self._clock = FrozenClock()
        self._collector = Collector(database.collection, driver, self._clock, Policy())
        ids = UploadIds(b"0" * 32)
        self._uploads = Uploads(database.uploads, database.blobs, driver, ids, self._clock, lifetimes=UploadLifetimes())

    async def push(self, data: bytes) -> None:
        """Push a blob, small or staged."""
        digest = Digest.of(data)
        began = time.time()
        await self._uploads.push(REPOSITORY, Whole(data), digest)
        tell(digest, str(digest), began)

    async def unlink(self, data: bytes) -> None:
        """Take a blob out of the repository."""
        digest = Digest.of(data)
        began = time.time()
        await self._database.blobs.unlink(REPOSITORY, digest, now=self._clock.now())
        tell(digest, None, began)

    async def collect(self, later: timedelta) -> int:
        """Run one pass at a later time; return how many blobs it removed."""
        self._clock.advance(later)
        return (await self._collector.run()).blobs


def tell(digest: Digest, value: str | None, began: float) -> None:
    sys.stdout.write(json.dumps([str(digest), value, began, time.time()]) + "\n")
    sys.stdout.flush()


async def play(directory: Path) -> None:
    """Let blobs be condemned, some of them pushed again in time and some too late."""
    driver = FilesystemDriver(directory)
    database = await open_database(f"sqlite:///{directory / 'roadstead.db'}", migrate=True)
    scene = Scene(database, driver)
    choice = random.Random(1)
    blobs = [choice.randbytes(2_000 if number % 2 else 150_000) for number in range(BLOBS)]
    for data in blobs:
        await scene.push(data)
    for data in blobs:
        await scene.unlink(data)
    await scene.collect(timedelta(days=2))  # condemned
    await scene.push(blobs[1])
    await scene.push(blobs[2])
    removed = await scene.collect(timedelta(minutes=5))
    assert removed == BLOBS - 2, removed
    await scene.push(blobs[3])
    await scene.push(blobs[4])
    await database.close()
    await driver.close()


if __name__ == "__main__":
    asyncio.run(play(Path(sys.argv[1])))
