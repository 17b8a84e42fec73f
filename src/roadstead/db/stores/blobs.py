"""Blobs and who may serve them (``registry.ports.BlobStore``), and blobs that nobody serves yet.

A blob that collection has condemned isn't served, and comes back to life with the first who brings or mounts it;
one that is being deleted can't any more, and whoever brings it has to wait (design decision 5).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, delete, literal_column, select, update

from roadstead.augment.ports import DerivedBlob, LayerRecords
from roadstead.db.access import Access, Query, Upsert
from roadstead.db.moments import to_micros
from roadstead.db.schema import blobs, repositories, repository_blobs
from roadstead.db.stores import repositories as repository_rows
from roadstead.db.stores import uploads as upload_rows
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.registry.errors import StoreBusyError
from roadstead.registry.ports import BlobRecord, BlobStore, UploadRecord
from roadstead.storage.ports import Key

LIVE, CONDEMNED, DELETING = "live", "condemned", "deleting"

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
)
FIND_STORED = Query(
    select(blobs.c.size, blobs.c.storage_key).where(blobs.c.digest == bindparam("digest"), _IS_LIVE), "digest"
)

_INSERT = Upsert(
    blobs, lambda insert: insert.on_conflict_do_nothing(index_elements=["digest"]).returning(blobs.c.digest)
)
# The lock keeps collection, which takes a row for itself before it condemns or deletes, away until we are done.
_HOLD = (
    select(blobs.c.size, blobs.c.storage_key, blobs.c.state)
    .where(blobs.c.digest == bindparam("digest"))
    .with_for_update(read=True, key_share=True)
)
_REVIVE = (
    update(blobs)
    .where(blobs.c.digest == bindparam("revived"), blobs.c.state == CONDEMNED)
    .values(state=LIVE, state_since=bindparam("at"))
)
_LINK = Upsert(
    repository_blobs, lambda insert: insert.on_conflict_do_nothing(index_elements=["repository_id", "digest"])
)
_HELD_BY_ANY = (
    select(repository_blobs.c.repository_id)
    .where(repository_blobs.c.digest == bindparam("digest"))
    .limit(1)
    .with_for_update(read=True, key_share=True)
)
_HELD_BY = _HELD_BY_ANY.where(repository_blobs.c.repository_id == bindparam("repository"))
_HELD_AMONG = (
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
class HeldBlob:
    """A blob that a repository may serve, as seen inside a transaction."""

    size: int
    state: str


class DatabaseBlobs:
    """`BlobStore` on a database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def find(self, repository: RepositoryName, digest: Digest) -> BlobRecord | None:
        """Return the blob if this repository may serve it."""
        row = await self._access.row(FIND, repository.value, str(digest))
        return None if row is None else BlobRecord(digest, row[0], Key(row[1]))

    async def commit(
        self, repository: RepositoryName, blob: BlobRecord, *, upload: UploadRecord | None, now: datetime
    ) -> BlobRecord:
        """Record durable bytes, give the repository the blob, close the session."""
        return await self._access.write(_commit, repository, blob, upload, to_micros(now))

    async def mount(
        self, repository: RepositoryName, digest: Digest, *, source: RepositoryName | None, now: datetime
    ) -> BlobRecord | None:
        """Give the repository a blob that `source` (None: any repository) may serve."""
        return await self._access.write(_mount, repository, digest, source, to_micros(now))

    async def unlink(self, repository: RepositoryName, digest: Digest, *, now: datetime) -> bool:
        """Take the blob from the repository."""
        return await self._access.write(_unlink, repository, digest)


