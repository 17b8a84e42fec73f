"""What a manifest comes from (``registry.ports.LineageStore``)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, select

from roadstead.db.access import Access, Query
from roadstead.db.schema import derivation_manifests, derivations, manifest_references, manifests, repositories
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.registry.ports import LineageStore, ReferenceKind

_NUMBER = select(repositories.c.id).where(repositories.c.name == bindparam("repository")).scalar_subquery()

DERIVED_FROM = Query(
    select(derivation_manifests.c.source).where(
        derivation_manifests.c.repository_id == _NUMBER, derivation_manifests.c.digest == bindparam("digest")
    ),
    "repository",
    "digest",
)
LISTED_BY = Query(
    select(manifest_references.c.manifest).where(
        manifest_references.c.repository_id == _NUMBER,
        manifest_references.c.digest == bindparam("digest"),
        manifest_references.c.kind == ReferenceKind.CHILD.value,
    ),
    "repository",
    "digest",
)
LATEST = Query(
    select(derivations.c.root)
    .join(
        manifests,
        (manifests.c.repository_id == derivations.c.repository_id) & (manifests.c.digest == derivations.c.root),
    )
    .where(derivations.c.repository_id == _NUMBER, derivations.c.source == bindparam("source"))
    .order_by(derivations.c.created_at.desc(), derivations.c.id.desc())
    .limit(1),
    "repository",
    "source",
)
ATTACHED = Query(
    select(manifests.c.digest)
    .join(
        derivation_manifests,
        (derivation_manifests.c.repository_id == manifests.c.repository_id)
        & (derivation_manifests.c.digest == manifests.c.digest),
    )
    .where(
        manifests.c.repository_id == _NUMBER,
        manifests.c.subject == bindparam("subject"),
        manifests.c.artifact_type == bindparam("artifact_type"),
    )
    .order_by(manifests.c.pushed_at.desc(), manifests.c.digest)
    .limit(1),
    "repository",
    "subject",
    "artifact_type",
)


class DatabaseLineage:
    """`LineageStore` on a database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def made_from(self, repository: RepositoryName, digest: Digest) -> Sequence[Digest]:
        """Return indexes that list a manifest and what it was derived from, ascending."""
        queries = (DERIVED_FROM, LISTED_BY)
        rows = [row for query in queries for row in await self._access.rows(query, repository.value, str(digest))]
        return [Digest.parse(text) for text in sorted({row[0] for row in rows})]

    async def latest(self, repository: RepositoryName, source: Digest) -> Digest | None:
        """Return what was derived from a manifest last."""
        row = await self._access.row(LATEST, repository.value, str(source))
        return None if row is None else Digest.parse(row[0])

    async def attached(self, repository: RepositoryName, subject: Digest, artifact_type: str) -> Digest | None:
        """Return the latest manifest of a type that was made here about a derived one."""
        row = await self._access.row(ATTACHED, repository.value, str(subject), artifact_type)
        return None if row is None else Digest.parse(row[0])


if TYPE_CHECKING:
    _: type[LineageStore] = DatabaseLineage
