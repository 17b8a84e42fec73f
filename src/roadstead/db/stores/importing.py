"""Taking up what is found in a tree (``registry.ports.ImportStore``): batches of rows, each its own transaction.

Every insert leaves alone what is there, so an import that was interrupted begins again and finds its own rows.
"""

import json
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from roadstead.db.access import Access, Query, Upsert
from roadstead.db.moments import from_micros, to_micros
from roadstead.db.schema import (
    blobs,
    contents,
    instance,
    manifest_references,
    manifests,
    repositories,
    repository_blobs,
    tag_journal,
    tags,
)
from roadstead.db.stores import repositories as repository_rows
from roadstead.db.stores.blobs import LIVE, parts
from roadstead.db.stores.manifests import STORE_CONTENT, STORE_REFERENCES
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.registry.errors import RepositoryUnknownError
from roadstead.registry.ports import (
    ChangeOrigin,
    FoundBlob,
    FoundManifest,
    FoundTag,
    ImportState,
    ImportStatus,
    ImportStore,
    NewManifest,
    ReferenceKind,
)

STATUS_NAME = "import"

STATUS = Query(select(instance.c.value).where(instance.c.name == bindparam("name")), "name")
ANY_REPOSITORY = Query(select(repositories.c.id).limit(1))

_SET_STATUS = Upsert(
    instance,
    lambda insert: insert.on_conflict_do_update(index_elements=["name"], set_={"value": insert.excluded.value}),
)
_ADD_BLOB = Upsert(blobs, lambda insert: insert.on_conflict_do_nothing(index_elements=["digest"]))
_BLOBS_AMONG = select(blobs).where(blobs.c.digest.in_(bindparam("digests", expanding=True)))
_LINK = Upsert(
    repository_blobs, lambda insert: insert.on_conflict_do_nothing(index_elements=["repository_id", "digest"])
)
_HELD_AMONG = select(manifests.c.digest).where(
    manifests.c.repository_id == bindparam("repository"),
    manifests.c.derived.is_(False),
    manifests.c.digest.in_(bindparam("digests", expanding=True)),
)
_ADD_MANIFEST = Upsert(
    manifests, lambda insert: insert.on_conflict_do_nothing(index_elements=["repository_id", "digest"])
)
_TAGS_AMONG = select(tags.c.name, tags.c.digest, tags.c.updated_at).where(
    tags.c.repository_id == bindparam("repository"), tags.c.name.in_(bindparam("names", expanding=True))
)
_MOVE_TAG = (
    update(tags)
    .where(tags.c.repository_id == bindparam("repository"), tags.c.name == bindparam("tag"))
    .values(digest=bindparam("to"), updated_at=bindparam("at"))
)
_REFER = (
    update(manifests)
    .where(
        manifests.c.repository_id == bindparam("repository"),
        manifests.c.digest == bindparam("referrer"),
        manifests.c.subject.is_(None),
        manifests.c.derived.is_(False),
    )
    .values(subject=bindparam("of"), annotations=bindparam("noted"))
)
_BLOB_IS_HERE = (
    select(repository_blobs.c.digest)
    .where(
        repository_blobs.c.repository_id == manifest_references.c.repository_id,
        repository_blobs.c.digest == manifest_references.c.digest,
    )
    .exists()
)
_CHILD_IS_HERE = (
    select(manifests.c.digest)
    .where(
        manifests.c.repository_id == manifest_references.c.repository_id,
        manifests.c.digest == manifest_references.c.digest,
    )
    .exists()
)
_IS_CHILD = manifest_references.c.kind == ReferenceKind.CHILD.value
_EXCUSE = (
    update(manifest_references)
    .where(
        manifest_references.c.repository_id == bindparam("repository"),
        manifest_references.c.optional.is_(False),
        (_IS_CHILD & ~_CHILD_IS_HERE) | (~_IS_CHILD & ~_BLOB_IS_HERE),
    )
    .values(optional=True)
)
_DROP_MANIFEST_BLOBS = delete(blobs).where(
    select(contents.c.digest).where(contents.c.digest == blobs.c.digest).exists(),
    ~select(repository_blobs.c.digest).where(repository_blobs.c.digest == blobs.c.digest).exists(),
)


