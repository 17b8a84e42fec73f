"""This registry's own images, read as those of another registry are: layers and images that requests name by our host.

Nothing is asked over the network. Only what is here is read, as it was pushed; a signature policy of the repository
counts as for any other pull.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from roadstead.augment.ports import ReadableRegistry
from roadstead.errors import NotFoundError
from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.blobs import Blobs
from roadstead.registry.manifests import Manifests
from roadstead.signatures.ports import Admission
from roadstead.upstream.ports import FetchedManifest


class HostedImages:
    """Reads them; who may is decided before (``KnownRegistries``)."""

    def __init__(self, manifests: Manifests, blobs: Blobs, admission: Admission | None = None) -> None:
        self._manifests = manifests
        self._blobs = blobs
        self._admission = admission

    async def manifest(self, repository: RepositoryName, reference: Tag | Digest) -> FetchedManifest:
        """Return a manifest as it was pushed; raises ManifestUnknownError, ImageUnsignedError."""
        record = await self._manifests.get(repository, reference)
        if self._admission is not None:
            await self._admission.check(repository, record.digest)
        return FetchedManifest(await self._manifests.content(record.digest), record.media_type, record.digest)

    async def find_manifest(self, repository: RepositoryName, reference: Tag | Digest) -> Descriptor | None:
        """Return what a name points at, None if nothing is there."""
        try:
            record = await self._manifests.get(repository, reference)
        except NotFoundError:
            return None
        return Descriptor(record.media_type, record.digest, record.size)

    async def blob(
        self, repository: RepositoryName, digest: Digest, *, start: int = 0, size: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield a blob's bytes from `start` on; raises BlobUnknownError."""
        record = await self._blobs.get(repository, digest)
        async with aclosing(self._blobs.read(record, start=start)) as pieces:
            async for piece in pieces:
                yield piece

    async def find_blob(self, repository: RepositoryName, digest: Digest) -> int | None:
        """Return a blob's size in bytes, None if the blob isn't there."""
        try:
            return (await self._blobs.get(repository, digest)).size
        except NotFoundError:
            return None


if TYPE_CHECKING:
    _: type[ReadableRegistry] = HostedImages
