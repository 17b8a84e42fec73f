"""What a registry needs from a database: stores, cut by intention.

Every write is one method and one transaction: all of it is there when the method returns, or none. Once it has
returned, every reader in every process sees it (design decision 3). Reads never see half a write.

What these Protocols promise is executable: ``roadstead.testing.contracts.registry_stores`` runs on every database.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from roadstead.oci.digest import Algorithm, Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.storage.ports import Key, Staged


@dataclass(frozen=True, slots=True)
class ManifestRecord:
    """What a tag or a digest stands for in one repository. The bytes are had by digest, from ``content``."""

    digest: Digest
    media_type: str
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class BlobRecord:
    """A blob that a repository may serve, and where its bytes lie."""

    digest: Digest
    size: int  # bytes
    key: Key


class ReferenceKind(StrEnum):
    """Why a manifest needs something."""

    CONFIG = "config"
    LAYER = "layer"
    CHILD = "child"


@dataclass(frozen=True, slots=True)
class ManifestReference:
    """Something that a manifest needs in its own repository.

    ``optional`` content is recorded but need not be there: non-distributable layers.
    """

    kind: ReferenceKind
    digest: Digest
    size: int
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewManifest:
    """A validated manifest on its way in: its facts beside its exact bytes."""

    digest: Digest  # what it is known by: under the algorithm it was pushed with
    media_type: str
    raw: bytes
    references: Sequence[ManifestReference]
    subject: Digest | None = None
    artifact_type: str | None = None  # as the referrers API tells it (distribution-spec end-12)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TagCondition:
    """``If-Match`` / ``If-None-Match`` on a push by tag: what the tag must, or must not, point at.

    ``match``: the tag must be at one of these (empty: no condition). ``absent``: there must be no such tag.
    """

    match: frozenset[Digest] = frozenset()
    any_existing: bool = False  # If-Match: *
    absent: bool = False  # If-None-Match: *


@dataclass(frozen=True, slots=True)
class ReferrerRecord:
    """One line of the referrers API: a manifest that names the subject."""

    digest: Digest
    media_type: str
    size: int
    artifact_type: str | None
    annotations: Mapping[str, str]


class ManifestStore(Protocol):
    """Manifests and tags of repositories."""

    async def find_by_tag(self, repository: RepositoryName, tag: Tag) -> ManifestRecord | None:
        """Return what the tag points at now; None for an unknown tag or repository."""
        ...

    async def find_by_digest(self, repository: RepositoryName, digest: Digest) -> ManifestRecord | None:
        """Return the manifest if this repository holds it, pushed or derived."""
        ...

    async def content(self, digest: Digest) -> bytes:
        """Return the exact bytes; KeyError if no repository holds it. Says nothing of who may see them."""
        ...

    async def put(
        self,
        repository: RepositoryName,
        manifest: NewManifest,
        tags: Sequence[Tag],
        *,
        condition: TagCondition | None = None,
        now: datetime,
    ) -> None:
        """Store a manifest, point the tags at it, write their journal: all or nothing; idempotent.

        The repository comes to be with its first manifest or blob. What the manifest references must be in this
        repository, blobs live and of the declared size, children as manifests: else ManifestBlobUnknownError with
        every digest that is missing, or DescriptorSizeError. The condition is checked in the same transaction
        against each tag: TagConditionError.
        """
        ...

    async def delete(self, repository: RepositoryName, digest: Digest, *, now: datetime) -> Sequence[Tag] | None:
        """Remove a manifest and every tag at it; return those tags, or None if it wasn't there.

        A digest that was derived from a source (augmentation) stands for its source: the source goes, with its tags
        and all that was derived from it.
        """
        ...

    async def delete_tag(self, repository: RepositoryName, tag: Tag, *, now: datetime) -> bool:
        """Remove a tag, not what it points at; False if it wasn't there."""
        ...


class CatalogStore(Protocol):
    """Listings, in pages by key: a page costs the same wherever it starts."""

    async def tags(self, repository: RepositoryName, *, after: str, limit: int) -> Sequence[str] | None:
        """Return up to `limit` tags greater than `after` bytewise, ascending; None for an unknown repository."""
        ...

    async def repositories(self, *, after: str, limit: int) -> Sequence[str]:
        """Return up to `limit` names of repositories that hold a manifest, those behind `after`.

        Component by component, as distribution walks its tree: ``a/b`` comes before ``a-b``.
        """
        ...

    async def referrers(
        self, repository: RepositoryName, subject: Digest, *, artifact_type: str | None, after: str, limit: int
    ) -> Sequence[ReferrerRecord]:
        """Return up to `limit` manifests whose subject this is, digests greater than `after`, ascending."""
        ...


