"""Manifests of a repository (distribution-spec end-3, end-7, end-9)."""

from collections.abc import Sequence

from roadstead.clock import Clock
from roadstead.events.event import UNPROMPTED, Cause
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.content_cache import ContentCache
from roadstead.registry.errors import ContentTooLargeError, DeleteDisabledError, ManifestUnknownError, TagsTooManyError
from roadstead.registry.immutable import NOTHING_IMMUTABLE, ImmutableTags
from roadstead.registry.ports import ManifestRecord, ManifestStore, NewManifest, TagCondition
from roadstead.registry.validation import Sparseness, check_manifest


class Manifests:
    """Reads, stores and deletes manifests; every write is one transaction of the store."""

    def __init__(
        self,
        store: ManifestStore,
        clock: Clock,
        *,
        cache: ContentCache,
        max_bytes: int,
        max_tags_per_push: int,
        sparse: Sparseness,
        delete_enabled: bool,
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
    ) -> None:
        self._store = store
        self._clock = clock
        self._cache = cache
        self.max_bytes = max_bytes
        self._max_tags_per_push = max_tags_per_push
        self._sparse = sparse
        self._delete_enabled = delete_enabled
        self._immutable = immutable

    async def get(self, repository: RepositoryName, reference: Tag | Digest) -> ManifestRecord:
        """Return what the reference stands for now; raises ManifestUnknownError."""
        if isinstance(reference, Tag):
            record = await self._store.find_by_tag(repository, reference)
        else:
            record = await self._store.find_by_digest(repository, reference)
        if record is None:
            raise ManifestUnknownError(repository, reference)
        return record

    async def content(self, digest: Digest) -> bytes:
        """Return the exact bytes of a manifest that `get` gave."""
        data = self._cache.find(digest)
        if data is None:
            data = await self._store.content(digest)
            self._cache.keep(digest, data)
        return data

    async def put(
        self,
        repository: RepositoryName,
        reference: Tag | Digest,
        raw: bytes,
        *,
        media_type: str | None,
        tags: Sequence[Tag] = (),
        condition: TagCondition | None = None,
        cause: Cause = UNPROMPTED,
    ) -> NewManifest:
        """Store a manifest under a tag, or under its digest and any number of tags; all or nothing."""
        if len(raw) > self.max_bytes:
            raise ContentTooLargeError("the manifest", self.max_bytes)
        if len(tags) > self._max_tags_per_push:
            raise TagsTooManyError(len(tags), self._max_tags_per_push)
        if isinstance(reference, Tag):
            expected, tags = None, [reference]
        else:
            expected = reference
        manifest = check_manifest(raw, media_type, expected=expected, sparse=self._sparse)
        await self._store.put(
            repository,
            manifest,
            tags,
            condition=condition,
            immutable=self._immutable,
            cause=cause,
            now=self._clock.now(),
        )
        self._cache.keep(manifest.digest, raw)
        return manifest

    async def delete(self, repository: RepositoryName, reference: Tag | Digest, *, cause: Cause = UNPROMPTED) -> None:
        """Remove a tag, or a manifest with all its tags.

        Raises ManifestUnknownError, DeleteDisabledError, TagImmutableError.
        """
        if not self._delete_enabled:
            raise DeleteDisabledError
        now = self._clock.now()
        if isinstance(reference, Tag):
            gone = await self._store.delete_tag(repository, reference, immutable=self._immutable, cause=cause, now=now)
        else:
            removed = await self._store.delete(repository, reference, immutable=self._immutable, cause=cause, now=now)
            gone = removed is not None
        if not gone:
            raise ManifestUnknownError(repository, reference)