class DatabaseImports:
    """`ImportStore` on a database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def status(self) -> ImportStatus:
        """Return where the import stands."""
        row = await self._access.row(STATUS, STATUS_NAME)
        return ImportStatus() if row is None else _parse_status(row[0])

    async def set_status(self, status: ImportStatus) -> None:
        """Keep where the import stands."""
        await self._access.write(_set_status, status)

    async def is_empty(self) -> bool:
        """Say whether the database knows of no repository at all."""
        return await self._access.row(ANY_REPOSITORY) is None

    async def add_blobs(self, blobs: Sequence[FoundBlob]) -> int:
        """Make rows for bytes that have none."""
        return await self._access.write(_add_blobs, blobs)

    async def add_repository(self, repository: RepositoryName, *, now: datetime) -> None:
        """Make the repository where there is none."""
        await self._access.write(repository_rows.make, repository, to_micros(now))

    async def link_blobs(self, repository: RepositoryName, links: Sequence[tuple[Digest, Digest]]) -> Sequence[Digest]:
        """Let the repository serve blobs of which there are bytes; return the others."""
        return await self._access.write(_link_blobs, repository, links)

    async def held(self, repository: RepositoryName, digests: Sequence[Digest]) -> AbstractSet[Digest]:
        """Return which of these manifests the repository holds already."""
        return await self._access.write(_held, repository, digests)

    async def add_manifests(self, repository: RepositoryName, manifests: Sequence[FoundManifest]) -> None:
        """Store manifests with all that they refer to."""
        await self._access.write(_add_manifests, repository, manifests)

    async def add_tags(self, repository: RepositoryName, tags: Sequence[FoundTag]) -> Sequence[FoundTag]:
        """Store tags and their journal; return those that point at nothing."""
        return await self._access.write(_add_tags, repository, tags)

    async def add_referrers(self, repository: RepositoryName, subject: Digest, manifests: Sequence[NewManifest]) -> int:
        """Let manifests that name no subject themselves refer to this one."""
        return await self._access.write(_add_referrers, repository, subject, manifests)

    async def settle(self, repository: RepositoryName) -> int:
        """Mark references to what the repository hasn't got as optional."""
        return await self._access.write(_settle, repository)

    async def drop_manifest_blobs(self) -> int:
        """Remove the rows of blobs that are manifests and nobody's layers."""
        return await self._access.write(_drop_manifest_blobs)


def _parse_status(value: bytes) -> ImportStatus:
    kept = json.loads(value)
    begun, done = (None if kept[name] is None else from_micros(kept[name]) for name in ("begun_at", "done_at"))
    return ImportStatus(ImportState(kept["state"]), begun, done, kept["after"])


def _set_status(connection: Connection, status: ImportStatus) -> None:
    value = {
        "state": status.state.value,
        "begun_at": None if status.begun_at is None else to_micros(status.begun_at),
        "done_at": None if status.done_at is None else to_micros(status.done_at),
        "after": status.after,
    }
    connection.execute(_SET_STATUS.on(connection), {"name": STATUS_NAME, "value": json.dumps(value).encode()})


def _add_blobs(connection: Connection, found: Sequence[FoundBlob]) -> int:
    known = _known_blobs(connection, [blob.digest for blob in found])
    # In one order for everybody, so that two who store the same don't wait for each other.
    new = sorted((blob for blob in found if str(blob.digest) not in known), key=lambda blob: str(blob.digest))
    _insert_blobs(connection, [_blob_row(str(blob.digest), blob.size, blob.key, to_micros(blob.at)) for blob in new])
    return len(new)


