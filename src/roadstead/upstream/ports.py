"""What copying needs of a place with images, and what others need of a registry, as Protocols.

``RegistryClient`` fits the first three, for all repositories of a registry. ``ImageSource`` and ``ImageTarget`` are one
repository of a registry (``repository.py``), or an image layout on disk (``layout.py``).
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.oci.manifest import AnyManifest, parse_manifest
from roadstead.oci.mediatypes import MANIFESTS, SCHEMA1_MANIFESTS
from roadstead.oci.reference import RepositoryName, Tag

Source = Callable[[int], AsyncGenerator[bytes, None]]
"""Gives a blob's bytes from an offset on; it may be asked more than once."""


@dataclass(frozen=True, slots=True)
class FetchedManifest:
    """A manifest's bytes as they came, whatever they are."""

    raw: bytes
    media_type: str
    """As the answer had it, without parameters."""

    digest: Digest

    def parsed(self) -> AnyManifest:
        """Return it as a value; raise ManifestInvalidError.

        Some registries say ``application/json`` of every manifest: then the document itself says what it is.
        """
        known = self.media_type in MANIFESTS | SCHEMA1_MANIFESTS
        return parse_manifest(self.raw, self.media_type if known else None)


@dataclass(frozen=True, slots=True)
class Referrers:
    """What refers to a manifest; ``native``: the registry said so itself, it isn't from the fallback tag."""

    descriptors: tuple[Descriptor, ...]
    native: bool


class PushOutcome(StrEnum):
    """How a blob came to be there."""

    PRESENT = "present"
    MOUNTED = "mounted"
    PUSHED = "pushed"


class ManifestSource(Protocol):
    """Gives the manifests of a registry."""

    async def manifest(self, repository: RepositoryName, reference: Tag | Digest) -> FetchedManifest:
        """Return a manifest, checked. Raises UpstreamNotFoundError."""
        ...

    async def find_manifest(self, repository: RepositoryName, reference: Tag | Digest) -> Descriptor | None:
        """Return what a name points at, None if nothing is there."""
        ...


class BlobSource(Protocol):
    """Gives the blobs of a registry."""

    def blob(
        self, repository: RepositoryName, digest: Digest, *, start: int = 0, size: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield a blob's bytes from *start* on; who gets to the end of the whole blob has what *digest* names."""
        ...

    async def find_blob(self, repository: RepositoryName, digest: Digest) -> int | None:
        """Return a blob's size in bytes, -1 if it isn't told, None if the blob isn't there."""
        ...


class TagSource(Protocol):
    """Lists the tags of a registry's repositories."""

    def tags(
        self, repository: RepositoryName, *, invalid: Callable[[str], None] | None = None
    ) -> AsyncGenerator[Tag, None]:
        """Yield a repository's tags. Raises UpstreamNotFoundError."""
        ...


class ImageSource(Protocol):
    """One place to read images from."""

    @property
    def place(self) -> str:
        """Where it is, as people write it: ``docker.io/library/busybox``."""
        ...

    @property
    def host(self) -> str | None:
        """The registry it is in, which can mount from it; None if it isn't in one."""
        ...

    @property
    def repository(self) -> RepositoryName | None:
        """Its name in that registry."""
        ...

    async def find(self, reference: Tag | Digest) -> Descriptor | None:
        """Return what a name points at, None if nothing is there."""
        ...

    async def manifest(self, reference: Tag | Digest) -> FetchedManifest:
        """Return a manifest, checked. Raises a NotFoundError."""
        ...

    def blob(self, digest: Digest, *, start: int, size: int) -> AsyncGenerator[bytes, None]:
        """Yield a blob's bytes from *start* on."""
        ...

    async def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """Return the manifests whose subject is *digest*."""
        ...


class ImageTarget(Protocol):
    """One place to write images to."""

    @property
    def place(self) -> str:
        """Where it is, as people write it."""
        ...

    @property
    def host(self) -> str | None:
        """The registry it is in; None if it isn't in one."""
        ...

    @property
    def repository(self) -> RepositoryName | None:
        """Its name in that registry."""
        ...

    async def find(self, reference: Tag | Digest) -> Descriptor | None:
        """Return what a name points at, None if nothing is there."""
        ...

    async def is_tagged(self, tag: Tag, digest: Digest, *, served: bool) -> bool:
        """Tell whether a manifest was pushed under a tag, although `find` gives another one, or none (not *served*)."""
        ...

    async def push_blob(
        self, digest: Digest, size: int, source: Source, mount_from: RepositoryName | None
    ) -> PushOutcome:
        """Have a blob there, checked. Idempotent."""
        ...

    async def put_manifest(self, reference: Tag | Digest, manifest: FetchedManifest) -> None:
        """Write a manifest whose blobs and children are there, and have its subject know of it. Idempotent."""
        ...
