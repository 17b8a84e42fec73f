"""Blobs and who may serve them (``registry.ports.BlobStore``), and blobs that nobody serves yet.

A blob that collection has condemned isn't served, and comes back to life with the first who brings or mounts it;
one that is being deleted can't any more, and whoever brings it has to wait (design decision 5).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Connection, bindparam, delete, literal_column, select, update

from roadstead.acts import ActKind, Asked
from roadstead.augment.ports import DerivedBlob, LayerRecords
from roadstead.db.access import Access, Query, Step, Upsert
from roadstead.db.moments import to_micros
from roadstead.db.schema import blobs, repositories, repository_blobs
from roadstead.db.stores import repositories as repository_rows
from roadstead.db.stores import uploads as upload_rows
from roadstead.db.stores.acts import write_act
from roadstead.db.stores.immutable import require_untied
from roadstead.db.stores.outbox import Announcer
from roadstead.events.event import UNPROMPTED, Action, Cause, Event, blob_deleted, blob_stored
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.registry.errors import StoreBusyError
from roadstead.registry.immutable import NOTHING_IMMUTABLE, ImmutableTags
from roadstead.registry.ports import BlobRecord, BlobState, BlobStore, UploadRecord
from roadstead.storage.arrivals import MAX_ARRIVAL, Arrival
from roadstead.storage.ports import Key

T = TypeVar("T")

LIVE, CONDEMNED, DELETING = BlobState.LIVE.value, BlobState.CONDEMNED.value, BlobState.DELETING.value

_MICROSECOND = timedelta(microseconds=1)

MAX_IN_LIST = 500
"""Digests in one statement; a database takes tens of thousands of parameters, and slows down before that."""

# Written out, not a parameter: the same in every call.
_IS_LIVE = blobs.c.state == literal_column("'live'")

FIND = Query(
    select(blobs.c.size, blobs.c.storage_key)
    .select_from(repositories)
    .join(repository_blobs, repository_blobs.c.repository_id == repositories.c.id)
    .join(blobs, blobs.c.digest == repository_blobs.c.digest)
    .where(repositories.c.name == bindparam("repository"), repository_blobs.c.digest == bindparam("digest"), _IS_LIVE),
    "repository",
    "digest",
    hot=True,
)
FIND_WITH_LEASE = Query(FIND.statement.add_columns(blobs.c.lease_until), *FIND.names)
FIND_STORED = Query(
    select(blobs.c.size, blobs.c.storage_key).where(blobs.c.digest == bindparam("digest"), _IS_LIVE), "digest"
)
STATE = Query(select(blobs.c.state).where(blobs.c.digest == bindparam("digest")), "digest")

_INSERT = Step(
    Upsert(blobs, lambda insert: insert.on_conflict_do_nothing(index_elements=["digest"]).returning(blobs.c.digest))
)
# The lock keeps collection, which takes a row for itself before it condemns or deletes, away until we are done.
_HOLD = Step(
    select(blobs.c.size, blobs.c.storage_key, blobs.c.state, blobs.c.lease_until)
    .where(blobs.c.digest == bindparam("digest"))
    .with_for_update(read=True, key_share=True)
)
_REVIVE = Step(
    update(blobs)
    .where(blobs.c.digest == bindparam("revived"), blobs.c.state == CONDEMNED)
    .values(state=LIVE, state_since=bindparam("at"))
)
_EXTEND = Step(
    update(blobs)
    .where(blobs.c.digest == bindparam("leased"), blobs.c.lease_until < bindparam("until"))
    .values(lease_until=bindparam("until"))
)
_LINK = Step(
    Upsert(repository_blobs, lambda insert: insert.on_conflict_do_nothing(index_elements=["repository_id", "digest"]))
)
_HELD_BY_ANY = (
    select(repository_blobs.c.repository_id)
    .where(repository_blobs.c.digest == bindparam("digest"))
    .limit(1)
    .with_for_update(read=True, key_share=True)
)
_HELD_BY = _HELD_BY_ANY.where(repository_blobs.c.repository_id == bindparam("repository"))
_HELD_AMONG = Step(
    select(repository_blobs.c.digest, blobs.c.size, blobs.c.state)
    .join(blobs, blobs.c.digest == repository_blobs.c.digest)
    .where(
        repository_blobs.c.repository_id == bindparam("repository"),
        repository_blobs.c.digest.in_(bindparam("digests", expanding=True)),
    )
    .with_for_update(read=True, key_share=True)
)
_UNLINK = delete(repository_blobs).where(
    repository_blobs.c.repository_id == bindparam("repository"), repository_blobs.c.digest == bindparam("digest")
)


@dataclass(frozen=True, slots=True)
class Lease:
    """How long collection leaves a blob alone after somebody was told that it is here; moments in microseconds."""

    lifetime: timedelta

    def until(self, at: int) -> int:
        """Return when a lease given now runs out."""
        return at + self.lifetime // _MICROSECOND

    def is_ample(self, lease_until: int, at: int) -> bool:
        """Say whether more than half of a lease is left, so that it need not be written anew."""
        return lease_until - at > self.lifetime // _MICROSECOND // 2


@dataclass(frozen=True, slots=True)
class HeldBlob:
    """A blob that a repository may serve, as seen inside a transaction."""

    size: int
    state: str


class DatabaseBlobs:
    """`BlobStore` on a database."""

    def __init__(self, access: Access, lease: timedelta, announcer: Announcer) -> None:
        self._access = access
        self._lease = Lease(lease)
        self._announcer = announcer

    async def find(self, repository: RepositoryName, digest: Digest) -> BlobRecord | None:
        """Return the blob if this repository may serve it."""
        row = await self._access.row(FIND, repository.value, str(digest))
        return None if row is None else BlobRecord(digest, row[0], Key(row[1]))

    async def find_stored(self, digest: Digest) -> BlobRecord | None:
        """Return the blob if its bytes are in storage."""
        row = await self._access.row(FIND_STORED, str(digest))
        return None if row is None else BlobRecord(digest, row[0], Key(row[1]))

    async def promise(self, repository: RepositoryName, digest: Digest, *, now: datetime) -> BlobRecord | None:
        """Return the blob if this repository may serve it, leased; written to only where the lease is half over."""
        row = await self._access.row(FIND_WITH_LEASE, repository.value, str(digest))
        if row is None:
            return None
        at = to_micros(now)
        if self._lease.is_ample(row[2], at):
            return BlobRecord(digest, row[0], Key(row[1]))
        return await self._access.write(_promise, repository, digest, self._lease, at)

    async def expect(self, digest: Digest, *, now: datetime) -> Arrival:
        """Return what is known of a digest whose bytes are about to be written."""
        return await _expect(self._access, digest, now)

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
        """Record durable bytes, give the repository the blob, close the session."""

        def describe(_: Connection, stored: BlobRecord) -> Iterable[Event]:
            return (blob_stored(repository, stored.digest, stored.size, cause=cause, at=now),)

        at = to_micros(now)
        return await self._announcer.write(describe, _commit, repository, blob, upload, self._lease, at, arrival)

    async def mount(
        self,
        repository: RepositoryName,
        digest: Digest,
        *,
        source: RepositoryName | None,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> BlobRecord | None:
        """Give the repository a blob that `source` (None: any repository) may serve."""

        def describe(_: Connection, mounted: BlobRecord | None) -> Iterable[Event]:
            if mounted is None:
                return ()
            return (
                blob_stored(
                    repository, digest, mounted.size, cause=cause, at=now, action=Action.MOUNT, mounted_from=source
                ),
            )

        return await self._announcer.write(describe, _mount, repository, digest, source, self._lease, to_micros(now))

    async def unlink(
        self,
        repository: RepositoryName,
        digest: Digest,
        *,
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> bool:
        """Take the blob from the repository."""

        def describe(_: Connection, was_there: bool) -> Iterable[Event]:  # noqa: FBT001 - an intention's result
            return (blob_deleted(repository, digest, cause=cause, at=now),) if was_there else ()

        return await self._announcer.write(describe, _unlinked, repository, digest, immutable, cause.asked)


def _unlinked(
    connection: Connection, repository: RepositoryName, digest: Digest, immutable: ImmutableTags, asked: Asked | None
) -> bool:
    if not _unlink(connection, repository, digest, immutable):
        return False
    write_act(connection, asked, ActKind.BLOB_DELETE, f"{repository}@{digest}")
    return True


class DatabaseLayers:
    """`LayerRecords` on a database."""

    def __init__(self, access: Access, lease: timedelta) -> None:
        self._access = access
        self._lease = Lease(lease)

    async def find(self, digest: Digest) -> DerivedBlob | None:
        """Return the blob if its bytes are stored."""
        row = await self._access.row(FIND_STORED, str(digest))
        return None if row is None else DerivedBlob(digest, row[0], Key(row[1]))

    async def keep(self, digest: Digest, *, now: datetime) -> DerivedBlob | None:
        """Return the blob if its bytes are stored, leased."""
        stored = await self._access.write(_hold_alive, digest, self._lease, to_micros(now))
        return None if stored is None else DerivedBlob(digest, stored.size, stored.key)

    async def expect(self, digest: Digest, *, now: datetime) -> Arrival:
        """Return what is known of a digest whose bytes are about to be written."""
        return await _expect(self._access, digest, now)

    async def remember(self, blob: DerivedBlob, *, now: datetime, arrival: Arrival | None = None) -> DerivedBlob:
        """Record durable bytes."""
        record = BlobRecord(blob.digest, blob.size, blob.key)
        stored = await self._access.write(remember, record, self._lease, to_micros(now), arrival)
        return DerivedBlob(stored.digest, stored.size, stored.key)


async def _expect(access: Access, digest: Digest, now: datetime) -> Arrival:
    row = await access.row(STATE, str(digest))
    if row is not None and row[0] == DELETING:
        raise _being_deleted(digest)
    return Arrival(known=row is not None, at=now)


def remember(
    connection: Connection, blob: BlobRecord, lease: Lease, at: int, arrival: Arrival | None = None
) -> BlobRecord:
    """Make the row of durable bytes, or return the one that is there, alive again if it was condemned.

    Raises StoreBusyError where collection may have removed the bytes since `arrival`.
    """
    new = {
        "digest": str(blob.digest),
        "size": blob.size,
        "storage_key": blob.key,
        "state": LIVE,
        "state_since": at,
        "lease_until": lease.until(at),
        "created_at": at,
    }
    if _INSERT.first(connection, new) is not None:
        if arrival is not None and (arrival.known or at > to_micros(arrival.at + MAX_ARRIVAL)):
            raise StoreBusyError(f"{blob.digest} was collected while it was pushed; push it again")
        return blob
    stored = _hold_alive(connection, blob.digest, lease, at)
    if stored is None:  # it was there a moment ago
        raise _being_deleted(blob.digest)
    return stored


def link(connection: Connection, number: int, digests: Iterable[Digest]) -> None:
    """Let a repository serve these blobs; those it may serve already stay."""
    _LINK.each(connection, [{"repository_id": number, "digest": str(digest)} for digest in digests])


def held_among(connection: Connection, number: int, digests: Sequence[Digest]) -> dict[Digest, HeldBlob]:
    """Return which of these a repository may serve; no unlink and no collection crosses what follows."""
    held: dict[Digest, HeldBlob] = {}
    by_text = {str(digest): digest for digest in digests}
    for part in parts(by_text):
        for text, size, state in _HELD_AMONG.rows(connection, {"repository": number, "digests": part}):
            held[by_text[text]] = HeldBlob(size, state)
    return held


def parts(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield lists short enough for one statement."""
    rest = iter(items)
    while part := list(islice(rest, MAX_IN_LIST)):
        yield part


