"""What checking reads of a database (``registry.ports.AuditStore``): pages of one index each."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Integer, and_, bindparam, case, exists, false, literal_column, select, tuple_, union

from roadstead.db.access import Access, Query, Row
from roadstead.db.schema import (
    blobs,
    contents,
    manifest_references,
    manifests,
    repositories,
    repository_blobs,
    tag_journal,
    tags,
)
from roadstead.db.stores import blobs as blob_rows
from roadstead.db.stores import repositories as repository_rows
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.ports import (
    AuditStore,
    BlobRecord,
    BrokenReference,
    HeldManifest,
    ReferenceKind,
    ReferencePosition,
    TagFacts,
)
from roadstead.storage.ports import Key

_LIMIT = bindparam("limit", type_=Integer)
_IS_LIVE = blobs.c.state == literal_column("'live'")
_IS_CHILD = manifest_references.c.kind == literal_column("'child'")

LIVE_BLOBS = Query(
    select(blobs.c.digest, blobs.c.size, blobs.c.storage_key)
    .where(blobs.c.digest > bindparam("after"), _IS_LIVE)
    .order_by(blobs.c.digest)
    .limit(_LIMIT),
    "after",
    "limit",
)
HELD_MANIFESTS = Query(
    select(
        manifests.c.repository_id,
        manifests.c.digest,
        repositories.c.name,
        manifests.c.media_type,
        manifests.c.size,
        manifests.c.subject,
        manifests.c.derived,
        contents.c.body,
    )
    .join(repositories, repositories.c.id == manifests.c.repository_id)
    .join(contents, contents.c.digest == manifests.c.digest)
    .where(tuple_(manifests.c.repository_id, manifests.c.digest) > tuple_(bindparam("number"), bindparam("digest")))
    .order_by(manifests.c.repository_id, manifests.c.digest)
    .limit(_LIMIT),
    "number",
    "digest",
    "limit",
)

_REFERENCE = (
    manifest_references.c.repository_id,
    manifest_references.c.manifest,
    manifest_references.c.kind,
    manifest_references.c.digest,
)
_STORED = exists(blobs.c.digest).where(blobs.c.digest == manifest_references.c.digest, _IS_LIVE)
_LINKED = exists(repository_blobs.c.digest).where(
    repository_blobs.c.repository_id == manifest_references.c.repository_id,
    repository_blobs.c.digest == manifest_references.c.digest,
)
_HELD = exists(manifests.c.digest).where(
    manifests.c.repository_id == manifest_references.c.repository_id,
    manifests.c.digest == manifest_references.c.digest,
)
REFERENCES = Query(
    select(
        *_REFERENCE,
        repositories.c.name,
        manifest_references.c.optional,
        case((_IS_CHILD, _HELD), else_=and_(_STORED, _LINKED)),
        case((_IS_CHILD, false()), else_=_STORED),
    )
    .join(repositories, repositories.c.id == manifest_references.c.repository_id)
    .where(
        tuple_(*_REFERENCE) > tuple_(bindparam("number"), bindparam("manifest"), bindparam("kind"), bindparam("digest"))
    )
    .order_by(*_REFERENCE)
    .limit(_LIMIT),
    "number",
    "manifest",
    "kind",
    "digest",
    "limit",
)
_LAST_LINE = (
    select(tag_journal.c.digest)
    .where(tag_journal.c.repository_id == tags.c.repository_id, tag_journal.c.tag == tags.c.name)
    .order_by(tag_journal.c.id.desc())
    .limit(1)
    .scalar_subquery()
)
_MANIFEST_HERE = exists(manifests.c.digest).where(
    manifests.c.repository_id == tags.c.repository_id, manifests.c.digest == tags.c.digest
)
TAGS = Query(
    select(tags.c.repository_id, tags.c.name, repositories.c.name, tags.c.digest, _MANIFEST_HERE, _LAST_LINE)
    .join(repositories, repositories.c.id == tags.c.repository_id)
    .where(tuple_(tags.c.repository_id, tags.c.name) > tuple_(bindparam("number"), bindparam("tag")))
    .order_by(tags.c.repository_id, tags.c.name)
    .limit(_LIMIT),
    "number",
    "tag",
    "limit",
)

# A manifest's bytes may lie among the blobs without a row of their own (registry.links).
_KNOWN = union(
    select(blobs.c.digest).where(blobs.c.digest.in_(bindparam("digests", expanding=True))),
    select(manifests.c.digest).where(manifests.c.digest.in_(bindparam("digests", expanding=True))),
)
_LIVE = select(blobs.c.digest).where(
    blobs.c.digest == bindparam("digest"), _IS_LIVE
).with_for_update(read=True, key_share=True)  # fmt: skip
_NEEDED = select(manifest_references.c.digest).where(
    manifest_references.c.repository_id == bindparam("repository"),
    manifest_references.c.digest == bindparam("digest"),
    ~_IS_CHILD,
)


class DatabaseAudit:
    """`AuditStore` on a database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def live_blobs(self, *, after: str, limit: int) -> Sequence[BlobRecord]:
        """Return up to `limit` live blobs, digests greater than `after`."""
        rows = await self._access.rows(LIVE_BLOBS, after, limit)
        return [BlobRecord(Digest.parse(digest), size, Key(key)) for digest, size, key in rows]

    async def held_manifests(self, *, after: tuple[int, str], limit: int) -> Sequence[HeldManifest]:
        """Return up to `limit` manifests behind the position."""
        return [_held_manifest(row) for row in await self._access.rows(HELD_MANIFESTS, *after, limit)]

    async def broken_references(
        self, *, after: ReferencePosition, limit: int
    ) -> tuple[Sequence[BrokenReference], ReferencePosition | None]:
        """Look at `limit` references; return which are broken, and where to go on."""
        rows = await self._access.rows(REFERENCES, *after, limit)
        broken = [_broken(row) for row in rows if not row[5] and not row[6]]
        last = rows[-1] if rows else None
        return broken, None if last is None else (last[0], last[1], last[2], last[3])

    async def tag_facts(self, *, after: tuple[int, str], limit: int) -> Sequence[TagFacts]:
        """Return up to `limit` tags behind the position."""
        return [_tag_facts(row) for row in await self._access.rows(TAGS, *after, limit)]

    async def unknown(self, digests: Sequence[Digest]) -> Sequence[Digest]:
        """Return those of the digests that nobody knows, as a blob or as a manifest."""
        known = await self._access.write(_known, [str(digest) for digest in digests])
        return [digest for digest in digests if str(digest) not in known]

    async def relink(self, repository: RepositoryName, digest: Digest, *, now: datetime) -> bool:
        """Let a repository serve a blob again that one of its manifests needs."""
        return await self._access.write(_relink, repository, digest)


