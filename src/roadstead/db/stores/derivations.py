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
from roadstead.db.schema import (
    derivation_manifests,
    derivation_plans,
    derivations,
    derived_contents,
    manifests,
    repositories,
    tags,
)
from roadstead.db.stores import blobs as blob_rows
from roadstead.db.stores import repositories as repository_rows
from roadstead.db.stores.manifests import STORE_CONTENT, STORE_REFERENCES
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.errors import ManifestUnknownError, StoreBusyError
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
    hot=True,
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
    hot=True,
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
MEMORIES = Query(
    select(derived_contents.c.source, derivation_plans.c.plan)
    .select_from(repositories)
    .join(derived_contents, derived_contents.c.repository_id == repositories.c.id)
    .join(derivation_plans, derivation_plans.c.digest == derived_contents.c.plan_digest)
    .where(repositories.c.name == bindparam("repository"), derived_contents.c.digest == bindparam("digest"))
    .order_by(derived_contents.c.source, derived_contents.c.plan_digest),
    "repository",
    "digest",
)
MADE_HERE = Query(
    select(derived_contents.c.digest).where(
        derived_contents.c.digest == bindparam("digest"), derived_contents.c.plan_digest == bindparam("plan_digest")
    ),
    "digest",
    "plan_digest",
)
_DERIVED, _ORIGINS, _OF = manifests.alias("derived"), manifests.alias("origins"), repositories.alias("of")
# A source stands among what came of it (`_keep_source`), and is nothing that was made.
FIND_WITHIN = Query(
    select(_DERIVED.c.digest, _DERIVED.c.media_type, _DERIVED.c.size)
    .select_from(repositories)
    .join(_DERIVED, _DERIVED.c.repository_id == repositories.c.id)
    .join(
        derivation_manifests,
        and_(
            derivation_manifests.c.repository_id == repositories.c.id,
            derivation_manifests.c.digest == _DERIVED.c.digest,
        ),
    )
    .join(derivations, derivations.c.id == derivation_manifests.c.derivation_id)
    .join(_OF, _OF.c.name == bindparam("repository"))
    .join(_ORIGINS, and_(_ORIGINS.c.repository_id == _OF.c.id, _ORIGINS.c.digest == derivations.c.source))
    .where(
        repositories.c.name == bindparam("space"),
        _DERIVED.c.digest == bindparam("derived"),
        derivation_manifests.c.digest != derivation_manifests.c.source,
    )
    .limit(1),
    "repository",
    "space",
    "derived",
)

