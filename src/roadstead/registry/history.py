"""Where tags pointed, pulling what they pointed at then, and putting one back (docs/how-to/tag-history.md).

A moment in the name of an image is written with what names may hold (docs/decisions/0021-as-of.md): ``2026-11-22``,
``2026-11-22t10.00``, ``2026-11-22t10.00.30``, ``2026-11-22t10.00.30.250000``, each with or without a ``z``. It is UTC.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final

from roadstead.clock import Clock
from roadstead.errors import InvalidError, NotFoundError
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.immutable import ImmutableTags
from roadstead.registry.ports import JournalStore, ManifestStore, TagChange

PAGE = 100
AS_OF: Final = "as-of"
"""First component of names by which tags are pulled as they were: ``as-of/TIME/team/app:latest``."""

_MOMENT = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:t(?P<hour>[0-9]{2})\.(?P<minute>[0-9]{2})(?:\.(?P<second>[0-9]{2})(?:\.(?P<fraction>[0-9]{1,6}))?)?z?)?"
)


class MomentInvalidError(InvalidError):
    """What stands behind ``as-of/`` isn't a time, or no repository follows."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text[:80]!r} isn't a time: a tag as it was is {AS_OF}/TIME/REPOSITORY:TAG")
        self.text = text

    def advice(self) -> str:
        """Show how a time is written."""
        return "Write it in UTC, with what names may hold: 2026-11-22, 2026-11-22t10.00z or 2026-11-22t10.00.30z."


class NotThenError(NotFoundError):
    """A tag pointed nowhere at a moment, or what it pointed at is gone, or the moment is yet to come."""

    def __init__(self, repository: RepositoryName, tag: Tag, moment: datetime, reason: str) -> None:
        super().__init__(f"{repository}:{tag} as of {moment:%Y-%m-%d %H:%M:%S} UTC: {reason}")
        self.repository = repository
        self.tag = tag
        self.moment = moment

    def advice(self) -> str:
        """Return where to look."""
        return f"`roadstead tag history {self.repository}:{self.tag}` on the server lists where it pointed, and when"


def parse_moment(text: str) -> datetime:
    """Read a moment of a name; raises MomentInvalidError. `format_moment` is the inverse."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise MomentInvalidError(text)
    time = f"{match['hour'] or '00'}:{match['minute'] or '00'}:{match['second'] or '00'}"
    try:
        whole = datetime.fromisoformat(f"{match['date']}T{time}").replace(tzinfo=UTC)
    except ValueError as error:  # the 31st of June, or the 25th hour
        raise MomentInvalidError(text) from error
    return whole.replace(microsecond=int((match["fraction"] or "").ljust(6, "0")))


def format_moment(moment: datetime) -> str:
    """Write a moment as a name holds it, exact to the microsecond, and no longer than that takes."""
    fraction = f".{moment.microsecond:06}" if moment.microsecond else ""
    return f"{moment.astimezone(UTC):%Y-%m-%dt%H.%M.%S}{fraction}z"


def as_of(moment: datetime, repository: RepositoryName, tag: Tag) -> str:
    """Return the name by which a tag is pulled as it was at that moment, without a host."""
    return f"{AS_OF}/{format_moment(moment)}/{repository}:{tag}"


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

    async def at(self, repository: RepositoryName, tag: Tag, moment: datetime) -> Digest:
        """Return where a tag pointed at a moment; raises NotThenError."""
        if moment > self._clock.now():
            raise NotThenError(repository, tag, moment, "that is yet to come")
        change = await self._journal.tag_change_at(repository, tag, moment)
        if change is None:
            raise NotThenError(repository, tag, moment, "it was never pushed by then")
        if change.digest is None:
            raise NotThenError(repository, tag, moment, "it was removed then")
        return change.digest

    async def restore(
        self, repository: RepositoryName, tag: Tag, *, at: datetime | None = None, position: int | None = None
    ) -> Digest:
        """Put a tag back to where it pointed at a moment, from a position of its journal on, or before its last change.

        That is a change like any other, and in the journal. Returns the digest. Raises PastUnknownError, and
        TagImmutableError.
        """
        async with aclosing(self.changes(repository, tag)) as changes:
            change = await _find(changes, at=at, position=position)
        if change is None and position is not None:
            raise PastUnknownError(repository, tag, f"its history has no line {position}")
        is_last = at is None and position is None
        digest = None if change is None else change.previous if is_last else change.digest
        if digest is None:
            raise PastUnknownError(repository, tag, "it pointed nowhere then")
        restored = await self._manifests.restore(
            repository, tag, digest, immutable=self._immutable, now=self._clock.now()
        )
        if not restored:
            raise PastUnknownError(repository, tag, f"{digest}, where it pointed then, is not here any more")
        return digest


async def _find(changes: AsyncIterator[TagChange], *, at: datetime | None, position: int | None) -> TagChange | None:
    """Return the change of that position, the last one up to that moment, or the last one."""
    async for change in changes:
        if (at is None or change.at <= at) and (position is None or change.position == position):
            return change
    return None