def _held_manifest(row: Row) -> HeldManifest:
    number, digest, name, media_type, size, subject, derived, content = row
    return HeldManifest(
        position=(number, digest),
        repository=RepositoryName.parse(name),
        digest=Digest.parse(digest),
        media_type=media_type,
        size=size,
        subject=None if subject is None else Digest.parse(subject),
        derived=bool(derived),
        content=bytes(content),
    )


def _broken(row: Row) -> BrokenReference:
    _, manifest, kind, digest, name, _, _, stored = row
    return BrokenReference(
        repository=RepositoryName.parse(name),
        manifest=Digest.parse(manifest),
        digest=Digest.parse(digest),
        kind=ReferenceKind(kind),
        stored=bool(stored),
    )


def _tag_facts(row: Row) -> TagFacts:
    number, tag, name, digest, manifest_here, journal = row
    return TagFacts(
        position=(number, tag),
        repository=RepositoryName.parse(name),
        tag=Tag.parse(tag),
        digest=Digest.parse(digest),
        manifest_here=bool(manifest_here),
        journal=None if journal is None else Digest.parse(journal),
    )


def _known(connection: Connection, digests: list[str]) -> set[str]:
    return {
        text for part in blob_rows.parts(digests) for text in connection.execute(_KNOWN, {"digests": part}).scalars()
    }


def _relink(connection: Connection, repository: RepositoryName, digest: Digest) -> bool:
    number = repository_rows.share(connection, repository)
    key = {"repository": number, "digest": str(digest)}
    if number is None or connection.execute(_NEEDED, key).first() is None:
        return False
    if connection.execute(_LIVE, {"digest": str(digest)}).first() is None:
        return False
    blob_rows.link(connection, number, [digest])
    return True


if TYPE_CHECKING:
    _: type[AuditStore] = DatabaseAudit
