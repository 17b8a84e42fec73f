"""Manifests and tags (``registry.ports.ManifestStore``).

A push and a delete in one repository never cross (``repositories``): a tag always has its manifest, and what a
manifest needs was there when it came.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, and_, bindparam, delete, insert, select, union, update

from roadstead.acts import ActKind, Asked
from roadstead.db.access import Access, Query, Row, Step, Upsert
from roadstead.db.moments import to_micros
from roadstead.db.schema import (
    contents,
    derivation_manifests,
    derivations,
    manifest_references,
    manifests,
    repositories,
    tag_journal,
    tags,
)
from roadstead.db.stores import blobs as blob_rows
from roadstead.db.stores import repositories as repository_rows
from roadstead.db.stores.acts import write_act
from roadstead.db.stores.immutable import require_mutable, require_untied
from roadstead.db.stores.outbox import Announcer
from roadstead.events.event import (
    UNPROMPTED,
    Cause,
    Event,
    manifest_deleted,
    manifest_pushed,
    references_of,
    tag_deleted,
)
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.errors import (
    DescriptorSizeError,
    ManifestBlobUnknownError,
    StoreBusyError,
    TagConditionError,
)
from roadstead.registry.immutable import NOTHING_IMMUTABLE, ImmutableTags
from roadstead.registry.ports import (
    ChangeOrigin,
    ManifestRecord,
    ManifestReference,
    ManifestStore,
    NewManifest,
    ReferenceKind,
    TagCondition,
)

_MOVE_ATTEMPTS = 5
_STILL_YOUNG = 3_600_000_000  # microseconds: a push repeated within the hour writes nothing

_IN_REPOSITORY = repositories.c.name == bindparam("repository")

FIND_BY_TAG = Query(
    select(manifests.c.digest, manifests.c.media_type, manifests.c.size)
    .select_from(repositories)
    .join(tags, tags.c.repository_id == repositories.c.id)
    .join(manifests, and_(manifests.c.repository_id == tags.c.repository_id, manifests.c.digest == tags.c.digest))
    .where(_IN_REPOSITORY, tags.c.name == bindparam("tag")),
    "repository",
    "tag",
    hot=True,
)
FIND_BY_DIGEST = Query(
    select(manifests.c.digest, manifests.c.media_type, manifests.c.size)
    .select_from(repositories)
    .join(manifests, manifests.c.repository_id == repositories.c.id)
    .where(_IN_REPOSITORY, manifests.c.digest == bindparam("digest")),
    "repository",
    "digest",
    hot=True,
)
CONTENT = Query(select(contents.c.body).where(contents.c.digest == bindparam("digest")), "digest")

_ONE = and_(manifests.c.repository_id == bindparam("repository"), manifests.c.digest == bindparam("digest"))
_HELD = Step(
    select(manifests.c.media_type, manifests.c.derived, manifests.c.pushed_at, manifests.c.subject).where(_ONE)
)
_TOLD = (
    select(manifests.c.media_type, manifests.c.size, contents.c.body)
    .select_from(repositories)
    .join(manifests, manifests.c.repository_id == repositories.c.id)
    .join(contents, contents.c.digest == manifests.c.digest)
    .where(_IN_REPOSITORY, manifests.c.digest == bindparam("digest"))
)
_PUSHED_AGAIN = (
    update(manifests)
    .where(manifests.c.repository_id == bindparam("repository"), manifests.c.digest == bindparam("pushed"))
    .values(pushed_at=bindparam("at"))
)
_SIZES_AMONG = Step(
    select(manifests.c.digest, manifests.c.size).where(
        manifests.c.repository_id == bindparam("repository"),
        manifests.c.digest.in_(bindparam("digests", expanding=True)),
    )
)
STORE_CONTENT = Upsert(contents, lambda insert: insert.on_conflict_do_nothing(index_elements=["digest"]))
_STORE_CONTENT = Step(STORE_CONTENT)
_STORE = Step(
    Upsert(
        manifests,
        lambda insert: insert.on_conflict_do_update(
            index_elements=["repository_id", "digest"],
            set_={
                name: insert.excluded[name]
                for name in ("media_type", "artifact_type", "subject", "annotations", "derived", "pushed_at")
            },
        ),
    )
)
STORE_REFERENCES = Upsert(
    manifest_references,
    lambda insert: insert.on_conflict_do_nothing(index_elements=["repository_id", "manifest", "kind", "digest"]),
)
_STORE_REFERENCES = Step(STORE_REFERENCES)
_REMOVE_REFERENCES = delete(manifest_references).where(
    manifest_references.c.repository_id == bindparam("repository"),
    manifest_references.c.manifest == bindparam("digest"),
)

_TAG = and_(tags.c.repository_id == bindparam("repository"), tags.c.name == bindparam("tag"))
_TAG_NOW = Step(select(tags.c.digest).where(_TAG).with_for_update())
_MAKE_TAG = Step(
    Upsert(
        tags,
        lambda insert: insert.on_conflict_do_nothing(index_elements=["repository_id", "name"]).returning(tags.c.name),
    )
)
_MOVE_TAG = Step(update(tags).where(_TAG).values(digest=bindparam("to"), updated_at=bindparam("at")))
_REMOVE_TAG = delete(tags).where(_TAG).returning(tags.c.digest)
_REMOVE_TAGS_AT = (
    delete(tags)
    .where(tags.c.repository_id == bindparam("repository"), tags.c.digest == bindparam("digest"))
    .returning(tags.c.name)
)
_NOTE = Step(insert(tag_journal))

_REMOVE = delete(manifests).where(_ONE)
_REMOVE_CONTENT = delete(contents).where(
    contents.c.digest == bindparam("digest"),
    ~select(manifests.c.digest).where(manifests.c.digest == bindparam("digest")).exists(),
)
_SOURCES_OF = (
    select(derivation_manifests.c.source)
    .where(
        derivation_manifests.c.repository_id == bindparam("repository"),
        derivation_manifests.c.digest == bindparam("digest"),
    )
    .distinct()
)
_DERIVED_FROM = union(
    select(derivation_manifests.c.digest).where(
        derivation_manifests.c.repository_id == bindparam("repository"),
        derivation_manifests.c.source == bindparam("digest"),
    ),
    select(derivation_manifests.c.digest)
    .join(derivations, derivations.c.id == derivation_manifests.c.derivation_id)
    .where(derivations.c.repository_id == bindparam("repository"), derivations.c.source == bindparam("digest")),
)
_FORGET_DERIVED_FROM = delete(derivation_manifests).where(
    derivation_manifests.c.repository_id == bindparam("repository"),
    derivation_manifests.c.source == bindparam("digest"),
)
_REMOVE_UNLESS_DERIVED_ELSEWHERE = delete(manifests).where(
    _ONE,
    manifests.c.derived,
    ~select(derivation_manifests.c.digest)
    .where(
        derivation_manifests.c.repository_id == bindparam("repository"),
        derivation_manifests.c.digest == bindparam("digest"),
    )
    .exists(),
)


class DatabaseManifests:
    """`ManifestStore` on a database."""

    def __init__(self, access: Access, announcer: Announcer) -> None:
        self._access = access
        self._announcer = announcer

    async def find_by_tag(self, repository: RepositoryName, tag: Tag) -> ManifestRecord | None:
        """Return what the tag points at now."""
        return _record(await self._access.row(FIND_BY_TAG, repository.value, tag.value))

    async def find_by_digest(self, repository: RepositoryName, digest: Digest) -> ManifestRecord | None:
        """Return the manifest if this repository holds it."""
        return _record(await self._access.row(FIND_BY_DIGEST, repository.value, str(digest)))

    async def content(self, digest: Digest) -> bytes:
        """Return the exact bytes."""
        row = await self._access.row(CONTENT, str(digest))
        if row is None:
            raise KeyError(str(digest))
        return bytes(row[0])

    async def put(
        self,
        repository: RepositoryName,
        manifest: NewManifest,
        tags: Sequence[Tag],
        *,
        condition: TagCondition | None = None,
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> None:
        """Store a manifest, point the tags at it, write their journal."""
        move = _Move(repository, immutable, condition, ChangeOrigin.PUSH, to_micros(now))
        references = references_of(manifest.raw) if self._announcer.references else ()

        def describe(_: Connection, __: None) -> Iterable[Event]:
            size = len(manifest.raw)
            return manifest_pushed(
                repository, manifest.digest, manifest.media_type, size, tags, references=references, cause=cause, at=now
            )

        await self._announcer.write(describe, _put, manifest, tags, move)

    async def restore(
        self,
        repository: RepositoryName,
        tag: Tag,
        digest: Digest,
        *,
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> bool:
        """Point a tag at a manifest that the repository holds."""
        move = _Move(repository, immutable, None, ChangeOrigin.RESTORE, to_micros(now))

        def describe(connection: Connection, is_here: bool) -> Iterable[Event]:  # noqa: FBT001 - an intention's result
            if not is_here:
                return ()
            held = connection.execute(_TOLD, {"repository": repository.value, "digest": str(digest)}).one()
            references = references_of(held.body) if self._announcer.references else ()
            # To whoever follows the tag it is a push like any other.
            return manifest_pushed(
                repository, digest, held.media_type, held.size, [tag], references=references, cause=cause, at=now
            )

        return await self._announcer.write(describe, _restored, tag, digest, move, cause.asked)

    async def delete(
        self,
        repository: RepositoryName,
        digest: Digest,
        *,
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> Sequence[Tag] | None:
        """Remove a manifest, or the source of a derived one, and every tag at it; return those tags."""

        def describe(_: Connection, deleted: _Deleted | None) -> Iterable[Event]:
            if deleted is None:
                return ()
            return manifest_deleted(repository, deleted.digests, deleted.tags, cause=cause, at=now)

        deleted = await self._announcer.write(
            describe, _deleted, repository, digest, immutable, to_micros(now), cause.asked
        )
        return None if deleted is None else deleted.tags

    async def delete_tag(
        self,
        repository: RepositoryName,
        tag: Tag,
        *,
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> bool:
        """Remove a tag, not what it points at."""

        def describe(_: Connection, was_there: bool) -> Iterable[Event]:  # noqa: FBT001 - an intention's result
            return (tag_deleted(repository, tag, cause=cause, at=now),) if was_there else ()

        return await self._announcer.write(
            describe, _tag_deleted, repository, tag, immutable, to_micros(now), cause.asked
        )


def _restored(connection: Connection, tag: Tag, digest: Digest, move: "_Move", asked: Asked | None) -> bool:
    if not _restore(connection, tag, digest, move):
        return False
    write_act(connection, asked, ActKind.TAG_RESTORE, f"{move.repository}:{tag}", f"to {digest}")
    return True


def _deleted(
    connection: Connection,
    repository: RepositoryName,
    digest: Digest,
    immutable: ImmutableTags,
    at: int,
    asked: Asked | None,
) -> "_Deleted | None":
    deleted = _delete(connection, repository, digest, immutable, at)
    if deleted is not None:
        said = f"with its tags: {', '.join(tag.value for tag in deleted.tags)}" if deleted.tags else ""
        write_act(connection, asked, ActKind.MANIFEST_DELETE, f"{repository}@{digest}", said)
    return deleted


def _tag_deleted(
    connection: Connection,
    repository: RepositoryName,
    tag: Tag,
    immutable: ImmutableTags,
    at: int,
    asked: Asked | None,
) -> bool:
    if not _delete_tag(connection, repository, tag, immutable, at):
        return False
    write_act(connection, asked, ActKind.TAG_DELETE, f"{repository}:{tag}")
    return True


@dataclass(frozen=True, slots=True)
class _Move:
    """How tags of a repository move in one transaction."""

    repository: RepositoryName
    immutable: ImmutableTags
    condition: TagCondition | None
    origin: ChangeOrigin
    at: int


@dataclass(frozen=True, slots=True)
class _Deleted:
    """What a delete took away: the manifests, and the tags that were at them."""

    digests: Sequence[Digest]
    tags: Sequence[Tag]


def _record(row: Row | None) -> ManifestRecord | None:
    return None if row is None else _recorded(*row)


@lru_cache(maxsize=1024)
def _recorded(digest: str, media_type: str, size: int) -> ManifestRecord:
    """Return a row's values parsed; remembered, for popular images are asked for again and again."""
    return ManifestRecord(Digest.parse(digest), media_type, size)