_SOURCE = select(manifests.c.media_type, manifests.c.size).where(
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
_KEEP_PLAN = Upsert(derivation_plans, lambda insert: insert.on_conflict_do_nothing(index_elements=["digest"]))
_KEEP_CONTENTS = Upsert(
    derived_contents,
    lambda insert: insert.on_conflict_do_nothing(index_elements=["digest", "repository_id", "source", "plan_digest"]),
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

    async def find(
        self, repository: RepositoryName, source: Digest, plan_digest: Digest, *, space: RepositoryName | None = None
    ) -> Served | None:
        """Return what answers a pull of this source under this plan."""
        row = await self._access.row(FIND, (space or repository).value, str(source), str(plan_digest))
        return None if row is None else _served(*row)

    async def find_by_tag(self, repository: RepositoryName, tag: Tag, plan_digest: Digest) -> Pulled | None:
        """Return what the tag is at now, and what was derived from that."""
        row = await self._access.row(FIND_BY_TAG, repository.value, tag.value, str(plan_digest))
        return None if row is None else _pulled(*row)

    async def record(self, derivation: Derivation, *, now: datetime, space: RepositoryName | None = None) -> None:
        """Store a derivation with its manifests, blobs and memberships."""
        await self._access.write(_record, derivation, space, self._lease, to_micros(now))

    async def find_within(self, space: RepositoryName, repository: RepositoryName, derived: Digest) -> Served | None:
        """Return what was derived into a space."""
        row = await self._access.row(FIND_WITHIN, repository.value, space.value, str(derived))
        return None if row is None else _served(*row)

    async def memories(self, repository: RepositoryName, digest: Digest) -> Sequence[tuple[Digest, str]]:
        """Return the sources and plans that the repository once had a digest from, sources ascending."""
        rows = await self._access.rows(MEMORIES, repository.value, str(digest))
        return [(Digest.parse(source), plan) for source, plan in rows]

    async def made_here(self, config: Digest, plan_digest: Digest) -> bool:
        """Say whether an image config was ever derived here under this plan."""
        return await self._access.row(MADE_HERE, str(config), str(plan_digest)) is not None

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


def _record(
    connection: Connection, derivation: Derivation, space: RepositoryName | None, lease: blob_rows.Lease, at: int
) -> None:
    number = repository_rows.share(connection, derivation.repository)
    source = {"repository": number, "source": str(derivation.source)}
    held = None if number is None else connection.execute(_SOURCE, source).first()
    if number is None or held is None:
        raise ManifestUnknownError(derivation.repository, derivation.source)
    if space is not None:
        number = _open_space(connection, space, at)
        _keep_source(connection, number, derivation.source, held.media_type, held.size, at)
    for blob in derivation.blobs:
        blob_rows.remember(connection, BlobRecord(blob.digest, blob.size, blob.key), lease, at)
    blob_rows.link(connection, number, [blob.digest for blob in derivation.blobs])
    for manifest in (*derivation.manifests, *derivation.attached):
        _store(connection, number, manifest, at)
    _remember(connection, number, derivation, at, with_source=space is not None)


def _open_space(connection: Connection, space: RepositoryName, at: int) -> int:
    repository_rows.make(connection, space, at)
    number = repository_rows.share(connection, space)
    if number is None:
        raise StoreBusyError("what was derived for a token before is being removed; try again")
    return number


def _keep_source(connection: Connection, number: int, source: Digest, media_type: str, size: int, at: int) -> None:
    """Give the space its source's row, as something derived: what came of it hangs on that."""
    row = _row(number, str(source), media_type, size, at)
    connection.execute(_STORE_DERIVED.on(connection), row)


def _store(connection: Connection, number: int, manifest: DerivedManifest, at: int) -> None:
    digest = str(manifest.digest)
    connection.execute(STORE_CONTENT.on(connection), {"digest": digest, "body": manifest.raw})
    row = _row(number, digest, manifest.media_type, len(manifest.raw), at) | {
        "artifact_type": manifest.artifact_type,
        "subject": None if manifest.subject is None else str(manifest.subject),
        "annotations": json.dumps(dict(manifest.annotations)) if manifest.annotations else None,
    }
    if connection.execute(_STORE_DERIVED.on(connection), row).first() is None:
        return
    held = blob_rows.held_among(connection, number, manifest.blobs)
    references = [
        _reference(number, digest, ReferenceKind.LAYER, blob, optional=blob not in held) for blob in manifest.blobs
    ] + [_reference(number, digest, ReferenceKind.CHILD, child, optional=False) for child in manifest.children]
    if references:
        connection.execute(STORE_REFERENCES.on(connection), references)


def _row(number: int, digest: str, media_type: str, size: int, at: int) -> dict[str, Any]:
    return {
        "repository_id": number,
        "digest": digest,
        "media_type": media_type,
        "size": size,
        "artifact_type": None,
        "subject": None,
        "annotations": None,
        "derived": True,
        "pushed_at": at,
    }


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


def _remember(connection: Connection, number: int, derivation: Derivation, at: int, *, with_source: bool) -> None:
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
    if with_source:  # collection leaves what belongs to a derivation
        text = str(derivation.source)
        members.setdefault(
            derivation.source,
            {
                "derivation_id": derivation_id,
                "digest": text,
                "repository_id": number,
                "source": text,
                "root": False,
            },
        )
    connection.execute(_BELONGS.on(connection), list(members.values()))
    _keep_in_mind(connection, number, derivation)


def _keep_in_mind(connection: Connection, number: int, derivation: Derivation) -> None:
    """Note what all of it came from, for when it is gone."""
    plan = {"digest": str(derivation.plan_digest), "plan": derivation.plan}
    connection.execute(_KEEP_PLAN.on(connection), plan)
    contents = dict.fromkeys([*(manifest.digest for manifest in derivation.manifests), *derivation.configs])
    rows = [
        {
            "repository_id": number,
            "digest": str(digest),
            "source": str(derivation.source),
            "plan_digest": str(derivation.plan_digest),
        }
        for digest in contents
    ]
    connection.execute(_KEEP_CONTENTS.on(connection), rows)


if TYPE_CHECKING:
    _: type[DerivationStore] = DatabaseDerivations