class UploadState(StrEnum):
    """Where an upload session stands."""

    OPEN = "open"
    COMMITTED = "committed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRecord:
    """An upload session as the database keeps it between requests (design decision 4).

    There is no row before the first byte is durable: ``version`` 0 means "not stored yet".
    """

    upload_id: str
    repository: RepositoryName
    state: UploadState = UploadState.OPEN
    staged: Staged = field(default_factory=Staged)
    algorithm: Algorithm = Algorithm.SHA256
    digest_so_far: str = ""  # hex of the bytes up to staged.size; empty where nothing was hashed
    hash_state: bytes | None = None  # exported state at staged.size, or None: then read again
    committed: Digest | None = None
    version: int = 0
    started_at: datetime


class UploadStore(Protocol):
    """Upload sessions."""

    async def find(self, upload_id: str) -> UploadRecord | None:
        """Return the session's row, in whatever state, or None where there is none (yet)."""
        ...

    async def advance(self, record: UploadRecord, *, now: datetime) -> bool:
        """Store the session as `record` if the row is still open and at ``record.version``; then it is one higher.

        False means that another writer came first: nothing was stored.
        """
        ...

    async def cancel(self, record: UploadRecord, *, now: datetime) -> bool:
        """Mark the session cancelled (a row is made where there was none); False if it was closed already."""
        ...

    async def abandoned(self, *, started_before: datetime, limit: int) -> Sequence[UploadRecord]:
        """Return open sessions started before that moment, oldest first."""
        ...

    async def forget_closed(self, *, touched_before: datetime) -> int:
        """Remove rows of committed and cancelled sessions not touched since; return how many."""
        ...


class BlobStore(Protocol):
    """Which blobs exist, and which repository may serve which (membership)."""

    async def find(self, repository: RepositoryName, digest: Digest) -> BlobRecord | None:
        """Return the blob if this repository may serve it."""
        ...

    async def commit(
        self, repository: RepositoryName, blob: BlobRecord, *, upload: UploadRecord | None, now: datetime
    ) -> BlobRecord:
        """Record durable bytes, give the repository the blob, close the session: one transaction.

        Where the digest is stored already its row stays as it is and is returned: the caller then drops its copy.
        The session's row becomes COMMITTED with the digest, so that a repeated PUT is answered the same.
        """
        ...

    async def mount(
        self, repository: RepositoryName, digest: Digest, *, source: RepositoryName | None, now: datetime
    ) -> BlobRecord | None:
        """Give the repository a blob that `source` (None: any repository) may serve; None where it may not."""
        ...

    async def unlink(self, repository: RepositoryName, digest: Digest, *, now: datetime) -> bool:
        """Take the blob from the repository; its bytes stay for whoever else has it. False if it wasn't there."""
        ...


class InstanceStore(Protocol):
    """What is made once for the whole installation."""

    async def secret(self, name: str) -> bytes:
        """Return 32 random bytes that are made at the first call, the same for every process from then on."""
        ...


class ChangeOrigin(StrEnum):
    """Why a tag moved."""

    PUSH = "push"  # a manifest was pushed to it
    UNTAG = "untag"  # the tag was removed
    DELETE = "delete"  # what it pointed at was removed
    IMPORT = "import"  # it was found so in a tree that another registry had written


@dataclass(frozen=True, slots=True)
class TagChange:
    """A line of the journal of tags: where a tag pointed from then on, None for nowhere, and where before."""

    position: int  # rises with every change of the tag
    digest: Digest | None
    previous: Digest | None
    at: datetime
    origin: ChangeOrigin


class JournalStore(Protocol):
    """Where tags pointed earlier. Every write that moves a tag writes its line in the same transaction."""

    async def tag_changes(
        self, repository: RepositoryName, tag: Tag, *, before: int | None = None, limit: int
    ) -> Sequence[TagChange]:
        """Return up to `limit` changes of a tag, the latest first, those before that position; empty if none."""
        ...


class ImportState(StrEnum):
    """How far taking up a tree has come."""

    NONE = "none"  # nothing was ever taken up
    RUNNING = "running"  # begun and not done: what isn't found in the database may well be in the tree
    DONE = "done"  # all is here; collection still leaves alone what was taken up
    FINISHED = "finished"  # whoever runs this won't go back: collection may touch everything


@dataclass(frozen=True, slots=True)
class ImportStatus:
    """Where the import stands. ``after`` is the last repository that is here whole, while it runs."""

    state: ImportState = ImportState.NONE
    begun_at: datetime | None = None
    done_at: datetime | None = None
    after: str = ""


@dataclass(frozen=True, slots=True)
class FoundBlob:
    """Bytes that were found in storage."""

    digest: Digest
    size: int  # bytes
    key: Key
    at: datetime  # when they were written


