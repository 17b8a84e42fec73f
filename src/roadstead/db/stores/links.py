"""Notes of links to be written, and the facts they are to agree with (``registry.ports.LinkStore``).

The notes are written by triggers (migration 0003): in the transaction of the change, whichever store makes it, and
only while the row ``links`` is in ``instance``. Its value is when links were last seen to agree.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import (
    Connection,
    Integer,
    bindparam,
    delete,
    false,
    insert,
    literal_column,
    null,
    select,
    text,
    update,
)

from roadstead.db.access import Access, Query, Row, Upsert
from roadstead.db.moments import from_micros, to_micros
from roadstead.db.schema import (
    blobs,
    contents,
    instance,
    link_changes,
    manifests,
    repositories,
    repository_blobs,
    tags,
)
from roadstead.db.stores.blobs import FIND as FIND_BLOB
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.ports import BlobRecord, LinkChange, LinkKind, LinkStore
from roadstead.storage.ports import Key

SWITCH = "links"

_COLUMNS = (
    link_changes.c.id,
    repositories.c.name.label("repository"),
    link_changes.c.kind,
    link_changes.c.name,
    link_changes.c.digest,
)
_LIMIT = bindparam("limit", type_=Integer)
_NOTED = select(*_COLUMNS).join(repositories, repositories.c.id == link_changes.c.repository_id)
CHANGES = Query(_NOTED.order_by(link_changes.c.id).limit(_LIMIT), "limit")
CHANGES_OF = Query(
    _NOTED.where(repositories.c.name == bindparam("repository"))
    .order_by(link_changes.c.repository_id, link_changes.c.id)
    .limit(_LIMIT),
    "repository",
    "limit",
)
LAST_WRITTEN = Query(select(instance.c.value).where(instance.c.name == literal_column(f"'{SWITCH}'")))
MANIFEST = Query(
    select(contents.c.body)
    .select_from(repositories)
    .join(manifests, manifests.c.repository_id == repositories.c.id)
    .join(contents, contents.c.digest == manifests.c.digest)
    .where(
        repositories.c.name == bindparam("repository"),
        manifests.c.digest == bindparam("digest"),
        manifests.c.derived.is_(false()),
    ),
    "repository",
    "digest",
)
TAG = Query(
    select(tags.c.digest)
    .select_from(repositories)
    .join(tags, tags.c.repository_id == repositories.c.id)
    .where(repositories.c.name == bindparam("repository"), tags.c.name == bindparam("tag")),
    "repository",
    "tag",
)
_FORGET = delete(link_changes).where(link_changes.c.id == bindparam("position"))
_RELOCATE = (
    update(blobs)
    .where(blobs.c.digest == bindparam("of"), blobs.c.storage_key == bindparam("old"))
    .values(storage_key=bindparam("new"))
)
_SEEN = update(instance).where(instance.c.name == SWITCH).values(value=bindparam("at"))
_SWITCH_ON = Upsert(
    instance, lambda insert: insert.on_conflict_do_nothing(index_elements=["name"]).returning(instance.c.name)
)
_SWITCH_OFF = delete(instance).where(instance.c.name == SWITCH)
_LINKED = ["repository_id", "kind", "name", "digest"]
_NOTE_ALL = (
    insert(link_changes).from_select(
        _LINKED,
        select(
            repository_blobs.c.repository_id, literal_column("'layer'"), repository_blobs.c.digest, null()
        ).select_from(repository_blobs),
    ),
    insert(link_changes).from_select(
        _LINKED,
        select(manifests.c.repository_id, literal_column("'manifest'"), manifests.c.digest, null()).where(
            manifests.c.derived.is_(false())
        ),
    ),
    insert(link_changes).from_select(
        _LINKED, select(tags.c.repository_id, literal_column("'tag'"), tags.c.name, tags.c.digest)
    ),
)


class DatabaseLinks:
    """`LinkStore` on a database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def switch_on(self, *, complete: bool) -> None:
        """Have changes noted from now on."""
        if await self._access.row(LAST_WRITTEN) is None:
            await self._access.write(_switch_on, complete=complete)

    async def switch_off(self) -> None:
        """Note no changes any more."""
        if await self._access.row(LAST_WRITTEN) is not None:
            await self._access.write(_switch_off)

    async def changes(self, *, repository: RepositoryName | None = None, limit: int) -> Sequence[LinkChange]:
        """Return notes, oldest first."""
        if repository is None:
            rows = await self._access.rows(CHANGES, limit)
        else:
            rows = await self._access.rows(CHANGES_OF, repository.value, limit)
        return [_change(row) for row in rows]

    async def forget(self, changes: Sequence[LinkChange], *, now: datetime) -> None:
        """Remove notes whose links agree, and remember when that was."""
        await self._access.write(_forget, [change.position for change in changes], to_micros(now))

    async def last_written(self) -> datetime | None:
        """Return when links were last seen to agree."""
        row = await self._access.row(LAST_WRITTEN)
        return from_micros(int(row[0])) if row is not None and row[0] else None

    async def layer(self, repository: RepositoryName, digest: Digest) -> BlobRecord | None:
        """Return the blob if the repository may serve it."""
        row = await self._access.row(FIND_BLOB, repository.value, str(digest))
        return None if row is None else BlobRecord(digest, row[0], Key(row[1]))

    async def manifest(self, repository: RepositoryName, digest: Digest) -> bytes | None:
        """Return the bytes of a manifest that was pushed to the repository."""
        row = await self._access.row(MANIFEST, repository.value, str(digest))
        return None if row is None else bytes(row[0])

    async def tag(self, repository: RepositoryName, tag: Tag) -> Digest | None:
        """Return where the tag points."""
        row = await self._access.row(TAG, repository.value, tag.value)
        return None if row is None else Digest.parse(row[0])

    async def relocate(self, digest: Digest, old: Key, new: Key) -> bool:
        """Note that a blob's bytes lie elsewhere now."""
        return await self._access.write(_relocate, str(digest), old, new)


def _change(row: Row) -> LinkChange:
    digest = None if row[4] is None else Digest.parse(row[4])
    return LinkChange(row[0], RepositoryName(row[1]), LinkKind(row[2]), row[3], digest)


def _switch_on(connection: Connection, *, complete: bool) -> None:
    if connection.dialect.name == "postgresql":
        # A write that began before would not see the switch: it is waited for, so that what it did is noted below.
        connection.execute(text("LOCK TABLE tags, manifests, repository_blobs IN SHARE MODE"))
    if connection.execute(_SWITCH_ON.on(connection), {"name": SWITCH, "value": b""}).first() is None or complete:
        return
    for note in _NOTE_ALL:
        connection.execute(note)


def _switch_off(connection: Connection) -> None:
    connection.execute(_SWITCH_OFF)
    connection.execute(delete(link_changes))


def _relocate(connection: Connection, digest: str, old: str, new: str) -> bool:
    return connection.execute(_RELOCATE, {"of": digest, "old": old, "new": new}).rowcount == 1


def _forget(connection: Connection, positions: Sequence[int], at: int) -> None:
    if positions:
        connection.execute(_FORGET, [{"position": position} for position in sorted(positions)])
    connection.execute(_SEEN, {"at": str(at).encode()})


if TYPE_CHECKING:
    _: type[LinkStore] = DatabaseLinks
