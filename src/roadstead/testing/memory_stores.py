"""Stores in memory that satisfy augmentation's ports: small, and true to what the ports promise."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from pathlib import Path

from roadstead.augment.ports import (
    Derivation,
    DerivationStore,
    DerivedBlob,
    ImageSource,
    LayerStore,
    Pulled,
    Served,
)
from roadstead.oci.digest import Digest, DigestMismatchError
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.errors import BlobUnknownError, ContentTooLargeError, ManifestUnknownError
from roadstead.storage.ports import Key
from roadstead.testing.images import TestImage, TestIndex


class MemoryLayers:
    """A content-addressed store in a dictionary."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}

    async def find(self, digest: Digest, *, now: datetime) -> DerivedBlob | None:
        """Return the blob if its bytes are stored."""
        data = self.blobs.get(digest)
        return None if data is None else _blob(digest, len(data))

    async def read(self, blob: DerivedBlob) -> AsyncGenerator[bytes, None]:
        """Yield a blob's bytes."""
        yield self.blobs[blob.digest]

    async def store(self, data: bytes, *, now: datetime) -> DerivedBlob:
        """Store a blob."""
        digest = Digest.of(data)
        self.blobs[digest] = data
        return _blob(digest, len(data))

    async def store_file(self, path: str, digest: Digest, *, now: datetime) -> DerivedBlob:
        """Store a file, verified; DigestMismatchError."""
        data = Path(path).read_bytes()
        actual = Digest.of(data, digest.algorithm)
        if actual != digest:
            raise DigestMismatchError(digest, actual)
        return await self.store(data, now=now)


class MemoryImages:
    """Repositories with the images that were put there; ``reads`` lists what was read, in order."""

    def __init__(self) -> None:
        self.reads: list[Digest] = []
        self._manifests: dict[tuple[RepositoryName, Digest], tuple[str, bytes]] = {}
        self._blobs: dict[tuple[RepositoryName, Digest], bytes] = {}

    def put(self, repository: RepositoryName, image: TestImage | TestIndex) -> Served:
        """Keep an image or an index with all it needs; return what a pull of it is answered with."""
        if isinstance(image, TestIndex):
            for child in image.children:
                self.put(repository, child)
        else:
            self._blobs |= {(repository, digest): data for digest, data in image.blobs.items()}
        self._manifests[repository, image.digest] = (image.media_type, image.raw)
        return Served(image.digest, image.media_type, image.size)

    def drop(self, repository: RepositoryName, digest: Digest) -> None:
        """Take a manifest out."""
        del self._manifests[repository, digest]

    async def manifest(self, repository: RepositoryName, digest: Digest) -> tuple[str, bytes]:
        """Return media type and exact bytes; ManifestUnknownError."""
        self.reads.append(digest)
        try:
            return self._manifests[repository, digest]
        except KeyError:
            raise ManifestUnknownError(repository, digest) from None

    async def blob(self, repository: RepositoryName, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob; BlobUnknownError, ContentTooLargeError."""
        self.reads.append(digest)
        try:
            data = self._blobs[repository, digest]
        except KeyError:
            raise BlobUnknownError(repository, digest) from None
        if len(data) > max_bytes:
            raise ContentTooLargeError(f"blob {digest}", max_bytes)
        return data


class MemoryDerivations:
    """What was derived from what, in a dictionary."""

    def __init__(self) -> None:
        self.recorded: list[Derivation] = []
        self.tags: dict[tuple[RepositoryName, Tag], Served] = {}
        self._by_source: dict[tuple[RepositoryName, Digest, Digest], Derivation] = {}

    async def find(
        self, repository: RepositoryName, source: Digest, plan_digest: Digest, *, space: RepositoryName | None = None
    ) -> Served | None:
        """Return what answers a pull of this source under this plan."""
        derivation = self._by_source.get((space or repository, source, plan_digest))
        if derivation is None:
            return None
        root = derivation.root
        return Served(root.digest, root.media_type, len(root.raw))

    async def find_by_tag(self, repository: RepositoryName, tag: Tag, plan_digest: Digest) -> Pulled | None:
        """Return what the tag is at and what was derived from that."""
        source = self.tags.get((repository, tag))
        if source is None:
            return None
        return Pulled(source, await self.find(repository, source.digest, plan_digest))

    async def record(self, derivation: Derivation, *, now: datetime, space: RepositoryName | None = None) -> None:
        """Keep a derivation."""
        self.recorded.append(derivation)
        self._by_source[space or derivation.repository, derivation.source, derivation.plan_digest] = derivation

    async def find_within(self, space: RepositoryName, repository: RepositoryName, derived: Digest) -> Served | None:
        """Return what was derived into a space."""
        for (where, _, _), derivation in self._by_source.items():
            for manifest in derivation.manifests:
                if (where, derivation.repository, manifest.digest) == (space, repository, derived):
                    return Served(derived, manifest.media_type, len(manifest.raw))
        return None

    async def memories(self, repository: RepositoryName, digest: Digest) -> Sequence[tuple[Digest, str]]:
        """Return what a digest was derived from."""
        return [
            (derivation.source, derivation.plan)
            for derivation in self.recorded
            if derivation.repository == repository
            and digest in {*derivation.configs, *(manifest.digest for manifest in derivation.manifests)}
        ]

    async def made_here(self, config: Digest, plan_digest: Digest) -> bool:
        """Say whether a config was derived under this plan."""
        return any(
            config in derivation.configs and derivation.plan_digest == plan_digest for derivation in self.recorded
        )

    async def sources_of(self, repository: RepositoryName, derived: Digest) -> Sequence[Digest]:
        """Return the sources that this root was made from."""
        return [
            derivation.source
            for derivation in self._by_source.values()
            if derivation.repository == repository and derivation.root.digest == derived
        ]


def _blob(digest: Digest, size: int) -> DerivedBlob:
    return DerivedBlob(digest, size, Key(f"blobs/{digest.algorithm}/{digest.encoded}"))


_layers: LayerStore = MemoryLayers()
_images: ImageSource = MemoryImages()
_derivations: DerivationStore = MemoryDerivations()