@dataclass(frozen=True, slots=True)
class _Held:
    """A manifest that a repository holds."""

    media_type: str
    derived: bool
    pushed_at: int
    subject: str | None

    @property
    def is_attached(self) -> bool:
        """Say whether it was made here to say something of a derived image: then it stands for itself alone."""
        return bool(self.derived) and self.subject is not None


def _held(connection: Connection, number: int, digest: Digest) -> _Held | None:
    row = _HELD.first(connection, {"repository": number, "digest": str(digest)})
    return None if row is None else _Held(*row)


def _put(connection: Connection, manifest: NewManifest, new_tags: Sequence[Tag], move: _Move) -> None:
    at = move.at
    number = repository_rows.make_listed(connection, move.repository, at)
    _require(connection, move.repository, number, manifest.references, at)
    held = _held(connection, number, manifest.digest)
    if held is None or held.derived or held.media_type != manifest.media_type:
        _store(connection, number, manifest, at)
        _store_references(connection, number, manifest, replace=held is not None)
    elif at - held.pushed_at > _STILL_YOUNG:
        # Untagged manifests are collected by age: whoever pushes a part of an index again has all the time anew.
        connection.execute(_PUSHED_AGAIN, {"repository": number, "pushed": str(manifest.digest), "at": at})
    # One order for everybody, so that two pushes of the same tags don't wait for each other.
    for tag in sorted(set(new_tags)):
        _point(connection, number, tag, manifest.digest, move)


