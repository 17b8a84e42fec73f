"""What is known of upstreams' images (``proxy.ports.PulledStore``)."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Connection, Integer, and_, bindparam, exists, false, or_, select

from roadstead.db.access import Access, Query, Upsert
from roadstead.db.moments import from_micros, to_micros
from roadstead.db.schema import (
    derivation_manifests,
    derivations,
    manifest_references,
    manifests,
    repositories,
    tags,
    upstream_pulls,
    upstream_tags,
)
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.proxy.ports import PulledStore, PulledTag
from roadstead.registry.ports import ReferenceKind

_AFTER_SLASH = "0"  # the character behind "/": what begins with "host/" sorts before "host0"

KNOWN = Query(select(repositories.c.id).where(repositories.c.name == bindparam("repository")), "repository")
TAG = Query(
    select(tags.c.digest, upstream_tags.c.checked_at)
    .select_from(repositories)
    .join(tags, tags.c.repository_id == repositories.c.id)
    .outerjoin(
        upstream_tags,
        and_(upstream_tags.c.repository_id == tags.c.repository_id, upstream_tags.c.name == tags.c.name),
    )
    .where(repositories.c.name == bindparam("repository"), tags.c.name == bindparam("tag")),
    "repository",
    "tag",
    hot=True,
)

_pulled = upstream_pulls.alias("pulled")
_BEFORE = bindparam("before", type_=BigInteger)
_RECENTLY_ITSELF = exists(upstream_pulls.c.digest).where(
    upstream_pulls.c.repository_id == manifests.c.repository_id,
    upstream_pulls.c.digest == manifests.c.digest,
    upstream_pulls.c.pulled_at >= _BEFORE,
)
# What was made of it is pulled in its place; a platform's image out of an index keeps the whole index.
_RECENTLY_DERIVED = exists(
    select(_pulled.c.digest)
    .join(
        derivation_manifests,
        and_(
            derivation_manifests.c.repository_id == _pulled.c.repository_id,
            derivation_manifests.c.digest == _pulled.c.digest,
        ),
    )
    .join(derivations, derivations.c.id == derivation_manifests.c.derivation_id)
    .where(
        _pulled.c.repository_id == manifests.c.repository_id,
        _pulled.c.pulled_at >= _BEFORE,
        or_(derivation_manifests.c.source == manifests.c.digest, derivations.c.source == manifests.c.digest),
    )
)
_LISTED = exists(manifest_references.c.digest).where(
    manifest_references.c.digest == manifests.c.digest,
    manifest_references.c.repository_id == manifests.c.repository_id,
    manifest_references.c.kind == ReferenceKind.CHILD.value,
)
# What was fetched is kept without what it refers to; what was pushed here is whole, and not ours to remove.
_PUSHED = exists(manifest_references.c.digest).where(
    manifest_references.c.repository_id == manifests.c.repository_id,
    manifest_references.c.manifest == manifests.c.digest,
    manifest_references.c.optional.is_(false()),
)
SHADOWED = Query(
    select(repositories.c.name)
    .where(
        repositories.c.name > bindparam("from_name"),
        repositories.c.name < bindparam("to_name"),
        exists(manifests.c.digest).where(
            manifests.c.repository_id == repositories.c.id, manifests.c.derived.is_(false()), _PUSHED
        ),
    )
    .order_by(repositories.c.name)
    .limit(bindparam("limit", type_=Integer)),
    "from_name",
    "to_name",
    "limit",
)
IDLE = Query(
    select(repositories.c.name, manifests.c.digest)
    .join(manifests, manifests.c.repository_id == repositories.c.id)
    .where(
        repositories.c.name > bindparam("from_name"),
        repositories.c.name < bindparam("to_name"),
        manifests.c.derived.is_(false()),
        manifests.c.pushed_at < _BEFORE,
        ~_RECENTLY_ITSELF,
        ~_RECENTLY_DERIVED,
        ~_LISTED,
        ~_PUSHED,
    )
    .order_by(repositories.c.name, manifests.c.digest)
    .limit(bindparam("limit", type_=Integer)),
    "from_name",
    "to_name",
    "before",
    "limit",
)

_TAG_ROW = (
    select(tags.c.repository_id)
    .join(repositories, repositories.c.id == tags.c.repository_id)
    .where(
        repositories.c.name == bindparam("repository"),
        tags.c.name == bindparam("tag"),
        tags.c.digest == bindparam("digest"),
    )
    .with_for_update(of=tags, read=True)
)
_MANIFEST_ROW = (
    select(manifests.c.repository_id)
    .join(repositories, repositories.c.id == manifests.c.repository_id)
    .where(repositories.c.name == bindparam("repository"), manifests.c.digest == bindparam("digest"))
    .with_for_update(of=manifests, read=True, key_share=True)
)
_CHECKED = Upsert(
    upstream_tags,
    lambda insert: insert.on_conflict_do_update(
        index_elements=["repository_id", "name"], set_={"checked_at": insert.excluded.checked_at}
    ),
)
_PULLED = Upsert(
    upstream_pulls,
    lambda insert: insert.on_conflict_do_update(
        index_elements=["repository_id", "digest"], set_={"pulled_at": insert.excluded.pulled_at}
    ),
)


class DatabasePulled:
    """`PulledStore` on a database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def is_known(self, repository: RepositoryName) -> bool:
        """Say whether the repository is here, or ever was."""
        return await self._access.row(KNOWN, repository.value) is not None

    async def find_tag(self, repository: RepositoryName, tag: Tag) -> PulledTag | None:
        """Return where the tag is here, and when its upstream was asked."""
        row = await self._access.row(TAG, repository.value, tag.value)
        if row is None:
            return None
        return PulledTag(Digest.parse(row[0]), None if row[1] is None else from_micros(row[1]))

    async def note_checked(self, repository: RepositoryName, tag: Tag, digest: Digest, *, now: datetime) -> None:
        """Note that the upstream has the tag at that digest; nothing happens where it is elsewhere here."""
        await self._access.write(_note_checked, repository, tag, digest, to_micros(now))

    async def note_pulled(self, repository: RepositoryName, digest: Digest, *, now: datetime) -> None:
        """Note that a manifest was pulled; nothing happens where it is gone."""
        await self._access.write(_note_pulled, repository, digest, to_micros(now))

    async def idle(self, space: str, *, before: datetime, limit: int) -> Sequence[tuple[RepositoryName, Digest]]:
        """Return manifests of an upstream that nobody has pulled since."""
        rows = await self._access.rows(IDLE, f"{space}/", f"{space}{_AFTER_SLASH}", to_micros(before), limit)
        return [(RepositoryName.parse(name), Digest.parse(digest)) for name, digest in rows]

    async def shadowed(self, space: str, *, limit: int) -> Sequence[RepositoryName]:
        """Return repositories of an upstream's space that were pushed to."""
        rows = await self._access.rows(SHADOWED, f"{space}/", f"{space}{_AFTER_SLASH}", limit)
        return [RepositoryName.parse(name) for (name,) in rows]


def _note_checked(connection: Connection, repository: RepositoryName, tag: Tag, digest: Digest, at: int) -> None:
    key = {"repository": repository.value, "tag": tag.value, "digest": str(digest)}
    number = connection.execute(_TAG_ROW, key).scalar_one_or_none()
    if number is not None:
        row = {"repository_id": number, "name": tag.value, "checked_at": at}
        connection.execute(_CHECKED.on(connection), row)


def _note_pulled(connection: Connection, repository: RepositoryName, digest: Digest, at: int) -> None:
    key = {"repository": repository.value, "digest": str(digest)}
    number = connection.execute(_MANIFEST_ROW, key).scalar_one_or_none()
    if number is not None:
        row = {"repository_id": number, "digest": str(digest), "pulled_at": at}
        connection.execute(_PULLED.on(connection), row)


if TYPE_CHECKING:
    _: type[PulledStore] = DatabasePulled
