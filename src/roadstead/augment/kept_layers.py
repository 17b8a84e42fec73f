"""Where layers of rules and derived configs are kept: the content-addressed store, whoever may then serve them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from datetime import datetime
from pathlib import Path

import structlog

from roadstead.augment.ports import DerivedBlob, LayerRecords, LayerStore
from roadstead.clock import Clock
from roadstead.oci.digest import Digest, Hasher
from roadstead.storage import keys
from roadstead.storage.arrivals import Arrival
from roadstead.storage.ports import Driver

_PIECE_BYTES = 1 << 20

_log = structlog.get_logger()


class KeptLayers:
    """Blobs of our own making: bytes first, then the row that knows of them."""

    def __init__(self, driver: Driver, records: LayerRecords) -> None:
        self._driver = driver
        self._records = records

    async def find(self, digest: Digest, *, now: datetime) -> DerivedBlob | None:
        """Return the blob if its bytes are stored, leased."""
        return await self._records.keep(digest, now=now)

    def read(self, blob: DerivedBlob) -> AsyncGenerator[bytes, None]:
        """Yield a stored blob's bytes."""
        return self._driver.read(blob.key)

    async def store(self, data: bytes, *, now: datetime) -> DerivedBlob:
        """Store a small blob durably and return it; idempotent."""
        digest = Digest.of(data)
        found = await self._records.keep(digest, now=now)
        if found is not None:
            return found
        key = keys.blob(digest)
        arrival = await self._records.expect(digest, now=now)
        async with self._driver.write(key) as handle:
            await handle.append(data)
            await handle.commit()
        return await self._remember(DerivedBlob(digest, len(data), key), now, arrival)

    async def store_file(self, path: str, digest: Digest, *, now: datetime) -> DerivedBlob:
        """Store a file whose digest is known, verified as it is copied; raises DigestMismatchError if it changed."""
        key = keys.blob(digest)
        arrival = await self._records.expect(digest, now=now)
        hasher = Hasher(digest.algorithm)
        async with self._driver.write(key) as handle:
            async for piece in _pieces(Path(path)):
                await asyncio.to_thread(hasher.update, piece)
                await handle.append(piece)
            hasher.verify(digest)
            await handle.commit()
        return await self._remember(DerivedBlob(digest, hasher.size, key), now, arrival)

    async def _remember(self, blob: DerivedBlob, now: datetime, arrival: Arrival) -> DerivedBlob:
        stored = await self._records.remember(blob, now=now, arrival=arrival)
        if stored.key != blob.key:  # the digest was stored before, elsewhere: one copy is enough
            await self._driver.delete(blob.key)
        return stored


class RuleLayers:
    """The layers of the rules that a server runs with: they stay while it runs, whether an image has them or not.

    Each replica keeps its own, since they may run with different rules. What none keeps any more is collected once
    its lease is over; the next start stores it again.
    """

    def __init__(self, records: LayerRecords, digests: Iterable[Digest], clock: Clock) -> None:
        self._records = records
        self._digests = sorted(set(digests), key=str)
        self._clock = clock

    async def keep(self) -> int:
        """Renew the leases; return how many layers are gone, which only a server that slept for a day can see."""
        missing = [
            digest for digest in self._digests if await self._records.keep(digest, now=self._clock.now()) is None
        ]
        for digest in missing:
            _log.error("a layer of a rule is gone; start the server again to store it", digest=str(digest))
        return len(missing)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
            yield piece


def _claims(driver: Driver, records: LayerRecords) -> LayerStore:
    """Tell the type checker what this plug is."""
    return KeptLayers(driver, records)
