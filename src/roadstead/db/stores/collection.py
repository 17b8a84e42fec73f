"""What collection reads and does (``registry.ports.CollectionStore``).

Reads run without locks, in pages small enough for any time limit. A write takes the rows it changes for itself first
(``FOR UPDATE``: it excludes the key-share locks that pushes and mounts hold) and asks its questions in statements
that follow, which see what was committed before the lock was had. Rows that a client holds are passed over, so that
collection waits for nobody. SQLite has one writer at a time and needs no locks.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import (
    BindParameter,
    Connection,
    Integer,
    and_,
    bindparam,
    delete,
    exists,
    false,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)

from roadstead.db.access import Access, Query, Row, Upsert
from roadstead.db.moments import from_micros, to_micros
from roadstead.db.schema import (
    blobs,
    derivation_manifests,
    manifest_references,
    manifests,
    repositories,
    repository_blobs,
    tag_journal,
    tags,
    uploads,
)
from roadstead.db.stores import manifests as manifest_rows
from roadstead.db.stores import repositories as repository_rows
from roadstead.db.stores.blobs import CONDEMNED, DELETING, LIVE, MAX_IN_LIST, parts
from roadstead.db.stores.outbox import Announcer
from roadstead.events.event import UNPROMPTED, Event, tag_deleted
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.ports import (
    BlobFacts,
    BlobRecord,
    BlobState,
    ChangeOrigin,
    CollectionStore,
    DoomedBlob,
    ManifestFacts,
    ReferenceKind,
    TagAge,
    UploadState,
)
from roadstead.storage.ports import Key

_LIMIT = bindparam("limit", type_=Integer)
_NEEDS_BLOB = manifest_references.c.kind != ReferenceKind.CHILD.value

# What EXISTS selects is named, so that an index can answer it alone: SQLite, which has no statistics here, would
# otherwise read all references of a repository for each of its blobs.
_LINK_OF_REFERENCE = exists(repository_blobs.c.digest).where(
    repository_blobs.c.repository_id == manifest_references.c.repository_id,
    repository_blobs.c.digest == manifest_references.c.digest,
)
# What a manifest may do without counts where its repository has it.
_NEEDED_BY_SOME = exists(manifest_references.c.digest).where(
    manifest_references.c.digest == blobs.c.digest,
    _NEEDS_BLOB,
    or_(manifest_references.c.optional.is_(false()), _LINK_OF_REFERENCE),
)
# The bytes of a manifest that was pushed may lie among the blobs, for distribution to find (registry.links).
_IS_MANIFEST = exists(manifests.c.digest).where(manifests.c.digest == blobs.c.digest, manifests.c.derived.is_(false()))
_aliases = blobs.alias("aliases")
# The bytes may be known by their sha512, too (db.schema); that row goes first, and leaves them.
_IS_KNOWN_OTHERWISE = exists(_aliases.c.digest).where(
    _aliases.c.storage_key == blobs.c.storage_key,
    _aliases.c.digest >= literal_column("'sha512:'"),
    _aliases.c.digest != blobs.c.digest,
    blobs.c.digest < literal_column("'sha512:'"),
)
_REFERENCED = or_(_NEEDED_BY_SOME, _IS_MANIFEST, _IS_KNOWN_OTHERWISE)
_LINKED = exists(repository_blobs.c.digest).where(repository_blobs.c.digest == blobs.c.digest)
_IS_IDLE = ~exists(manifest_references.c.digest).where(
    manifest_references.c.digest == repository_blobs.c.digest,
    manifest_references.c.repository_id == repository_blobs.c.repository_id,
    _NEEDS_BLOB,
)
_IDLE_LINK = exists(repository_blobs.c.digest).where(repository_blobs.c.digest == blobs.c.digest, _IS_IDLE)

BLOBS = Query(
    select(
        blobs.c.digest,
        blobs.c.size,
        blobs.c.state,
        blobs.c.state_since,
        blobs.c.lease_until,
        _REFERENCED,
        _IDLE_LINK,
    )
    .where(blobs.c.digest > bindparam("after"))
    .order_by(blobs.c.digest)
    .limit(_LIMIT),
    "after",
    "limit",
)
NEEDED_BY = Query(
    select(repositories.c.name, manifest_references.c.manifest)
    .join(repositories, repositories.c.id == manifest_references.c.repository_id)
    .where(manifest_references.c.digest == bindparam("digest"), _NEEDS_BLOB)
    .order_by(repositories.c.name, manifest_references.c.manifest)
    .limit(1),
    "digest",
)

_THESE = blobs.c.digest.in_(bindparam("digests", expanding=True))
_REVIEWED = (
    select(blobs.c.digest)
    .where(_THESE, blobs.c.state == LIVE, blobs.c.lease_until <= bindparam("now"))
    .order_by(blobs.c.digest)
    .with_for_update(skip_locked=True)
)
_UNLINK_IDLE = delete(repository_blobs).where(
    repository_blobs.c.digest.in_(bindparam("digests", expanding=True)), _IS_IDLE
)
_CONDEMN = (
    update(blobs)
    .where(_THESE, ~_LINKED, ~_REFERENCED)
    .values(state=CONDEMNED, state_since=bindparam("now"))
    .returning(blobs.c.digest)
)

_DYING = select(blobs.c.digest, blobs.c.size, blobs.c.storage_key)
# The states are written out: only so does PostgreSQL know that the index of dying blobs is enough.
_DUE = (
    _DYING.where(
        blobs.c.state == literal_column(f"'{CONDEMNED}'"),
        blobs.c.state_since <= bindparam("before"),
        blobs.c.lease_until <= bindparam("now"),
    )
    .order_by(blobs.c.state_since)
    .limit(_LIMIT)
    .with_for_update(skip_locked=True)
)
_ABANDONED = (
    _DYING.where(blobs.c.state == literal_column(f"'{DELETING}'"), blobs.c.state_since <= bindparam("before"))
    .order_by(blobs.c.state_since)
    .limit(_LIMIT)
    .with_for_update(skip_locked=True)
)
_REVIVE_NEEDED = (
    update(blobs)
    .where(_THESE, or_(_LINKED, _REFERENCED))
    .values(state=LIVE, state_since=bindparam("now"))
    .returning(blobs.c.digest)
)
_TAKE = update(blobs).where(_THESE).values(state=DELETING, state_since=bindparam("now"))
_FORGET = delete(blobs).where(_THESE)
_TAKEN = (
    select(blobs.c.digest, blobs.c.state_since)
    .where(_THESE, blobs.c.state == DELETING)
    .order_by(blobs.c.digest)
    .with_for_update()
)
_UNLINK_ALL = delete(repository_blobs).where(repository_blobs.c.digest.in_(bindparam("digests", expanding=True)))
_AS_KNOWN = (
    select(blobs.c.digest)
    .where(blobs.c.digest == bindparam("digest"), blobs.c.state == LIVE, blobs.c.storage_key == bindparam("key"))
    .with_for_update()
)
_SPARE = update(blobs).where(_THESE).values(state=LIVE, state_since=bindparam("now"))
_AMONG = tuple(f"digest_{number}" for number in range(MAX_IN_LIST))
_ONES: list[BindParameter[str]] = [bindparam(name) for name in _AMONG]
HELD_BLOBS = Query(select(blobs.c.digest).where(blobs.c.digest.in_(_ONES)), *_AMONG)
HELD_MANIFESTS = Query(  # their bytes have no row among the blobs
    select(manifests.c.digest).where(manifests.c.digest.in_(_ONES), manifests.c.derived.is_(false())).distinct(),
    *_AMONG,
)
_SCANNED_FOR = 10_000
_LIE_AMONG = select(blobs.c.storage_key).where(blobs.c.storage_key.in_(bindparam("keys", expanding=True)))
_OPEN_AMONG = select(uploads.c.upload_id).where(
    uploads.c.upload_id.in_(bindparam("uploads", expanding=True)), uploads.c.state == UploadState.OPEN.value
)
_ADOPT = Upsert(
    blobs, lambda insert: insert.on_conflict_do_nothing(index_elements=["digest"]).returning(blobs.c.digest)
)

_TAGGED = exists(tags.c.digest).where(
    tags.c.repository_id == manifests.c.repository_id, tags.c.digest == manifests.c.digest
)
_LISTED = exists(manifest_references.c.digest).where(
    manifest_references.c.digest == manifests.c.digest,
    manifest_references.c.repository_id == manifests.c.repository_id,
    manifest_references.c.kind == ReferenceKind.CHILD.value,
)
_subjects = manifests.alias("subjects")
_SUBJECT_HERE = exists(_subjects.c.digest).where(
    _subjects.c.repository_id == manifests.c.repository_id,
    _subjects.c.digest == manifests.c.subject,
    _subjects.c.digest != manifests.c.digest,
)
_SOURCE_HERE = exists(derivation_manifests.c.digest).where(
    derivation_manifests.c.repository_id == manifests.c.repository_id,
    derivation_manifests.c.digest == manifests.c.digest,
)
_UNTAGGED_AT = (
    select(func.max(tag_journal.c.at))
    .where(tag_journal.c.repository_id == manifests.c.repository_id, tag_journal.c.previous == manifests.c.digest)
    .scalar_subquery()
)
_MANIFEST_FACTS = select(
    manifests.c.repository_id,
    manifests.c.digest,
    manifests.c.size,
    _TAGGED,
    _LISTED,
    _SUBJECT_HERE,
    manifests.c.derived,
    _SOURCE_HERE,
    manifests.c.pushed_at,
    _UNTAGGED_AT,
)
MANIFESTS = Query(
    _MANIFEST_FACTS.add_columns(repositories.c.name)
    .join(repositories, repositories.c.id == manifests.c.repository_id)
    .where(tuple_(manifests.c.repository_id, manifests.c.digest) > tuple_(bindparam("number"), bindparam("digest")))
    .order_by(manifests.c.repository_id, manifests.c.digest)
    .limit(_LIMIT),
    "number",
    "digest",
    "limit",
)
_IDLE_MANIFEST = select(manifests.c.pushed_at, _UNTAGGED_AT).where(
    manifests.c.repository_id == bindparam("repository"),
    manifests.c.digest == bindparam("digest"),
    ~_TAGGED,
    ~_LISTED,
    or_(
        and_(manifests.c.derived.is_(false()), ~_SUBJECT_HERE),
        and_(manifests.c.derived, ~_SOURCE_HERE),
    ),
)


TAG_AGES = Query(
    select(tags.c.name, tags.c.digest, tags.c.updated_at)
    .join(repositories, repositories.c.id == tags.c.repository_id)
    .where(repositories.c.name == bindparam("repository"), tags.c.name > bindparam("after"))
    .order_by(tags.c.name)
    .limit(_LIMIT),
    "repository",
    "after",
    "limit",
)
_EXPIRE = delete(tags).where(
    tags.c.repository_id == bindparam("number"),
    tags.c.name == bindparam("tag"),
    tags.c.digest == bindparam("at"),
    tags.c.updated_at == bindparam("since"),
)


class DatabaseCollection:
    """`CollectionStore` on a database."""

    def __init__(self, access: Access, announcer: Announcer) -> None:
        self._access = access
        self._announcer = announcer

    async def blobs(self, *, after: str, limit: int) -> Sequence[BlobFacts]:
        """Return up to `limit` blobs, digests greater than `after`."""
        return [_blob_facts(row) for row in await self._access.rows(BLOBS, after, limit)]

    async def needed_by(self, digest: Digest) -> tuple[RepositoryName, Digest] | None:
        """Return a manifest that needs the blob."""
        row = await self._access.row(NEEDED_BY, str(digest))
        return None if row is None else (RepositoryName.parse(row[0]), Digest.parse(row[1]))

    async def condemn(self, digests: Sequence[Digest], *, now: datetime) -> Sequence[Digest]:
        """Review live blobs whose lease has run out; return which became condemned."""
        return [
            Digest.parse(text)
            for part in parts(str(digest) for digest in digests)
            for text in await self._access.write(_condemn, part, to_micros(now))
        ]

    async def take_doomed(
        self, *, condemned_before: datetime, abandoned_before: datetime, limit: int, now: datetime
    ) -> Sequence[DoomedBlob]:
        """Take up to `limit` blobs for deletion."""
        taken = await self._access.write(
            _take, to_micros(condemned_before), to_micros(abandoned_before), limit, to_micros(now)
        )
        since = from_micros(to_micros(now))
        return [DoomedBlob(Digest.parse(digest), size, Key(key), since) for digest, size, key in taken]

    async def forget(self, doomed: Sequence[DoomedBlob]) -> int:
        """Remove rows of blobs whose bytes are gone; return how many."""
        return sum([await self._access.write(_forget, part) for part in parts(doomed)])

    async def take_damaged(self, blob: BlobRecord, *, now: datetime) -> DoomedBlob | None:
        """Take a live blob for deletion, needed or not."""
        if not await self._access.write(_take_damaged, str(blob.digest), str(blob.key), to_micros(now)):
            return None
        return DoomedBlob(blob.digest, blob.size, blob.key, from_micros(to_micros(now)))

    async def spare(self, doomed: DoomedBlob, *, now: datetime) -> bool:
        """Bring back what was taken."""
        return await self._access.write(_spare, doomed, to_micros(now))

    async def unused(self, found: Sequence[Key]) -> Sequence[Key]:
        """Return those of the keys that no blob lies under, and no open upload."""
        return await self._access.write(_unused, found)

    async def adopt(self, strays: Sequence[BlobRecord], *, lease_until: datetime, now: datetime) -> int:
        """Make rows, condemned, for bytes in storage that have none; return how many were made."""
        made = 0
        for part in parts(strays):
            held = await self._held([str(stray.digest) for stray in part])
            rest = [stray for stray in part if str(stray.digest) not in held]
            if rest:
                made += await self._access.write(_adopt, rest, to_micros(lease_until), to_micros(now))
        return made

    async def _held(self, digests: Sequence[str]) -> set[str]:
        """Return those that have a row, in a read: nearly all have, and the turn to write is for those who push."""
        padded = [*digests, *[digests[-1]] * (MAX_IN_LIST - len(digests))]
        return {text for query in (HELD_BLOBS, HELD_MANIFESTS) for (text,) in await self._access.rows(query, *padded)}

    async def tag_ages(self, repository: RepositoryName, *, after: str, limit: int) -> Sequence[TagAge]:
        """Return up to `limit` tags greater than `after`."""
        rows = await self._access.rows(TAG_AGES, repository.value, after, limit)
        return [TagAge(Tag.parse(name), Digest.parse(digest), from_micros(at)) for name, digest, at in rows]

    async def expire_tag(self, repository: RepositoryName, tag: TagAge, *, now: datetime) -> bool:
        """Remove a tag, note it and tell of it."""

        def describe(_: Connection, expired: bool) -> Iterable[Event]:  # noqa: FBT001 - an intention's result
            return (tag_deleted(repository, tag.tag, cause=UNPROMPTED, at=now),) if expired else ()

        return await self._announcer.write(describe, _expire_tag, repository, tag, to_micros(now))

    async def manifests(self, *, after: tuple[int, str], limit: int) -> Sequence[ManifestFacts]:
        """Return up to `limit` manifests behind the position."""
        return [_manifest_facts(row) for row in await self._access.rows(MANIFESTS, *after, limit)]

    async def collect_manifest(
        self, repository: RepositoryName, digest: Digest, *, idle_since: datetime, now: datetime
    ) -> bool:
        """Remove a manifest if nothing has needed it since that moment."""
        return await self._access.write(_collect_manifest, repository, str(digest), to_micros(idle_since))


def _blob_facts(row: Row) -> BlobFacts:
    digest, size, state, since, lease_until, referenced, idle = row
    return BlobFacts(
        digest=Digest.parse(digest),
        size=size,
        state=BlobState(state),
        since=from_micros(since),
        lease_until=from_micros(lease_until),
        referenced=bool(referenced),
        idle_link=bool(idle),
    )


def _manifest_facts(row: Row) -> ManifestFacts:
    number, digest, size, tagged, listed, subject_here, derived, source_here, pushed_at, untagged_at, name = row
    return ManifestFacts(
        position=(number, digest),
        repository=RepositoryName.parse(name),
        digest=Digest.parse(digest),
        size=size,
        tagged=bool(tagged),
        listed=bool(listed),
        subject_here=bool(subject_here),
        derived=bool(derived),
        source_here=bool(source_here),
        since=from_micros(max(pushed_at, untagged_at or 0)),
    )


def _condemn(connection: Connection, digests: list[str], now: int) -> list[str]:
    reviewed = list(connection.execute(_REVIEWED, {"digests": digests, "now": now}).scalars())
    if not reviewed:
        return []
    connection.execute(_UNLINK_IDLE, {"digests": reviewed})
    return list(connection.execute(_CONDEMN, {"digests": reviewed, "now": now}).scalars())


def _take(
    connection: Connection, condemned_before: int, abandoned_before: int, limit: int, now: int
) -> list[tuple[str, int, str]]:
    due = connection.execute(_DUE, {"before": condemned_before, "now": now, "limit": limit}).all()
    abandoned = connection.execute(_ABANDONED, {"before": abandoned_before, "limit": limit - len(due)}).all()
    needed: set[str] = set()
    if due:
        found = connection.execute(_REVIVE_NEEDED, {"digests": [row.digest for row in due], "now": now})
        needed.update(found.scalars())
    taken = [(row.digest, row.size, row.storage_key) for row in [*due, *abandoned] if row.digest not in needed]
    if taken:
        connection.execute(_TAKE, {"digests": [digest for digest, _, _ in taken], "now": now})
    return taken


def _forget(connection: Connection, doomed: Sequence[DoomedBlob]) -> int:
    ours = _taken_by_us(connection, doomed)
    if ours:
        # Only what was damaged is still linked; collection takes what isn't.
        connection.execute(_UNLINK_ALL, {"digests": ours})
        connection.execute(_FORGET, {"digests": ours})
    return len(ours)


def _taken_by_us(connection: Connection, doomed: Sequence[DoomedBlob]) -> list[str]:
    """Return the digests of those that nobody else has taken since, and lock their rows."""
    since = {str(blob.digest): to_micros(blob.since) for blob in doomed}
    rows = connection.execute(_TAKEN, {"digests": list(since)})
    return [digest for digest, at in rows if at == since[digest]]


def _take_damaged(connection: Connection, digest: str, key: str, now: int) -> bool:
    if connection.execute(_AS_KNOWN, {"digest": digest, "key": key}).first() is None:
        return False
    connection.execute(_TAKE, {"digests": [digest], "now": now})
    return True


def _spare(connection: Connection, doomed: DoomedBlob, now: int) -> bool:
    if not _taken_by_us(connection, [doomed]):
        return False
    connection.execute(_SPARE, {"digests": [str(doomed.digest)], "now": now})
    return True


def _unused(connection: Connection, found: Sequence[Key]) -> Sequence[Key]:
    used: set[str] = set()
    wanted = set(found)
    for start in range(0, len(found), _SCANNED_FOR):  # each is a look at every row
        places = found[start : start + _SCANNED_FOR]
        used |= wanted.intersection(connection.execute(_LIE_AMONG, {"keys": list(places)}).scalars())
    by_upload = {key.rpartition("/")[2]: key for key in found}
    for part in parts(by_upload):
        used |= {by_upload[upload] for upload in connection.execute(_OPEN_AMONG, {"uploads": part}).scalars()}
    return [key for key in found if key not in used]


def _adopt(connection: Connection, strays: Sequence[BlobRecord], lease_until: int, now: int) -> int:
    made = 0
    for stray in strays:
        row = {
            "digest": str(stray.digest),
            "size": stray.size,
            "storage_key": stray.key,
            "state": CONDEMNED,
            "state_since": now,
            "lease_until": lease_until,
            "created_at": now,
        }
        made += connection.execute(_ADOPT.on(connection), row).first() is not None
    return made


def _expire_tag(connection: Connection, repository: RepositoryName, tag: TagAge, now: int) -> bool:
    number = repository_rows.find(connection, repository)
    if number is None:
        return False
    digest = str(tag.digest)
    key = {"number": number, "tag": tag.tag.value, "at": digest, "since": to_micros(tag.since)}
    if connection.execute(_EXPIRE, key).rowcount != 1:
        return False
    manifest_rows.note(connection, number, [tag.tag.value], None, digest, now, ChangeOrigin.RETENTION)
    return True


def _collect_manifest(connection: Connection, repository: RepositoryName, digest: str, idle_since: int) -> bool:
    number = repository_rows.have_alone(connection, repository)
    if number is None:
        return False
    row = connection.execute(_IDLE_MANIFEST, {"repository": number, "digest": digest}).first()
    if row is None or max(row[0], row[1] or 0) > idle_since:
        return False
    manifest_rows.remove(connection, number, digest)
    repository_rows.unlist_if_empty(connection, number)
    return True


if TYPE_CHECKING:
    _: type[CollectionStore] = DatabaseCollection
