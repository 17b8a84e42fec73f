"""What was derived from what (``augment.ports.DerivationStore``)."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, and_, bindparam, select, true

from roadstead.augment.ports import Derivation, DerivationStore, DerivedManifest, Pulled, Served
from roadstead.db.access import Access, Query, Upsert
from roadstead.db.moments import to_micros
from roadstead.db.schema import derivation_manifests, derivations, manifests, repositories, tags
from roadstead.db.stores import blobs as blob_rows
from roadstead.db.stores import repositories as repository_rows
from roadstead.db.stores.manifests import STORE_CONTENT, STORE_REFERENCES
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.errors import ManifestUnknownError
from roadstead.registry.ports import BlobRecord, ReferenceKind

# The root has to be there: collection may have taken what was derived and left the memory of it.
FIND = Query(
    select(manifests.c.digest, manifests.c.media_type, manifests.c.size)
    .select_from(repositories)
    .join(derivations, derivations.c.repository_id == repositories.c.id)
    .join(
        manifests,
        and_(manifests.c.repository_id == derivations.c.repository_id, manifests.c.digest == derivations.c.root),
    )
    .where(
        repositories.c.name == bindparam("repository"),
        derivations.c.source == bindparam("source"),
        derivations.c.plan_digest == bindparam("plan_digest"),
    ),
    "repository",
    "source",
    "plan_digest",
)
_SOURCES, _ROOTS = manifests.alias("sources"), manifests.alias("roots")
FIND_BY_TAG = Query(
    select(
        _SOURCES.c.digest, _SOURCES.c.media_type, _SOURCES.c.size, _ROOTS.c.digest, _ROOTS.c.media_type, _ROOTS.c.size
    )
    .select_from(repositories)
    .join(tags, tags.c.repository_id == repositories.c.id)
    .join(_SOURCES, and_(_SOURCES.c.repository_id == tags.c.repository_id, _SOURCES.c.digest == tags.c.digest))
    .outerjoin(
        derivations,
        and_(
            derivations.c.repository_id == tags.c.repository_id,
            derivations.c.source == tags.c.digest,
            derivations.c.plan_digest == bindparam("plan_digest"),
        ),
    )
    .outerjoin(
        _ROOTS, and_(_ROOTS.c.repository_id == derivations.c.repository_id, _ROOTS.c.digest == derivations.c.root)
    )
    .where(repositories.c.name == bindparam("repository"), tags.c.name == bindparam("tag")),
    "repository",
    "tag",
    "plan_digest",
)
SOURCES_OF = Query(
    select(derivations.c.source)
    .select_from(repositories)
    .join(derivation_manifests, derivation_manifests.c.repository_id == repositories.c.id)
    .join(derivations, derivations.c.id == derivation_manifests.c.derivation_id)
    .where(
        repositories.c.name == bindparam("repository"),
        derivation_manifests.c.digest == bindparam("derived"),
        derivation_manifests.c.root.is_(true()),
    ),
    "repository",
    "derived",
)

_SOURCE = select(manifests.c.digest).where(
    manifests.c.repository_id == bindparam("repository"), manifests.c.digest == bindparam("source")
)
_RECORD = Upsert(
    derivations,
    lambda insert: insert.on_conflict_do_update(
        index_elements=["repository_id", "source", "plan_digest"],
        set_={"plan": insert.excluded.plan, "root": insert.excluded.root},
    ).returning(derivations.c.id),
)
_BELONGS = Upsert(
    derivation_manifests,
    lambda insert: insert.on_conflict_do_update(
        index_elements=["derivation_id", "digest"],
        set_={"source": insert.excluded.source, "root": insert.excluded.root},
    ),
)
# A manifest that was pushed as well stays as it was pushed.
_STORE_DERIVED = Upsert(
    manifests,
    lambda insert: insert.on_conflict_do_nothing(index_elements=["repository_id", "digest"]).returning(
        manifests.c.digest
    ),
)


class DatabaseDerivations:
    """`DerivationStore` on a database."""

    def __init__(self, access: Access, lease: timedelta) -> None:
        self._access = access
        self._lease = blob_rows.Lease(lease)

    async def find(self, repository: RepositoryName, source: Digest, plan_digest: Digest) -> Served | None:
        """Return what answers a pull of this source under this plan."""
        row = await self._access.row(FIND, repository.value, str(source), str(plan_digest))
        return None if row is None else _served(*row)

    async def find_by_tag(self, repository: RepositoryName, tag: Tag, plan_digest: Digest) -> Pulled | None:
        """Return what the tag is at now, and what was derived from that."""
        row = await self._access.row(FIND_BY_TAG, repository.value, tag.value, str(plan_digest))
        return None if row is None else _pulled(*row)

    async def record(self, derivation: Derivation, *, now: datetime) -> None:
        """Store a derivation with its manifests, blobs and memberships."""
        await self._access.write(_record, derivation, self._lease, to_micros(now))

    async def sources_of(self, repository: RepositoryName, derived: Digest) -> Sequence[Digest]:
        """Return the source manifests that a derived root digest was made from, ascending."""
        rows = await self._access.rows(SOURCES_OF, repository.value, str(derived))
        return [Digest.parse(text) for text in sorted({row[0] for row in rows})]  # several plans may give one result


@lru_cache(maxsize=1024)
def _pulled(
    digest: str, media_type: str, size: int, root: str | None, root_type: str | None, root_size: int | None
) -> Pulled:
    """Return a row's values parsed; remembered, for popular images are asked for again and again."""
    if root is None or root_type is None or root_size is None:
        return Pulled(_served(digest, media_type, size), None)
    return Pulled(_served(digest, media_type, size), _served(root, root_type, root_size))


