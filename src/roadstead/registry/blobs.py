"""Blobs of a repository (distribution-spec end-2, end-10, end-11)."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from roadstead.clock import Clock
from roadstead.events.event import UNPROMPTED, Cause
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.registry.content_cache import ContentCache
from roadstead.registry.errors import BlobUnknownError, ContentMissingError, DeleteDisabledError
from roadstead.registry.immutable import NOTHING_IMMUTABLE, ImmutableTags
from roadstead.registry.ports import BlobRecord, BlobStore
from roadstead.storage.ports import Driver, KeyUnknownError


class Blobs:
    """Finds, reads, mounts and unlinks blobs; a blob is there for a repository only by membership."""

    def __init__(
        self,
        store: BlobStore,
        driver: Driver,
        clock: Clock,
        *,
        cache: ContentCache,
        delete_enabled: bool,
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
    ) -> None:
        self._store = store
        self._driver = driver
        self._clock = clock
        self._cache = cache
        self._delete_enabled = delete_enabled
        self._immutable = immutable

    async def get(self, repository: RepositoryName, digest: Digest) -> BlobRecord:
        """Return the blob if this repository may serve it; raises BlobUnknownError otherwise."""
        record = await self._store.find(repository, digest)
        if record is None:
            raise BlobUnknownError(repository, digest)
        return record

    async def promise(self, repository: RepositoryName, digest: Digest) -> BlobRecord:
        """Return the blob as `get` does, for a client that may rely on it: to push less, and refer to it later."""
        record = await self._store.promise(repository, digest, now=self._clock.now())
        if record is None:
            raise BlobUnknownError(repository, digest)
        return record

    def is_small(self, blob: BlobRecord) -> bool:
        """Tell whether the blob is served from memory, whole."""
        return blob.size <= self._cache.max_item_bytes

    async def content(self, blob: BlobRecord) -> bytes:
        """Return a small blob's bytes, from memory where they are."""
        data = self._cache.find(blob.digest)
        if data is None:
            data = b"".join([piece async for piece in self.read(blob)])
            self._cache.keep(blob.digest, data)
        return data

    async def read(self, blob: BlobRecord, *, start: int = 0, size: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the blob's bytes from `start`, `size` of them or to the end; memory stays flat."""
        try:
            async with aclosing(self._driver.read(blob.key, start=start, size=size)) as pieces:
                async for piece in pieces:
                    yield piece
        except KeyUnknownError as error:
            raise ContentMissingError(blob.digest) from error

    async def mount(
        self,
        repository: RepositoryName,
        digest: Digest,
        source: RepositoryName | None,
        *,
        cause: Cause = UNPROMPTED,
    ) -> BlobRecord | None:
        """Give the repository a blob that `source` (None: any repository) has; None where it hasn't (end-11)."""
        return await self._store.mount(repository, digest, source=source, cause=cause, now=self._clock.now())

    async def unlink(self, repository: RepositoryName, digest: Digest, *, cause: Cause = UNPROMPTED) -> None:
        """Take the blob from this repository (end-10).

        Raises BlobUnknownError, DeleteDisabledError, TagImmutableError.
        """
        if not self._delete_enabled:
            raise DeleteDisabledError
        now = self._clock.now()
        if not await self._store.unlink(repository, digest, immutable=self._immutable, cause=cause, now=now):
            raise BlobUnknownError(repository, digest)