def _insert_blobs(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        connection.execute(_ADD_BLOB.on(connection), rows)


def _blob_row(digest: str, size: int, key: str, at: int) -> dict[str, Any]:
    return {
        "digest": digest,
        "size": size,
        "storage_key": key,
        "state": LIVE,
        "state_since": at,
        "lease_until": 0,
        "created_at": at,
    }


def _known_blobs(connection: Connection, digests: Iterable[Digest]) -> dict[str, Any]:
    return {
        row.digest: row
        for part in parts(sorted({str(digest) for digest in digests}))
        for row in connection.execute(_BLOBS_AMONG, {"digests": part})
    }


def _link_blobs(
    connection: Connection, repository: RepositoryName, links: Sequence[tuple[Digest, Digest]]
) -> Sequence[Digest]:
    number = _number(connection, repository)
    known = _known_blobs(connection, [target for _, target in links])
    present = sorted((str(alias), str(target)) for alias, target in links if str(target) in known)
    # A blob that is known by another digest than its bytes' key says has a row of its own, at the same key.
    aliases = [
        _blob_row(alias, known[target].size, known[target].storage_key, known[target].created_at)
        for alias, target in present
        if alias != target
    ]
    _insert_blobs(connection, aliases)
    if present:
        connection.execute(_LINK.on(connection), [{"repository_id": number, "digest": alias} for alias, _ in present])
    return [alias for alias, target in links if str(target) not in known]


def _held(connection: Connection, repository: RepositoryName, digests: Sequence[Digest]) -> AbstractSet[Digest]:
    number = repository_rows.find(connection, repository)
    by_text = {str(digest): digest for digest in digests}
    return {
        by_text[text]
        for part in parts(by_text)
        for text in connection.execute(_HELD_AMONG, {"repository": number, "digests": part}).scalars()
    }


def _add_manifests(connection: Connection, repository: RepositoryName, found: Sequence[FoundManifest]) -> None:
    if not found:
        return
    at = min(to_micros(one.at) for one in found)
    number = repository_rows.make_listed(connection, repository, at)
    ordered = sorted(found, key=lambda one: str(one.manifest.digest))
    connection.execute(
        STORE_CONTENT.on(connection),
        [{"digest": str(one.manifest.digest), "body": one.manifest.raw} for one in ordered],
    )
    connection.execute(_ADD_MANIFEST.on(connection), [_manifest_row(number, one) for one in ordered])
    references = [row for one in ordered for row in _reference_rows(number, one.manifest)]
    if references:
        connection.execute(STORE_REFERENCES.on(connection), references)


def _manifest_row(number: int, found: FoundManifest) -> dict[str, Any]:
    manifest = found.manifest
    has_subject = manifest.subject is not None
    return {
        "repository_id": number,
        "digest": str(manifest.digest),
        "media_type": manifest.media_type,
        "size": len(manifest.raw),
        "artifact_type": manifest.artifact_type,
        "subject": str(manifest.subject) if has_subject else None,
        "annotations": _annotations(manifest) if has_subject else None,
        "derived": False,
        "pushed_at": to_micros(found.at),
    }


def _annotations(manifest: NewManifest) -> str | None:
    return json.dumps(dict(manifest.annotations)) if manifest.annotations else None


def _reference_rows(number: int, manifest: NewManifest) -> list[dict[str, Any]]:
    return [
        {
            "repository_id": number,
            "manifest": str(manifest.digest),
            "kind": reference.kind.value,
            "digest": str(reference.digest),
            "optional": reference.optional,
        }
        for reference in manifest.references
    ]


def _add_tags(connection: Connection, repository: RepositoryName, found: Sequence[FoundTag]) -> Sequence[FoundTag]:
    number = _number(connection, repository)
    held = _held(connection, repository, [one.digest for one in found])
    there: dict[str, Any] = {}
    for part in parts(sorted({one.tag.value for one in found})):
        for row in connection.execute(_TAGS_AMONG, {"repository": number, "names": part}):
            there[row.name] = row
    rows: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    for one in sorted(found, key=lambda one: one.tag):
        if one.digest not in held:
            continue
        at = to_micros(one.at)
        now = there.get(one.tag.value)
        if now is None:
            rows.append({"repository_id": number, "name": one.tag.value, "digest": str(one.digest), "updated_at": at})
            lines += _journal(number, one)
        elif now.digest != str(one.digest) and now.updated_at < at:
            connection.execute(_MOVE_TAG, {"repository": number, "tag": one.tag.value, "to": str(one.digest), "at": at})
            lines.append(_line(number, one.tag.value, str(one.digest), now.digest, at))
    if rows:
        connection.execute(insert(tags), rows)
    if lines:
        connection.execute(insert(tag_journal), lines)
    return [one for one in found if one.digest not in held]


def _journal(number: int, found: FoundTag) -> Iterable[dict[str, Any]]:
    """Yield the lines that lead to where the tag is now."""
    previous: str | None = None
    latest = to_micros(found.at)
    for digest, at in (*found.history, (found.digest, found.at)):
        yield _line(number, found.tag.value, str(digest), previous, min(to_micros(at), latest))
        previous = str(digest)


def _line(number: int, tag: str, digest: str, previous: str | None, at: int) -> dict[str, Any]:
    return {
        "repository_id": number,
        "tag": tag,
        "digest": digest,
        "previous": previous,
        "at": at,
        "origin": ChangeOrigin.IMPORT.value,
    }


def _add_referrers(
    connection: Connection, repository: RepositoryName, subject: Digest, found: Sequence[NewManifest]
) -> int:
    number = _number(connection, repository)
    return sum(
        connection.execute(
            _REFER,
            {
                "repository": number,
                "referrer": str(manifest.digest),
                "of": str(subject),
                "noted": _annotations(manifest),
            },
        ).rowcount
        for manifest in found
    )


def _settle(connection: Connection, repository: RepositoryName) -> int:
    return connection.execute(_EXCUSE, {"repository": _number(connection, repository)}).rowcount


def _drop_manifest_blobs(connection: Connection) -> int:
    return connection.execute(_DROP_MANIFEST_BLOBS).rowcount


def _number(connection: Connection, repository: RepositoryName) -> int:
    number = repository_rows.find(connection, repository)
    if number is None:
        raise RepositoryUnknownError(repository)
    return number


if TYPE_CHECKING:
    _: type[ImportStore] = DatabaseImports
