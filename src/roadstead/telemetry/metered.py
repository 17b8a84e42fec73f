"""Stores that count: the same promises, and a number for every change. Reads go straight to the store inside."""

from collections.abc import Sequence
from datetime import datetime

from roadstead.augment.ports import Derivation, DerivationStore
from roadstead.events.event import UNPROMPTED, Cause
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.immutable import NOTHING_IMMUTABLE, ImmutableTags
from roadstead.registry.ports import (
    BlobRecord,
    BlobStore,
    ManifestStore,
    NewManifest,
    TagCondition,
    UploadRecord,
    UploadStore,
)
from roadstead.storage.arrivals import Arrival
from roadstead.telemetry.metrics import RegistryMetrics


class MeteredBlobs:
    """A `BlobStore` that counts blobs stored, mounted and unlinked."""

    def __init__(self, store: BlobStore, metrics: RegistryMetrics) -> None:
        self.find = store.find
        self.find_stored = store.find_stored
        self.promise = store.promise
        self.expect = store.expect
        self._store = store
        self._metrics = metrics

    async def commit(
        self,
        repository: RepositoryName,
        blob: BlobRecord,
        *,
        upload: UploadRecord | None,
        now: datetime,
        arrival: Arrival | None = None,
        cause: Cause = UNPROMPTED,
    ) -> BlobRecord:
        """Record durable bytes, and count them."""
        stored = await self._store.commit(repository, blob, upload=upload, now=now, arrival=arrival, cause=cause)
        self._metrics.blobs_stored.add()
        self._metrics.blob_bytes_stored.add(blob.size)
        return stored

    async def mount(
        self,
        repository: RepositoryName,
        digest: Digest,
        *,
        source: RepositoryName | None,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> BlobRecord | None:
        """Mount, and count it where it was one."""
        mounted = await self._store.mount(repository, digest, source=source, cause=cause, now=now)
        if mounted is not None:
            self._metrics.blobs_mounted.add()
        return mounted

    async def unlink(
        self,
        repository: RepositoryName,
        digest: Digest,
        *,
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> bool:
        """Unlink, and count it where it was there."""
        was_there = await self._store.unlink(repository, digest, immutable=immutable, cause=cause, now=now)
        if was_there:
            self._metrics.blobs_deleted.add()
        return was_there


class MeteredManifests:
    """A `ManifestStore` that counts manifests stored and deleted."""

    def __init__(self, store: ManifestStore, metrics: RegistryMetrics) -> None:
        self.find_by_tag = store.find_by_tag
        self.find_by_digest = store.find_by_digest
        self.content = store.content
        self.delete_tag = store.delete_tag
        self.restore = store.restore
        self._store = store
        self._metrics = metrics

    async def put(
        self,
        repository: RepositoryName,
        manifest: NewManifest,
        tags: Sequence[Tag],
        *,
        condition: TagCondition | None = None,
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> None:
        """Store a manifest, and count it."""
        await self._store.put(
            repository, manifest, tags, condition=condition, immutable=immutable, cause=cause, now=now
        )
        self._metrics.manifests_stored.add()

    async def delete(
        self,
        repository: RepositoryName,
        digest: Digest,
        *,
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> Sequence[Tag] | None:
        """Delete a manifest, and count it where it was there."""
        tags = await self._store.delete(repository, digest, immutable=immutable, cause=cause, now=now)
        if tags is not None:
            self._metrics.manifests_deleted.add()
        return tags


class MeteredUploads:
    """An `UploadStore` that counts sessions cancelled, by a client or for their age."""

    def __init__(self, store: UploadStore, metrics: RegistryMetrics) -> None:
        self.find = store.find
        self.advance = store.advance
        self.abandoned = store.abandoned
        self.forget_closed = store.forget_closed
        self._store = store
        self._metrics = metrics

    async def cancel(self, record: UploadRecord, *, now: datetime) -> bool:
        """Cancel a session, and count it where it was open."""
        was_open = await self._store.cancel(record, now=now)
        if was_open:
            self._metrics.uploads_cancelled.add()
        return was_open


class MeteredDerivations:
    """A `DerivationStore` that counts what was derived."""

    def __init__(self, store: DerivationStore, metrics: RegistryMetrics) -> None:
        self.find = store.find
        self.find_by_tag = store.find_by_tag
        self.sources_of = store.sources_of
        self.memories = store.memories
        self.made_here = store.made_here
        self.find_within = store.find_within
        self._store = store
        self._metrics = metrics

    async def record(self, derivation: Derivation, *, now: datetime, space: RepositoryName | None = None) -> None:
        """Store a derivation, and count its manifests."""
        await self._store.record(derivation, now=now, space=space)
        self._metrics.manifests_derived.add(len(derivation.manifests))
