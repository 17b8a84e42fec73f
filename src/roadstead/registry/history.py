"""Where tags pointed, and putting one back (docs/how-to/tag-history.md)."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import datetime

from roadstead.clock import Clock
from roadstead.errors import NotFoundError
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.immutable import ImmutableTags
from roadstead.registry.ports import JournalStore, ManifestStore, TagChange

PAGE = 100


class PastUnknownError(NotFoundError):
    """The tag pointed nowhere then, or what it pointed at is gone."""

    def __init__(self, repository: RepositoryName, tag: Tag, reason: str) -> None:
        super().__init__(f"{repository}:{tag} can't be put back: {reason}")
        self.repository = repository
        self.tag = tag

    def advice(self) -> str:
        """Return where to look."""
        return f"`roadstead tag history {self.repository}:{self.tag}` lists where it pointed"


class TagHistory:
    """Reads the journal of tags and acts on it."""

    def __init__(
        self, journal: JournalStore, manifests: ManifestStore, clock: Clock, *, immutable: ImmutableTags
    ) -> None:
        self._journal = journal
        self._manifests = manifests
        self._clock = clock
        self._immutable = immutable

    async def changes(self, repository: RepositoryName, tag: Tag) -> AsyncGenerator[TagChange, None]:
        """Yield every change of a tag, the latest first."""
        before: int | None = None
        while page := await self._journal.tag_changes(repository, tag, before=before, limit=PAGE):
            for change in page:
                yield change
            before = page[-1].position

    async def restore(
        self, repository: RepositoryName, tag: Tag, *, at: datetime | None = None, position: int | None = None
    ) -> Digest:
        """Put a tag back to where it pointed at a moment, from a position of its journal on, or before its last change.

        That is a change like any other, and in the journal. Returns the digest. Raises PastUnknownError, and
        TagImmutableError.
        """
        async with aclosing(self.changes(repository, tag)) as changes:
            digest = await _find(changes, at=at, position=position)
        if digest is None:
            raise PastUnknownError(repository, tag, "it pointed nowhere then")
        restored = await self._manifests.restore(
            repository, tag, digest, immutable=self._immutable, now=self._clock.now()
        )
        if not restored:
            raise PastUnknownError(repository, tag, f"{digest}, where it pointed then, is not here any more")
        return digest


async def _find(changes: AsyncIterator[TagChange], *, at: datetime | None, position: int | None) -> Digest | None:
    async for change in changes:
        if at is None and position is None:
            return change.previous
        if (at is None or change.at <= at) and (position is None or change.position == position):
            return change.digest
    return None
