"""What an immutable tag holds fast, asked inside the transaction that would move or remove it.

The tag itself stays, and so does all that a pull of it needs: the manifest it is at, the parts of an index, and their
blobs. Else whoever may delete could break what they may not move (PROJQUAY-10504).
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, bindparam, select

from roadstead.db.schema import manifest_references, tags
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.errors import TagImmutableError
from roadstead.registry.immutable import ImmutableTags

_TAGS_AT = select(tags.c.name).where(
    tags.c.repository_id == bindparam("repository"), tags.c.digest == bindparam("digest")
)
_USED_BY = select(manifest_references.c.manifest).where(
    manifest_references.c.repository_id == bindparam("repository"),
    manifest_references.c.digest == bindparam("digest"),
)


def require_mutable(
    repository: RepositoryName, tag: Tag, current: str, new: Digest | None, immutable: ImmutableTags
) -> None:
    """Raise TagImmutableError where the tag may not be put at `new`; None is nowhere."""
    if immutable.patterns and immutable.forbids(repository, tag, Digest.parse(current), new):
        raise TagImmutableError(repository, tag, Digest.parse(current))


def require_untied(
    connection: Connection, repository: RepositoryName, number: int, digest: str, immutable: ImmutableTags
) -> None:
    """Raise TagImmutableError while an immutable tag is at the manifest, or at what needs this manifest or blob."""
    if not immutable.patterns:
        return
    waiting, seen = [digest], {digest}
    while waiting:
        current = waiting.pop()
        key: dict[str, Any] = {"repository": number, "digest": current}
        for name in connection.execute(_TAGS_AT, key).scalars():
            require_mutable(repository, Tag.parse(name), current, None, immutable)
        found: Iterable[str] = connection.execute(_USED_BY, key).scalars()
        using = set(found) - seen
        seen |= using
        waiting += using
