"""Where layers of rules and derived configs are kept: the content-addressed store, whoever may then serve them."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

from roadstead.augment.ports import DerivedBlob, LayerRecords, LayerStore
from roadstead.oci.digest import Digest, Hasher
from roadstead.storage import keys
from roadstead.storage.ports import Driver

_PIECE_BYTES = 1 << 20


class KeptLayers:
    """Blobs of our own making: bytes first, then the row that knows of them."""

    def __init__(self, driver: Driver, records: LayerRecords) -> None:
        self._driver = driver
        self._records = records

    async def find(self, digest: Digest) -> DerivedBlob | None:
        """Return the blob if its bytes are stored."""
        return await self._records.find(digest)

    async def store(self, data: bytes, *, now: datetime) -> DerivedBlob:
        """Store a small blob durably and return it; idempotent."""
        digest = Digest.of(data)
        found = await self._records.find(digest)
        if found is not None:
            return found
        key = keys.blob(digest)
        async with self._driver.write(key) as handle:
            await handle.append(data)
            await handle.commit()
        return await self._records.remember(DerivedBlob(digest, len(data), key), now=now)

    async def store_file(self, path: str, digest: Digest, *, now: datetime) -> DerivedBlob:
        """Store a file whose digest is known, verified as it is copied; raises DigestMismatchError if it changed."""
        key = keys.blob(digest)
        hasher = Hasher(digest.algorithm)
        async with self._driver.write(key) as handle:
            async for piece in _pieces(Path(path)):
                await asyncio.to_thread(hasher.update, piece)
                await handle.append(piece)
            hasher.verify(digest)
            await handle.commit()
        return await self._records.remember(DerivedBlob(digest, hasher.size, key), now=now)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
            yield piece


def _claims(driver: Driver, records: LayerRecords) -> LayerStore:
    """Tell the type checker what this plug is."""
    return KeptLayers(driver, records)
