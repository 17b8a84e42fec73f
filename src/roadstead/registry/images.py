"""What augmentation reads of a repository: manifests whole, and small blobs whole."""

from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.blobs import Blobs
from roadstead.registry.errors import ContentTooLargeError
from roadstead.registry.manifests import Manifests


class Images:
    """Manifests and configs of a repository, by digest."""

    def __init__(self, manifests: Manifests, blobs: Blobs) -> None:
        self._manifests = manifests
        self._blobs = blobs

    async def manifest(self, repository: RepositoryName, digest: Tag | Digest) -> tuple[str, bytes]:
        """Return media type and exact bytes; raises ManifestUnknownError."""
        record = await self._manifests.get(repository, digest)
        return record.media_type, await self._manifests.content(record.digest)

    async def blob(self, repository: RepositoryName, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob; raises BlobUnknownError, and ContentTooLargeError for more than `max_bytes`."""
        record = await self._blobs.get(repository, digest)
        if record.size > max_bytes:
            raise ContentTooLargeError(f"blob {digest}", max_bytes)
        return await self._blobs.content(record)
