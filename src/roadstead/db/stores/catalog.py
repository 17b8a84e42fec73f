"""Listings (``registry.ports.CatalogStore``) and the journal of tags: each page is a range of one index."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Integer, bindparam, select, true

from roadstead.db.access import Access, Query, Row
from roadstead.db.moments import from_micros, to_micros
from roadstead.db.schema import manifests, repositories, tag_journal, tags
from roadstead.db.stores.repositories import sort_key
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.ports import CatalogStore, ChangeOrigin, JournalStore, ReferrerRecord, TagChange

_LATEST = 2**63 - 1

_NUMBER = select(repositories.c.id).where(repositories.c.name == bindparam("repository")).scalar_subquery()
_LIMIT = bindparam("limit", type_=Integer)

KNOWN = Query(select(repositories.c.id).where(repositories.c.name == bindparam("repository")), "repository")
TAGS = Query(
    select(tags.c.name)
    .where(tags.c.repository_id == _NUMBER, tags.c.name > bindparam("after"))
    .order_by(tags.c.name)
    .limit(_LIMIT),
    "repository",
    "after",
    "limit",
)
REPOSITORIES = Query(
    select(repositories.c.name)
    .where(repositories.c.listed.is_(true()), repositories.c.sort_key > bindparam("after"))
    .order_by(repositories.c.sort_key)
    .limit(_LIMIT),
    "after",
    "limit",
)
_REFERRERS = select(
    manifests.c.digest,
    manifests.c.media_type,
    manifests.c.size,
    manifests.c.artifact_type,
    manifests.c.annotations,
).where(manifests.c.repository_id == _NUMBER, manifests.c.subject == bindparam("subject"))
REFERRERS = Query(
    _REFERRERS.where(manifests.c.digest > bindparam("after")).order_by(manifests.c.digest).limit(_LIMIT),
    "repository",
    "subject",
    "after",
    "limit",
)
REFERRERS_OF_TYPE = Query(
    _REFERRERS.where(manifests.c.artifact_type == bindparam("artifact_type"), manifests.c.digest > bindparam("after"))
    .order_by(manifests.c.digest)
    .limit(_LIMIT),
    "repository",
    "subject",
    "artifact_type",
    "after",
    "limit",
)
TAG_CHANGES = Query(
    select(tag_journal.c.id, tag_journal.c.digest, tag_journal.c.previous, tag_journal.c.at, tag_journal.c.origin)
    .where(
        tag_journal.c.repository_id == _NUMBER,
        tag_journal.c.tag == bindparam("tag"),
        tag_journal.c.id < bindparam("before", type_=BigInteger),
    )
    .order_by(tag_journal.c.id.desc())
    .limit(_LIMIT),
    "repository",
    "tag",
    "before",
    "limit",
)
# Lines are ordered by their position: two may have one moment, and clocks are set back.
TAG_CHANGE_AT = Query(
    select(tag_journal.c.id, tag_journal.c.digest, tag_journal.c.previous, tag_journal.c.at, tag_journal.c.origin)
    .where(
        tag_journal.c.repository_id == _NUMBER,
        tag_journal.c.tag == bindparam("tag"),
        tag_journal.c.at <= bindparam("moment", type_=BigInteger),
    )
    .order_by(tag_journal.c.id.desc())
    .limit(1),
    "repository",
    "tag",
    "moment",
)


class DatabaseCatalog:
    """`CatalogStore` and `JournalStore` on a database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def tags(self, repository: RepositoryName, *, after: str, limit: int) -> Sequence[str] | None:
        """Return up to `limit` tags greater than `after`; None for an unknown repository."""
        rows = await self._access.rows(TAGS, repository.value, storable(after), limit)
        if not rows and await self._access.row(KNOWN, repository.value) is None:
            return None
        return [row[0] for row in rows]

    async def repositories(self, *, after: str, limit: int) -> Sequence[str]:
        """Return up to `limit` names of repositories that hold a manifest, those behind `after`."""
        rows = await self._access.rows(REPOSITORIES, sort_key(storable(after)), limit)
        return [row[0] for row in rows]

    async def referrers(
        self, repository: RepositoryName, subject: Digest, *, artifact_type: str | None, after: str, limit: int
    ) -> Sequence[ReferrerRecord]:
        """Return up to `limit` manifests whose subject this is, digests greater than `after`."""
        where = (repository.value, str(subject))
        if artifact_type is None:
            rows = await self._access.rows(REFERRERS, *where, storable(after), limit)
        elif storable(artifact_type) != artifact_type:
            rows = []  # no manifest can have it
        else:
            rows = await self._access.rows(REFERRERS_OF_TYPE, *where, artifact_type, storable(after), limit)
        return [_referrer(row) for row in rows]

    async def tag_changes(
        self, repository: RepositoryName, tag: Tag, *, before: int | None = None, limit: int
    ) -> Sequence[TagChange]:
        """Return up to `limit` changes of a tag, the latest first."""
        start = _LATEST if before is None else before
        return [_change(row) for row in await self._access.rows(TAG_CHANGES, repository.value, tag.value, start, limit)]

    async def tag_change_at(self, repository: RepositoryName, tag: Tag, moment: datetime) -> TagChange | None:
        """Return the latest line of a tag's journal that isn't younger than `moment`."""
        row = await self._access.row(TAG_CHANGE_AT, repository.value, tag.value, to_micros(moment))
        return None if row is None else _change(row)


def storable(after: str) -> str:
    """Return a text that every database takes, with the same place among names and tags as `after`.

    Names hold neither U+0000 nor surrogates, and PostgreSQL takes neither: what follows ``a`` and U+0000 follows
    ``a``, and a lone surrogate stands behind every name as U+FFFD does.
    """
    if after.isascii():
        return after.partition("\0")[0]
    return after.encode("utf-16", "surrogatepass").decode("utf-16", "replace").partition("\0")[0]


def _referrer(row: Row) -> ReferrerRecord:
    digest, media_type, size, artifact_type, annotations = row
    return ReferrerRecord(
        Digest.parse(digest), media_type, size, artifact_type, {} if annotations is None else json.loads(annotations)
    )


def _change(row: Row) -> TagChange:
    position, digest, previous, at, origin = row
    return TagChange(
        position,
        None if digest is None else Digest.parse(digest),
        None if previous is None else Digest.parse(previous),
        from_micros(at),
        ChangeOrigin(origin),
    )


if TYPE_CHECKING:
    _catalog: type[CatalogStore] = DatabaseCatalog
    _journal: type[JournalStore] = DatabaseCatalog