def _restore(connection: Connection, tag: Tag, digest: Digest, move: _Move) -> bool:
    number = repository_rows.share(connection, move.repository)
    if number is None:
        return False
    held = _held(connection, number, digest)
    if held is None or held.derived:  # no tag was ever at what was derived
        return False
    _point(connection, number, tag, digest, move)
    return True


def _require(
    connection: Connection, repository: RepositoryName, number: int, references: Sequence[ManifestReference], at: int
) -> None:
    """Raise unless the repository holds what is needed; what collection has condemned lives on.

    Of what is optional a repository may hold some: that has to fit and lives on just the same.
    """
    children = [reference.digest for reference in references if reference.kind is ReferenceKind.CHILD]
    held = blob_rows.held_among(
        connection, number, [reference.digest for reference in references if reference.kind is not ReferenceKind.CHILD]
    )
    sizes = {digest: blob.size for digest, blob in held.items() if blob.state != blob_rows.DELETING}
    child_sizes = _sizes_among(connection, number, children)
    actual = [(child_sizes if reference.kind is ReferenceKind.CHILD else sizes).get(reference.digest)
              for reference in references]  # fmt: skip
    missing = [
        reference.digest
        for reference, size in zip(references, actual, strict=True)
        if size is None and not reference.optional
    ]
    if missing:
        raise ManifestBlobUnknownError(repository, list(dict.fromkeys(missing)))
    for reference, size in zip(references, actual, strict=True):
        if size is not None and size != reference.size:
            raise DescriptorSizeError(reference.digest, reference.size, size)
    blob_rows.revive(connection, [d for d, blob in held.items() if blob.state == blob_rows.CONDEMNED], at)


