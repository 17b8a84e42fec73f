"""What augmentation needs from outside: the hosted images, a place for what it makes, and a memory of it.

``registry`` satisfies the first two without knowing (the rooms meet in ``app``); ``db`` keeps the derivations.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeAlias

from roadstead.oci.artifact import Artifact
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.storage.arrivals import Arrival
from roadstead.storage.ports import Key
from roadstead.upstream.ports import BlobSource, ManifestSource


@dataclass(frozen=True, slots=True)
class Served:
    """What a pull is answered with: a manifest's digest, media type and size in bytes."""

    digest: Digest
    media_type: str
    size: int


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a tag is at, and what was derived from that under the plan that was asked for, if anything was yet."""

    source: Served
    derived: Served | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedManifest:
    """A manifest made from another: its exact bytes, and what it needs in its repository."""

    digest: Digest
    media_type: str
    raw: bytes
    source: Digest  # the manifest it was made from
    blobs: Sequence[Digest] = ()  # config and layers; children are manifests
    children: Sequence[Digest] = ()
    subject: Digest | None = None  # what it says something of, where it does: then the referrers API lists it
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DerivedBlob:
    """A blob made on the way (an image config), or an added layer: durable in storage under its key."""

    digest: Digest
    size: int
    key: Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """Everything that came of one source and one plan, stored together.

    ``plan`` is the plan itself as canonical JSON, so that what was derived can be derived again when its bytes are
    gone (design decision 6); ``plan_digest`` is the digest of that text. ``manifests`` has children before the root;
    the root is the last. ``attached`` says something of the root: provenance, signatures.
    """

    repository: RepositoryName
    source: Digest
    plan_digest: Digest
    plan: str
    manifests: Sequence[DerivedManifest]
    blobs: Sequence[DerivedBlob]
    configs: Sequence[Digest] = ()  # those among the blobs that are image configs
    attached: Sequence[DerivedManifest] = ()

    @property
    def root(self) -> DerivedManifest:
        """Return the manifest that answers a pull."""
        return self.manifests[-1]


class ImageSource(Protocol):
    """Reads what a repository holds. Both raise the registry's NotFoundError family."""

    async def manifest(self, repository: RepositoryName, digest: Digest) -> tuple[str, bytes]:
        """Return media type and exact bytes."""
        ...

    async def blob(self, repository: RepositoryName, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob whole (an image config); refuses more than `max_bytes`."""
        ...


class DerivationStore(Protocol):
    """The memory of what was derived from what."""

    async def find(
        self, repository: RepositoryName, source: Digest, plan_digest: Digest, *, space: RepositoryName | None = None
    ) -> Served | None:
        """Return what answers a pull of this source under this plan, if it was derived already; into a space or not."""
        ...

    async def find_by_tag(self, repository: RepositoryName, tag: Tag, plan_digest: Digest) -> Pulled | None:
        """Return what the tag is at now and what `find` gives for it, in one look; None where there is no such tag."""
        ...

    async def record(self, derivation: Derivation, *, now: datetime, space: RepositoryName | None = None) -> None:
        """Store a derivation with its manifests, blobs and memberships in one transaction; idempotent.

        The blobs are those that a LayerStore has just returned, and so are leased until this has made them needed.
        With a `space` all of it goes there, and the source's repository holds nothing more than before. Raises
        ManifestUnknownError's family if the source is no longer in the repository.
        """
        ...

    async def memories(self, repository: RepositoryName, digest: Digest) -> Sequence[tuple[Digest, str]]:
        """Return the source manifests and plans (as JSON) that this repository once had a digest from.

        The digest is that of a derived manifest or config. A memory outlives tags, sources and all that was derived.
        """
        ...

    async def made_here(self, config: Digest, plan_digest: Digest) -> bool:
        """Say whether an image config was ever derived here under this plan, for whichever repository."""
        ...

    async def find_within(self, space: RepositoryName, repository: RepositoryName, derived: Digest) -> Served | None:
        """Return what was derived into a space, by its digest, as long as the repository holds what it came of."""
        ...

    async def sources_of(self, repository: RepositoryName, derived: Digest) -> Sequence[Digest]:
        """Return the source manifests that a derived root digest was made from in this repository; empty if none."""
        ...


class LayerStore(Protocol):
    """Where layers of rules and derived configs are kept: the content-addressed store.

    What it returns is leased: collection leaves it alone for hours, whoever may serve it by then.
    """

    async def find(self, digest: Digest, *, now: datetime) -> DerivedBlob | None:
        """Return the blob if its bytes are stored."""
        ...

    def read(self, blob: DerivedBlob) -> AsyncGenerator[bytes, None]:
        """Yield a stored blob's bytes."""
        ...

    async def store(self, data: bytes, *, now: datetime) -> DerivedBlob:
        """Store a small blob durably and return it; idempotent."""
        ...

    async def store_file(self, path: str, digest: Digest, *, now: datetime) -> DerivedBlob:
        """Store a file whose digest is known, verified as it is copied, durably; idempotent."""
        ...


MayPull: TypeAlias = Callable[[str], bool]
"""Says whether whoever asks may pull a repository, by its name here: ``docker.io/library/busybox``, ``team/app``."""


class ReadableRegistry(ManifestSource, BlobSource, Protocol):
    """Another registry to read images from; ``upstream.client.RegistryClient`` is one."""


class Registries(Protocol):
    """The registries that layers and included images may come from."""

    def registry(self, host: str, repository: RepositoryName, may_pull: MayPull) -> ReadableRegistry:
        """Return the client to read a repository with; raises LayerForbiddenError."""
        ...


class LayerSource(Protocol):
    """Where layers come from: one kind of location."""

    def read(
        self, location: str, digest: Digest | None, size: int | None, may_pull: MayPull
    ) -> AsyncGenerator[bytes, None]:
        """Yield what lies at a location, as it arrives; the caller counts, and checks what it gets.

        `digest` and `size` (bytes) are what it is expected to be, where that is known: who learns earlier that it
        is something else says so. Raises LocationInvalidError for one that can't be read, LayerMismatchError,
        LayerForbiddenError for what the caller may not have, and the errors of upstreams.
        """
        ...


class LayerRecords(Protocol):
    """What the database knows of blobs that no repository may serve yet: its half of a LayerStore."""

    async def find(self, digest: Digest) -> DerivedBlob | None:
        """Return the blob if its bytes are stored, whoever may serve them."""
        ...

    async def keep(self, digest: Digest, *, now: datetime) -> DerivedBlob | None:
        """Return the blob if its bytes are stored; at least half a lease is left to it."""
        ...

    async def expect(self, digest: Digest, *, now: datetime) -> Arrival:
        """Return what is known of a digest whose bytes are about to be written under the digest's own key.

        Raises StoreBusyError's family while its bytes are being removed.
        """
        ...

    async def remember(self, blob: DerivedBlob, *, now: datetime, arrival: Arrival | None = None) -> DerivedBlob:
        """Record durable bytes, leased; idempotent.

        Where the digest is stored already its row stays as it is and is returned: the caller then drops its copy.
        Raises StoreBusyError's family where collection came between since `arrival`.
        """
        ...


class Said(Protocol):
    """What is known to be said of a manifest: one line of the referrers list."""

    @property
    def artifact_type(self) -> str | None:
        """Return of what type it is."""
        ...

    @property
    def annotations(self) -> Mapping[str, str]:
        """Return what its manifest says of itself."""
        ...


class Statements(Protocol):
    """Lists what is said of manifests (``registry.ports.CatalogStore`` does)."""

    async def referrers(
        self, repository: RepositoryName, subject: Digest, *, artifact_type: str | None, after: str, limit: int
    ) -> Sequence[Said]:
        """Return up to `limit` manifests whose subject this is, digests greater than `after`, ascending."""
        ...


class Seal(Protocol):
    """Signs what is made here."""

    @property
    def mark(self) -> tuple[str, str]:
        """Return the annotation that all that it signs carries: its name, and a value that changes with the key."""
        ...

    def signatures(self, subject: Digest, name: str) -> Sequence[Artifact]:
        """Return the signatures of a manifest, the same each time."""
        ...

    def signed(self, statement: bytes, predicate_type: str) -> Artifact:
        """Return a statement of in-toto, signed, the same each time."""
        ...