def revive(connection: Connection, digests: Iterable[Digest], at: int) -> None:
    """Bring condemned blobs back to life."""
    _REVIVE.each(connection, [{"revived": str(digest), "at": at} for digest in digests])


def _commit(
    connection: Connection,
    repository: RepositoryName,
    blob: BlobRecord,
    upload: UploadRecord | None,
    lease: Lease,
    at: int,
    arrival: Arrival | None,
) -> BlobRecord:
    if upload is not None:
        upload_rows.close(connection, upload, blob.digest, at)
    stored = remember(connection, blob, lease, at, arrival)
    link(connection, repository_rows.make(connection, repository, at), [blob.digest])
    return stored


def _mount(
    connection: Connection,
    repository: RepositoryName,
    digest: Digest,
    source: RepositoryName | None,
    lease: Lease,
    at: int,
) -> BlobRecord | None:
    if not _is_held(connection, digest, source):
        return None
    stored = _hold_alive(connection, digest, lease, at)
    if stored is not None:
        link(connection, repository_rows.make(connection, repository, at), [digest])
    return stored


def _is_held(connection: Connection, digest: Digest, by: RepositoryName | None) -> bool:
    """Say whether a repository (None: any) may serve the blob; no unlink crosses what follows."""
    arguments: dict[str, object] = {"digest": str(digest)}
    if by is None:
        return connection.execute(_HELD_BY_ANY, arguments).first() is not None
    arguments["repository"] = repository_rows.find(connection, by)
    return connection.execute(_HELD_BY, arguments).first() is not None