def _sizes_among(connection: Connection, number: int, digests: Sequence[Digest]) -> dict[Digest, int]:
    by_text = {str(digest): digest for digest in digests}
    sizes: dict[Digest, int] = {}
    for part in blob_rows.parts(by_text):
        for text, size in _SIZES_AMONG.rows(connection, {"repository": number, "digests": part}):
            sizes[by_text[text]] = size
    return sizes


def _store(connection: Connection, number: int, manifest: NewManifest, at: int) -> None:
    digest = str(manifest.digest)
    subject = None if manifest.subject is None else str(manifest.subject)
    _STORE_CONTENT.count(connection, {"digest": digest, "body": manifest.raw})
    row = {
        "repository_id": number,
        "digest": digest,
        "media_type": manifest.media_type,
        "size": len(manifest.raw),
        "artifact_type": manifest.artifact_type,
        "subject": subject,
        "annotations": None if subject is None or not manifest.annotations else json.dumps(dict(manifest.annotations)),
        "derived": False,
        "pushed_at": at,
    }
    _STORE.count(connection, row)


def _store_references(connection: Connection, number: int, manifest: NewManifest, *, replace: bool) -> None:
    digest = str(manifest.digest)
    if replace:
        connection.execute(_REMOVE_REFERENCES, {"repository": number, "digest": digest})
    references = [
        {
            "repository_id": number,
            "manifest": digest,
            "kind": reference.kind.value,
            "digest": str(reference.digest),
            "optional": reference.optional,
        }
        for reference in manifest.references
    ]
    _STORE_REFERENCES.each(connection, references)


