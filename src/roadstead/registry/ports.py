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

from roadstead.events.event import UNPROMPTED, Cause
from roadstead.oci.digest import Algorithm, Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.immutable import NOTHING_IMMUTABLE, ImmutableTags
from roadstead.storage.arrivals import Arrival
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

    ``optional`` content is recorded but need not be there: non-distributable layers, and what a sparse registry lacks.
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
    ``none_match``: the tag may be at none of these.
    """

    match: frozenset[Digest] = frozenset()
    any_existing: bool = False  # If-Match: *
    absent: bool = False  # If-None-Match: *
    none_match: frozenset[Digest] = frozenset()


@dataclass(frozen=True, slots=True)
class ReferrerRecord:
    """One line of the referrers API: a manifest that names the subject."""

    digest: Digest
    media_type: str
    size: int
    artifact_type: str | None
    annotations: Mapping[str, str]


class ChangeOrigin(StrEnum):
    """Why a tag moved."""

    PUSH = "push"  # a manifest was pushed to it
    UNTAG = "untag"  # the tag was removed
    DELETE = "delete"  # what it pointed at was removed
    RESTORE = "restore"  # it was put back to where it was earlier
    RETENTION = "retention"  # a retention rule removed it
    IMPORT = "import"  # it was found so in a tree that another registry had written


class ManifestStore(Protocol):
    """Manifests and tags of repositories.

    Each change is told of in its own transaction to whoever wants to hear, with the `cause` that it had.
    """

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
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> None:
        """Store a manifest, point the tags at it, write their journal: all or nothing; idempotent.

        The repository comes to be with its first manifest or blob. What the manifest references must be in this
        repository, blobs live and of the declared size, children as manifests: else ManifestBlobUnknownError with
        every digest that is missing, or DescriptorSizeError. The condition is checked in the same transaction
        against each tag: TagConditionError. So is whether the tag may move: TagImmutableError.
        """
        ...

    async def restore(
        self,
        repository: RepositoryName,
        tag: Tag,
        digest: Digest,
        *,
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> bool:
        """Point a tag at a manifest that the repository holds, and note it; False if it doesn't hold it.

        Raises TagImmutableError.
        """
        ...

    async def delete(
        self,
        repository: RepositoryName,
        digest: Digest,
        *,
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> Sequence[Tag] | None:
        """Remove a manifest and every tag at it; return those tags, or None if it wasn't there.

        A digest that was derived from a source (augmentation) stands for its source: the source goes, with its tags
        and all that was derived from it. TagImmutableError while an immutable tag is at the manifest, or at an index
        that lists it, directly or through others.
        """
        ...

    async def delete_tag(
        self,
        repository: RepositoryName,
        tag: Tag,
        *,
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> bool:
        """Remove a tag, not what it points at; False if it wasn't there. Raises TagImmutableError."""
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


class LineageStore(Protocol):
    """What manifests of a repository come from, and what was made here about them."""

    async def made_from(self, repository: RepositoryName, digest: Digest) -> Sequence[Digest]:
        """Return the indexes that list a manifest and what it was derived from, ascending; if any."""
        ...

    async def latest(self, repository: RepositoryName, source: Digest) -> Digest | None:
        """Return what was derived from a manifest last, of what is still there; None if nothing is."""
        ...

    async def attached(self, repository: RepositoryName, subject: Digest, artifact_type: str) -> Digest | None:
        """Return the latest manifest of a type that was made here about a derived one; None if there is none."""
        ...