def _promise(
    connection: Connection, repository: RepositoryName, digest: Digest, lease: Lease, at: int
) -> BlobRecord | None:
    if not _is_held(connection, digest, repository):
        return None
    row = _HOLD.first(connection, {"digest": str(digest)})
    if row is None:
        return None
    size, storage_key, state, lease_until = row
    if state != LIVE:  # it isn't served any more: whoever wants it back brings it
        return None
    _extend(connection, digest, lease_until, lease, at)
    return BlobRecord(digest, size, Key(storage_key))


def _unlink(connection: Connection, repository: RepositoryName, digest: Digest, immutable: ImmutableTags) -> bool:
    # Where tags may hold it fast no push of one may cross us.
    find = repository_rows.have_alone if immutable.patterns else repository_rows.find
    number = find(connection, repository)
    if number is None:
        return False
    require_untied(connection, repository, number, str(digest), immutable)
    return connection.execute(_UNLINK, {"repository": number, "digest": str(digest)}).rowcount == 1


def _hold_alive(connection: Connection, digest: Digest, lease: Lease, at: int) -> BlobRecord | None:
    row = _HOLD.first(connection, {"digest": str(digest)})
    if row is None:
        return None
    size, storage_key, state, lease_until = row
    if state == DELETING:
        raise _being_deleted(digest)
    if state == CONDEMNED:
        revive(connection, [digest], at)
    _extend(connection, digest, lease_until, lease, at)
    return BlobRecord(digest, size, Key(storage_key))


def _extend(connection: Connection, digest: Digest, lease_until: int, lease: Lease, at: int) -> None:
    if not lease.is_ample(lease_until, at):
        _EXTEND.count(connection, {"leased": str(digest), "until": lease.until(at)})


def _being_deleted(digest: Digest) -> StoreBusyError:
    return StoreBusyError(f"the bytes of {digest} are being removed from storage; try again")


if TYPE_CHECKING:
    _blobs: type[BlobStore] = DatabaseBlobs
    _layers: type[LayerRecords] = DatabaseLayers