def _point(connection: Connection, number: int, tag: Tag, digest: Digest, move: _Move) -> None:
    """Point a tag at a manifest and note it; nothing is noted where it points there already."""
    key: dict[str, Any] = {"repository": number, "tag": tag.value}
    new = {"repository_id": number, "name": tag.value, "digest": str(digest), "updated_at": move.at}
    for _ in range(_MOVE_ATTEMPTS):
        previous: str | None = _TAG_NOW.one(connection, key)
        _check(move.condition, tag, previous)
        if previous == str(digest):
            return
        if previous is not None:
            require_mutable(move.repository, tag, previous, digest, move.immutable)
            _MOVE_TAG.count(connection, key | {"to": str(digest), "at": move.at})
        elif _MAKE_TAG.first(connection, new) is None:
            continue  # made by another push since we looked: it is the previous one
        note(connection, number, [tag.value], str(digest), previous, move.at, move.origin)
        return
    raise StoreBusyError(f"tag {tag} is made and removed faster than it can be moved; try again")


def _check(condition: TagCondition | None, tag: Tag, previous: str | None) -> None:
    if condition is None:
        return
    met = (
        previous is None
        if condition.absent
        else (previous is not None or not (condition.any_existing or condition.match))
        and (not condition.match or previous in {str(digest) for digest in condition.match})
        and previous not in {str(digest) for digest in condition.none_match}
    )
    if not met:
        raise TagConditionError(tag, None if previous is None else Digest.parse(previous))


def _delete(
    connection: Connection, repository: RepositoryName, digest: Digest, immutable: ImmutableTags, at: int
) -> _Deleted | None:
    number = repository_rows.have_alone(connection, repository)
    if number is None:
        return None
    key: dict[str, Any] = {"repository": number, "digest": str(digest)}
    held = _held(connection, number, digest)
    doomed = [str(digest)]
    if held is None or (held.derived and not held.is_attached):
        doomed = sorted(connection.execute(_SOURCES_OF, key).scalars()) or doomed
    gone: list[Digest] = []
    removed: list[str] = []
    for text in doomed:
        require_untied(connection, repository, number, text, immutable)
        removed += _untag(connection, number, text, at)
        if remove(connection, number, text):
            gone.append(Digest.parse(text))
    if not gone:
        return None
    repository_rows.unlist_if_empty(connection, number)
    return _Deleted(gone, [Tag.parse(text) for text in sorted(removed)])


def _untag(connection: Connection, number: int, digest: str, at: int) -> list[str]:
    """Remove the tags at a manifest and note it; return them."""
    names = list(connection.execute(_REMOVE_TAGS_AT, {"repository": number, "digest": digest}).scalars())
    note(connection, number, sorted(names), None, digest, at, ChangeOrigin.DELETE)
    return names


def remove(connection: Connection, number: int, digest: str) -> bool:
    """Remove a manifest and all that came of it alone; False if it wasn't there."""
    key: dict[str, Any] = {"repository": number, "digest": digest}
    derived = list(connection.execute(_DERIVED_FROM, key).scalars())
    connection.execute(_FORGET_DERIVED_FROM, key)
    there = connection.execute(_REMOVE, key).rowcount == 1  # its references and derivations go with it
    connection.execute(_REMOVE_CONTENT, {"digest": digest})
    for text in derived:
        connection.execute(_REMOVE_UNLESS_DERIVED_ELSEWHERE, {"repository": number, "digest": text})
        connection.execute(_REMOVE_CONTENT, {"digest": text})
    return there


def _delete_tag(
    connection: Connection, repository: RepositoryName, tag: Tag, immutable: ImmutableTags, at: int
) -> bool:
    number = repository_rows.find(connection, repository)
    if number is None:
        return False
    previous = connection.execute(_REMOVE_TAG, {"repository": number, "tag": tag.value}).scalar_one_or_none()
    if previous is None:
        return False
    require_mutable(repository, tag, previous, None, immutable)  # what is raised undoes the removal
    note(connection, number, [tag.value], None, previous, at, ChangeOrigin.UNTAG)
    return True


def note(
    connection: Connection,
    number: int,
    names: Iterable[str],
    digest: str | None,
    previous: str | None,
    at: int,
    origin: ChangeOrigin,
) -> None:
    """Write a line of the journal for each of these tags, in the transaction that changed them."""
    lines = [
        {
            "repository_id": number,
            "tag": name,
            "digest": digest,
            "previous": previous,
            "at": at,
            "origin": origin.value,
        }
        for name in names
    ]
    _NOTE.each(connection, lines)


if TYPE_CHECKING:
    _: type[ManifestStore] = DatabaseManifests