class UploadState(StrEnum):
    """Where an upload session stands."""

    OPEN = "open"
    COMMITTED = "committed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRecord:
    """An upload session as the database keeps it between requests (design decision 4).

    There is no row before the first byte is durable: ``version`` 0 means "not stored yet". A short upload's bytes
    are ``held`` in the row itself; once there are too many for that, all of them are staged in storage.
    """

    upload_id: str
    repository: RepositoryName
    state: UploadState = UploadState.OPEN
    staged: Staged = field(default_factory=Staged)
    held: bytes = field(default=b"", repr=False)  # every byte there is, while nothing is staged
    algorithm: Algorithm = Algorithm.SHA256
    digest_so_far: str = ""  # hex of the bytes up to staged.size; empty where nothing was hashed
    hash_state: bytes | None = None  # exported state at staged.size, or None: then read again
    committed: Digest | None = None
    version: int = 0
    started_at: datetime
    cause: Cause = UNPROMPTED  # the request that works on it now; not kept

    @property
    def size(self) -> int:
        """Return how many bytes are durable."""
        return self.staged.size + len(self.held)


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
    """Which blobs exist, and which repository may serve which (membership).

    Whatever tells a client that a blob is here gives it a lease: collection leaves it alone until that has run out
    (design decision 5). Each change is told of in its own transaction, with the `cause` that it had.
    """

    async def find(self, repository: RepositoryName, digest: Digest) -> BlobRecord | None:
        """Return the blob if this repository may serve it."""
        ...

    async def find_stored(self, digest: Digest) -> BlobRecord | None:
        """Return the blob if its bytes are in storage, whoever may serve them: to check them, never to answer."""
        ...

    async def promise(self, repository: RepositoryName, digest: Digest, *, now: datetime) -> BlobRecord | None:
        """Return the blob as `find` does, for a client that will rely on it: at least half a lease is left to it."""
        ...

    async def expect(self, digest: Digest, *, now: datetime) -> Arrival:
        """Return what is known of a digest whose bytes are about to be written under the digest's own key.

        Raises StoreBusyError while its bytes are being removed.
        """
        ...

    async def commit(
        self,
        repository: RepositoryName,
        blob: BlobRecord,
        *,
        upload: UploadRecord | None,
        now: datetime,
        arrival: Arrival | None = None,
        cause: Cause = UNPROMPTED,
    ) -> BlobRecord:
        """Record durable bytes, give the repository the blob, close the session: one transaction.

        Where the digest is stored already its row stays as it is and is returned: the caller then drops its copy.
        The session's row becomes COMMITTED with the digest, so that a repeated PUT is answered the same. `arrival` is
        None for bytes under a key that is theirs alone. Raises StoreBusyError where collection came between, so that
        nobody knows whether the bytes are still there.
        """
        ...

    async def mount(
        self,
        repository: RepositoryName,
        digest: Digest,
        *,
        source: RepositoryName | None,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> BlobRecord | None:
        """Give the repository a blob that `source` (None: any repository) may serve; None where it may not."""
        ...

    async def unlink(
        self,
        repository: RepositoryName,
        digest: Digest,
        *,
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> bool:
        """Take the blob from the repository; its bytes stay for whoever else has it. False if it wasn't there.

        TagImmutableError while an immutable tag is at a manifest that needs it, or at an index that such a one is in.
        """
        ...


class InstanceStore(Protocol):
    """What is made once for the whole installation."""

    async def secret(self, name: str) -> bytes:
        """Return 32 random bytes that are made at the first call, the same for every process from then on."""
        ...


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

    async def tag_change_at(self, repository: RepositoryName, tag: Tag, moment: datetime) -> TagChange | None:
        """Return the latest line of a tag's journal that isn't younger than `moment`; None if there is none."""
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
    notes, whatever it is (docs/decisions/0011-links.md).
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


class BlobState(StrEnum):
    """Where a blob stands on its way out (design decision 5). Only live ones are served."""

    LIVE = "live"
    CONDEMNED = "condemned"  # nothing refers to it; whoever brings or mounts it brings it back
    DELETING = "deleting"  # its bytes are being removed; nothing brings it back, a new one follows it


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobFacts:
    """What decides about a blob. Facts age: what is done upon them is decided again where it is done."""

    digest: Digest
    size: int  # bytes
    state: BlobState
    since: datetime  # of this state
    lease_until: datetime
    referenced: bool  # by a manifest of some repository, pushed or derived
    idle_link: bool  # some repository may serve it and has no manifest that needs it


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFacts:
    """What decides about a manifest in a repository."""

    position: tuple[int, str]  # where to go on behind it
    repository: RepositoryName
    digest: Digest
    size: int
    tagged: bool
    listed: bool  # an index of the repository names it
    subject_here: bool  # it refers to a subject that the repository holds
    derived: bool  # made by augmentation
    source_here: bool  # a source that it was derived from is still there
    since: datetime  # when it was pushed, or lost a tag, whichever was later


@dataclass(frozen=True, slots=True)
class DoomedBlob:
    """A blob in state `deleting`: its bytes are to be removed by whoever took it, and its row then."""

    digest: Digest
    size: int
    key: Key
    since: datetime  # when it was taken: who takes it later has another


@dataclass(frozen=True, slots=True)
class TagAge:
    """A tag, what it is at, and since when."""

    tag: Tag
    digest: Digest
    since: datetime


class CollectionStore(Protocol):
    """What collection reads and does (``registry.gc``).

    Reads are pages by key and say what was true then. Every write looks again, under the lock of each row it
    changes: what a push, a mount or a lease has saved meanwhile is left alone. Rows that others hold are passed over.
    """

    async def blobs(self, *, after: str, limit: int) -> Sequence[BlobFacts]:
        """Return up to `limit` blobs, digests greater than `after`, ascending."""
        ...

    async def needed_by(self, digest: Digest) -> tuple[RepositoryName, Digest] | None:
        """Return a manifest that needs the blob, to explain why it stays; the first by repository and digest."""
        ...

    async def condemn(self, digests: Sequence[Digest], *, now: datetime) -> Sequence[Digest]:
        """Review live blobs whose lease has run out; return which became condemned.

        Repositories that have no manifest that needs such a blob may serve it no more; if none is left, and no
        manifest anywhere refers to it, it is condemned.
        """
        ...

    async def take_doomed(
        self, *, condemned_before: datetime, abandoned_before: datetime, limit: int, now: datetime
    ) -> Sequence[DoomedBlob]:
        """Take up to `limit` blobs for deletion; from then on nothing brings them back.

        Condemned ones, of that state since `condemned_before` or earlier and without a lease, and ones that somebody
        took before `abandoned_before` and never finished. A condemned blob that is needed again is live again.
        """
        ...

    async def forget(self, doomed: Sequence[DoomedBlob]) -> int:
        """Remove rows of blobs whose bytes are gone; return how many. One that somebody else has taken stays.

        No repository may serve such a blob any more.
        """
        ...

    async def take_damaged(self, blob: BlobRecord, *, now: datetime) -> DoomedBlob | None:
        """Take a live blob for deletion, needed or not: its bytes aren't what they should be. None if it changed."""
        ...

    async def spare(self, doomed: DoomedBlob, *, now: datetime) -> bool:
        """Bring back what was taken: its bytes were right after all. False if somebody else has taken it."""
        ...

    async def unused(self, found: Sequence[Key]) -> Sequence[Key]:
        """Return those of the keys that no blob lies under, and that no open upload may still be published to.

        The last component of such a key is the upload's id.
        """
        ...

    async def adopt(self, strays: Sequence[BlobRecord], *, lease_until: datetime, now: datetime) -> int:
        """Make rows, condemned, for bytes in storage that have none; return how many were made."""
        ...

    async def tag_ages(self, repository: RepositoryName, *, after: str, limit: int) -> Sequence[TagAge]:
        """Return up to `limit` tags greater than `after` bytewise, ascending."""
        ...

    async def expire_tag(self, repository: RepositoryName, tag: TagAge, *, now: datetime) -> bool:
        """Remove a tag and note it; False if it moved since, or is gone."""
        ...

    async def manifests(self, *, after: tuple[int, str], limit: int) -> Sequence[ManifestFacts]:
        """Return up to `limit` manifests behind the position, a repository at a time; (0, "") is the start."""
        ...

    async def collect_manifest(
        self, repository: RepositoryName, digest: Digest, *, idle_since: datetime, now: datetime
    ) -> bool:
        """Remove a manifest, with all that was derived from it, if nothing has needed it since that moment.

        Looks again first: no tag, no index that names it, no subject here, pushed and last tagged before
        `idle_since`; of a derived one, no source.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldManifest:
    """A manifest as a repository holds it, with its bytes: for checking."""

    position: tuple[int, str]
    repository: RepositoryName
    digest: Digest
    media_type: str
    size: int
    subject: Digest | None
    derived: bool
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenReference:
    """What a manifest needs and its repository doesn't hold."""

    repository: RepositoryName
    manifest: Digest
    digest: Digest
    kind: ReferenceKind
    stored: bool  # the bytes are there; only this repository may not serve them


@dataclass(frozen=True, slots=True, kw_only=True)
class TagFacts:
    """A tag, what it points at, and what its journal says it points at."""

    position: tuple[int, str]
    repository: RepositoryName
    tag: Tag
    digest: Digest
    manifest_here: bool
    journal: Digest | None


ReferencePosition = tuple[int, str, str, str]
"""Where a page of references goes on: repository, manifest, kind, digest."""


class AuditStore(Protocol):
    """What checking reads of a database (``registry.verify``), in pages by key, and the one thing it mends there."""

    async def live_blobs(self, *, after: str, limit: int) -> Sequence[BlobRecord]:
        """Return up to `limit` live blobs, digests greater than `after`, ascending."""
        ...

    async def held_manifests(self, *, after: tuple[int, str], limit: int) -> Sequence[HeldManifest]:
        """Return up to `limit` manifests behind the position; (0, "") is the start."""
        ...

    async def broken_references(
        self, *, after: ReferencePosition, limit: int
    ) -> tuple[Sequence[BrokenReference], ReferencePosition | None]:
        """Look at `limit` references; return which are broken, and where to go on, None at the end."""
        ...

    async def tag_facts(self, *, after: tuple[int, str], limit: int) -> Sequence[TagFacts]:
        """Return up to `limit` tags behind the position; (0, "") is the start."""
        ...

    async def unknown(self, digests: Sequence[Digest]) -> Sequence[Digest]:
        """Return those of the digests that have no row."""
        ...

    async def relink(self, repository: RepositoryName, digest: Digest, *, now: datetime) -> bool:
        """Let a repository serve a blob again that one of its manifests needs; False if it isn't live or needed."""
        ...
