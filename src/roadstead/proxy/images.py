"""What augmentation reads of an image, had from its upstream first where it comes from one."""

from typing import Protocol

from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.proxy.service import PullThrough


class Source(Protocol):
    """Reads what a repository holds here (``registry.images.Images``)."""

    async def manifest(self, repository: RepositoryName, digest: Digest) -> tuple[str, bytes]:
        """Return media type and exact bytes."""
        ...

    async def blob(self, repository: RepositoryName, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob whole."""
        ...


class ImagesPulledThrough:
    """Manifests and configs of a repository, ours or an upstream's, by digest."""

    def __init__(self, here: Source, proxy: PullThrough) -> None:
        self._here = here
        self._proxy = proxy

    async def manifest(self, repository: RepositoryName, digest: Digest) -> tuple[str, bytes]:
        """Return media type and exact bytes; raises ManifestUnknownError."""
        place = self._proxy.place(repository)
        if place is not None:
            await self._proxy.freshen(place, digest)
        return await self._here.manifest(repository, digest)

    async def blob(self, repository: RepositoryName, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob; raises BlobUnknownError, and ContentTooLargeError for more than `max_bytes`."""
        place = self._proxy.place(repository)
        if place is not None:
            await self._proxy.have(place, digest)
        return await self._here.blob(repository, digest, max_bytes=max_bytes)