class DatabaseLayers:
    """`LayerRecords` on a database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def find(self, digest: Digest) -> DerivedBlob | None:
        """Return the blob if its bytes are stored."""
        row = await self._access.row(FIND_STORED, str(digest))
        return None if row is None else DerivedBlob(digest, row[0], Key(row[1]))

    async def remember(self, blob: DerivedBlob, *, now: datetime) -> DerivedBlob:
        """Record durable bytes."""
        stored = await self._access.write(remember, BlobRecord(blob.digest, blob.size, blob.key), to_micros(now))
        return DerivedBlob(stored.digest, stored.size, stored.key)


def remember(connection: Connection, blob: BlobRecord, at: int) -> BlobRecord:
    """Make the row of durable bytes, or return the one that is there, alive again if it was condemned."""
    new = {
        "digest": str(blob.digest),
        "size": blob.size,
        "storage_key": blob.key,
        "state": LIVE,
        "state_since": at,
        "lease_until": 0,
        "created_at": at,
    }
    if connection.execute(_INSERT.on(connection), new).first() is not None:
        return blob
    stored = _hold_alive(connection, blob.digest, at)
    if stored is None:  # it was there a moment ago
        raise _being_deleted(blob.digest)
    return stored


def link(connection: Connection, number: int, digests: Iterable[Digest]) -> None:
    """Let a repository serve these blobs; those it may serve already stay."""
    rows = [{"repository_id": number, "digest": str(digest)} for digest in digests]
    if rows:
        connection.execute(_LINK.on(connection), rows)


def held_among(connection: Connection, number: int, digests: Sequence[Digest]) -> dict[Digest, HeldBlob]:
    """Return which of these a repository may serve; no unlink and no collection crosses what follows."""
    held: dict[Digest, HeldBlob] = {}
    by_text = {str(digest): digest for digest in digests}
    for part in parts(by_text):
        for text, size, state in connection.execute(_HELD_AMONG, {"repository": number, "digests": part}):
            held[by_text[text]] = HeldBlob(size, state)
    return held


def parts(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield lists short enough for one statement."""
    rest = iter(texts)
    while part := list(islice(rest, MAX_IN_LIST)):
        yield part


def revive(connection: Connection, digests: Iterable[Digest], at: int) -> None:
    """Bring condemned blobs back to life."""
    rows = [{"revived": str(digest), "at": at} for digest in digests]
    if rows:
        connection.execute(_REVIVE, rows)


def _commit(
    connection: Connection, repository: RepositoryName, blob: BlobRecord, upload: UploadRecord | None, at: int
) -> BlobRecord:
    if upload is not None:
        upload_rows.close(connection, upload, blob.digest, at)
    stored = remember(connection, blob, at)
    link(connection, repository_rows.make(connection, repository, at), [blob.digest])
    return stored


def _mount(
    connection: Connection, repository: RepositoryName, digest: Digest, source: RepositoryName | None, at: int
) -> BlobRecord | None:
    arguments: dict[str, object] = {"digest": str(digest)}
    if source is None:
        statement = _HELD_BY_ANY
    else:
        statement = _HELD_BY
        arguments["repository"] = repository_rows.find(connection, source)
    if connection.execute(statement, arguments).first() is None:
        return None
    stored = _hold_alive(connection, digest, at)
    if stored is not None:
        link(connection, repository_rows.make(connection, repository, at), [digest])
    return stored


def _unlink(connection: Connection, repository: RepositoryName, digest: Digest) -> bool:
    number = repository_rows.find(connection, repository)
    if number is None:
        return False
    return connection.execute(_UNLINK, {"repository": number, "digest": str(digest)}).rowcount == 1


def _hold_alive(connection: Connection, digest: Digest, at: int) -> BlobRecord | None:
    row = connection.execute(_HOLD, {"digest": str(digest)}).first()
    if row is None:
        return None
    if row.state == DELETING:
        raise _being_deleted(digest)
    if row.state == CONDEMNED:
        revive(connection, [digest], at)
    return BlobRecord(digest, row.size, Key(row.storage_key))


def _being_deleted(digest: Digest) -> StoreBusyError:
    return StoreBusyError(f"the bytes of {digest} are being removed from storage; try again")


if TYPE_CHECKING:
    _blobs: type[BlobStore] = DatabaseBlobs
    _layers: type[LayerRecords] = DatabaseLayers