def _served(digest: str, media_type: str, size: int) -> Served:
    return Served(Digest.parse(digest), media_type, size)


def _record(connection: Connection, derivation: Derivation, lease: blob_rows.Lease, at: int) -> None:
    number = repository_rows.share(connection, derivation.repository)
    source = {"repository": number, "source": str(derivation.source)}
    if number is None or connection.execute(_SOURCE, source).first() is None:
        raise ManifestUnknownError(derivation.repository, derivation.source)
    for blob in derivation.blobs:
        blob_rows.remember(connection, BlobRecord(blob.digest, blob.size, blob.key), lease, at)
    blob_rows.link(connection, number, [blob.digest for blob in derivation.blobs])
    for manifest in (*derivation.manifests, *derivation.attached):
        _store(connection, number, manifest, at)
    _remember(connection, number, derivation, at)


def _store(connection: Connection, number: int, manifest: DerivedManifest, at: int) -> None:
    digest = str(manifest.digest)
    connection.execute(STORE_CONTENT.on(connection), {"digest": digest, "body": manifest.raw})
    row = {
        "repository_id": number,
        "digest": digest,
        "media_type": manifest.media_type,
        "size": len(manifest.raw),
        "artifact_type": manifest.artifact_type,
        "subject": None if manifest.subject is None else str(manifest.subject),
        "annotations": json.dumps(dict(manifest.annotations)) if manifest.annotations else None,
        "derived": True,
        "pushed_at": at,
    }
    if connection.execute(_STORE_DERIVED.on(connection), row).first() is None:
        return
    held = blob_rows.held_among(connection, number, manifest.blobs)
    references = [
        _reference(number, digest, ReferenceKind.LAYER, blob, optional=blob not in held) for blob in manifest.blobs
    ] + [_reference(number, digest, ReferenceKind.CHILD, child, optional=False) for child in manifest.children]
    if references:
        connection.execute(STORE_REFERENCES.on(connection), references)


def _reference(number: int, manifest: str, kind: ReferenceKind, digest: Digest, *, optional: bool) -> dict[str, Any]:
    """Return a row of what a derived manifest needs.

    Its config counts as a layer: nobody tells them apart here, and both keep bytes from collection. What the source
    may do without (non-distributable layers) isn't there, and need not be.
    """
    return {
        "repository_id": number,
        "manifest": manifest,
        "kind": kind.value,
        "digest": str(digest),
        "optional": optional,
    }


def _remember(connection: Connection, number: int, derivation: Derivation, at: int) -> None:
    row = {
        "repository_id": number,
        "source": str(derivation.source),
        "plan_digest": str(derivation.plan_digest),
        "plan": derivation.plan,
        "root": str(derivation.root.digest),
        "created_at": at,
    }
    derivation_id = connection.execute(_RECORD.on(connection), row).scalar_one()
    members = {
        manifest.digest: {
            "derivation_id": derivation_id,
            "digest": str(manifest.digest),
            "repository_id": number,
            "source": str(manifest.source),
            "root": manifest is derivation.root,
        }
        for manifest in (*derivation.manifests, *derivation.attached)
    }
    connection.execute(_BELONGS.on(connection), list(members.values()))


if TYPE_CHECKING:
    _: type[DerivationStore] = DatabaseDerivations
