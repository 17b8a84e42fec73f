"""What checking signatures reads of an upstream's repository: its signatures are had like its images.

What an upstream says it has of them is believed for a little while, as its tags are: each pull would ask otherwise.
"""

from collections.abc import Sequence
from datetime import timedelta
from time import monotonic
from typing import Protocol

from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.proxy.service import PullThrough
from roadstead.proxy.spaces import Place
from roadstead.registry.errors import ManifestUnknownError

BELIEVED = timedelta(seconds=60)
MAX_REMEMBERED = 4096


class Source(Protocol):
    """Reads what a repository holds here (``registry.signed.SignedHere``)."""

    async def manifest(self, repository: RepositoryName, reference: Tag | Digest) -> tuple[str, bytes] | None:
        """Return media type and exact bytes; None where there is no such manifest."""
        ...

    async def blob(self, repository: RepositoryName, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob whole."""
        ...

    async def referrers(self, repository: RepositoryName, digest: Digest) -> Sequence[Descriptor]:
        """Return the manifests whose subject this is."""
        ...

    async def made_from(self, repository: RepositoryName, digest: Digest) -> Sequence[Digest]:
        """Return the indexes that list a manifest, and what it was derived from."""
        ...


class SignedPulledThrough:
    """Signatures of a repository, ours or an upstream's."""

    def __init__(self, here: Source, proxy: PullThrough) -> None:
        self._here = here
        self._proxy = proxy
        self._absent: dict[tuple[RepositoryName, Tag], float] = {}
        self._listed: dict[tuple[RepositoryName, Digest], tuple[float, Sequence[Descriptor]]] = {}

    async def manifest(self, repository: RepositoryName, reference: Tag | Digest) -> tuple[str, bytes] | None:
        """Return media type and exact bytes; None where there is no such manifest."""
        place = self._proxy.place(repository)
        if place is not None:
            if isinstance(reference, Tag) and self._absent.get((repository, reference), 0.0) > monotonic():
                return None
            try:
                await self._proxy.freshen(place, reference)
            except ManifestUnknownError:
                if isinstance(reference, Tag):
                    _bounded(self._absent)
                    self._absent[repository, reference] = _until(place)
                return None
        return await self._here.manifest(repository, reference)

    async def blob(self, repository: RepositoryName, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob whole; raises BlobUnknownError, and ContentTooLargeError for more than `max_bytes`."""
        place = self._proxy.place(repository)
        if place is not None:
            await self._proxy.have(place, digest)
        return await self._here.blob(repository, digest, max_bytes=max_bytes)

    async def referrers(self, repository: RepositoryName, digest: Digest) -> Sequence[Descriptor]:
        """Return the manifests whose subject this is: those that the upstream tells of, where it can be asked."""
        place = self._proxy.place(repository)
        if place is None:
            return await self._here.referrers(repository, digest)
        until, listed = self._listed.get((repository, digest), (0.0, ()))
        if until > monotonic():
            return listed
        there = await self._proxy.referrers(place, digest, None)
        if there is None:
            return await self._here.referrers(repository, digest)
        _bounded(self._listed)
        self._listed[repository, digest] = (_until(place), there)
        return there

    async def made_from(self, repository: RepositoryName, digest: Digest) -> Sequence[Digest]:
        """Return the indexes that list a manifest, and what it was derived from."""
        return await self._here.made_from(repository, digest)


def _until(place: Place) -> float:
    return monotonic() + min(place.upstream.revalidate, BELIEVED).total_seconds()


def _bounded(
    remembered: dict[tuple[RepositoryName, Tag], float]
    | dict[tuple[RepositoryName, Digest], tuple[float, Sequence[Descriptor]]],
) -> None:
    if len(remembered) >= MAX_REMEMBERED:
        remembered.clear()