@dataclass(frozen=True, slots=True)
class FoundManifest:
    """A manifest that was found in a repository of the tree. What it needs may be missing."""

    manifest: NewManifest
    at: datetime


@dataclass(frozen=True, slots=True)
class FoundTag:
    """A tag of the tree: where it points, since when, and where it pointed earlier, oldest first."""

    tag: Tag
    digest: Digest
    at: datetime
    history: Sequence[tuple[Digest, datetime]] = ()


class ImportStore(Protocol):
    """Takes up what is found in a tree. Everything is idempotent, and what came in otherwise is left as it is."""

    async def status(self) -> ImportStatus:
        """Return where the import stands."""
        ...

    async def set_status(self, status: ImportStatus) -> None:
        """Keep where the import stands."""
        ...

    async def is_empty(self) -> bool:
        """Say whether the database knows of no repository at all."""
        ...

    async def add_blobs(self, blobs: Sequence[FoundBlob]) -> int:
        """Make rows for bytes that have none; return how many were made."""
        ...

    async def add_repository(self, repository: RepositoryName, *, now: datetime) -> None:
        """Make the repository, not listed in the catalog, where there is none."""
        ...

    async def link_blobs(self, repository: RepositoryName, links: Sequence[tuple[Digest, Digest]]) -> Sequence[Digest]:
        """Let the repository serve blobs: each is known by the first digest and its bytes by the second.

        Return those digests of which there are no bytes; they are left out. The repository is there.
        """
        ...

    async def held(self, repository: RepositoryName, digests: Sequence[Digest]) -> AbstractSet[Digest]:
        """Return which of these manifests the repository holds already."""
        ...

    async def add_manifests(self, repository: RepositoryName, manifests: Sequence[FoundManifest]) -> None:
        """Store manifests with all that they refer to, there or not. The repository is there, and listed from now."""
        ...

    async def add_tags(self, repository: RepositoryName, tags: Sequence[FoundTag]) -> Sequence[FoundTag]:
        """Store tags and their journal; return those whose manifest the repository doesn't hold: they are left out.

        A tag that is here already and changed later than the tree says is left where it is.
        """
        ...

    async def add_referrers(self, repository: RepositoryName, subject: Digest, manifests: Sequence[NewManifest]) -> int:
        """Let manifests that name no subject themselves refer to this one; return how many do so now.

        Those that the repository doesn't hold, and those with a subject of their own, are left as they are.
        """
        ...

    async def settle(self, repository: RepositoryName) -> int:
        """Mark references to what the repository hasn't got as optional; return how many there are."""
        ...

    async def drop_manifest_blobs(self) -> int:
        """Remove the rows of blobs that are manifests and nobody's layers: these bytes follow the manifests."""
        ...


class LinkKind(StrEnum):
    """What a link of distribution's tree stands for, in the order in which they may be written."""

    LAYER = "layer"
    MANIFEST = "manifest"
    TAG = "tag"


@dataclass(frozen=True, slots=True)
class LinkChange:
    """A note that a link may not agree with the facts any more. The facts are to be asked, not the note."""

    position: int  # rises; names the note
    repository: RepositoryName
    kind: LinkKind
    name: str  # a digest, or a tag
    digest: Digest | None = None  # where a tag went, at that time


class LinkStore(Protocol):
    """The durable list of links to be written, and the facts that they are to agree with.

    While links are switched on, every transaction that changes what a repository serves, holds or tags writes its
    notes, whatever it is (docs/decisions/0010-links.md).
    """

    async def switch_on(self, *, complete: bool) -> None:
        """Have changes noted from now on; where they weren't and the tree isn't `complete`, note all there is."""
        ...

    async def switch_off(self) -> None:
        """Note no changes any more, and forget those noted."""
        ...

    async def changes(self, *, repository: RepositoryName | None = None, limit: int) -> Sequence[LinkChange]:
        """Return up to `limit` notes, of one repository or of all, oldest first."""
        ...

    async def forget(self, changes: Sequence[LinkChange], *, now: datetime) -> None:
        """Remove notes whose links agree, and remember when that was."""
        ...

    async def last_written(self) -> datetime | None:
        """Return when links were last seen to agree; None if they never were."""
        ...

    async def layer(self, repository: RepositoryName, digest: Digest) -> BlobRecord | None:
        """Return the blob if the repository may serve it."""
        ...

    async def manifest(self, repository: RepositoryName, digest: Digest) -> bytes | None:
        """Return the bytes of a manifest that was pushed to the repository."""
        ...

    async def tag(self, repository: RepositoryName, tag: Tag) -> Digest | None:
        """Return where the tag points."""
        ...

    async def relocate(self, digest: Digest, old: Key, new: Key) -> bool:
        """Note that a blob's bytes lie elsewhere now; False if they weren't at the old place any more."""
        ...
