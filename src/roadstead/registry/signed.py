"""What checking signatures reads of a repository: manifests by tag or digest, and what is said of them."""

from collections.abc import Sequence

from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.errors import ManifestUnknownError
from roadstead.registry.images import Images
from roadstead.registry.ports import CatalogStore, LineageStore

MAX_LISTED = 1000
"""Referrers of one manifest that are looked at."""


class SignedHere:
    """Images of a repository with what refers to them."""

    def __init__(self, images: Images, catalog: CatalogStore, lineage: LineageStore) -> None:
        self._images = images
        self._catalog = catalog
        self._lineage = lineage

    async def manifest(self, repository: RepositoryName, reference: Tag | Digest) -> tuple[str, bytes] | None:
        """Return media type and exact bytes; None where there is no such manifest."""
        try:
            return await self._images.manifest(repository, reference)
        except ManifestUnknownError:
            return None

    async def blob(self, repository: RepositoryName, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob; raises BlobUnknownError, and ContentTooLargeError for more than `max_bytes`."""
        return await self._images.blob(repository, digest, max_bytes=max_bytes)

    async def referrers(self, repository: RepositoryName, digest: Digest) -> Sequence[Descriptor]:
        """Return the manifests whose subject this is."""
        found = await self._catalog.referrers(repository, digest, artifact_type=None, after="", limit=MAX_LISTED)
        return [
            Descriptor(
                one.media_type, one.digest, one.size, annotations=one.annotations, artifact_type=one.artifact_type
            )
            for one in found
        ]

    async def made_from(self, repository: RepositoryName, digest: Digest) -> Sequence[Digest]:
        """Return the indexes that list a manifest, and what it was derived from."""
        return await self._lineage.made_from(repository, digest)
