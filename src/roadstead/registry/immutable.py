"""Tags that stay where they are once they were pushed (``registry.immutable``)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from roadstead.oci.digest import Digest
from roadstead.oci.pattern import Pattern
from roadstead.oci.reference import RepositoryName, Tag


@dataclass(frozen=True, slots=True)
class ImmutableTags:
    """Which tags may be made and never moved or removed. Pure; the stores ask it inside their transactions."""

    patterns: tuple[Pattern, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Self:
        """Read patterns of ``repository:tag``; PatternInvalidError."""
        return cls(tuple(Pattern.parse(text) for text in texts))

    def covers(self, repository: RepositoryName, tag: Tag) -> bool:
        """Say whether the tag stays where it is."""
        return any(pattern.matches(repository, tag) for pattern in self.patterns)

    def forbids(self, repository: RepositoryName, tag: Tag, current: Digest | None, new: Digest | None) -> bool:
        """Say whether a tag that is at `current` may not be put at `new`; None is nowhere.

        It may be made, and pushed again as it is.
        """
        return current is not None and current != new and self.covers(repository, tag)


NOTHING_IMMUTABLE = ImmutableTags()
