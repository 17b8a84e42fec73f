"""Which tags are kept, by rules (``[[gc.retention]]``): pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from roadstead.errors import InvalidError
from roadstead.oci.pattern import Glob, Pattern
from roadstead.oci.reference import RepositoryName
from roadstead.registry.immutable import NOTHING_IMMUTABLE, ImmutableTags
from roadstead.registry.ports import TagAge


class RetentionInvalidError(InvalidError):
    """A rule that would keep nothing."""

    def __init__(self, match: str) -> None:
        super().__init__(f"the retention rule with match = {match!r} says nothing of what is kept")
        self.match = match

    def advice(self) -> str:
        """Return what is missing."""
        return "give at least one of keep_newest, keep_younger and keep_matching"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRule:
    """Which of the tags that a pattern matches are kept: what any of the three says. The others go."""

    match: Pattern
    keep_newest: int | None = None  # so many of each repository, by when they were made or moved
    keep_younger: timedelta | None = None
    keep_matching: tuple[str, ...] = ()  # globs of tags
    _globs: tuple[Glob, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.keep_newest is None and self.keep_younger is None and not self.keep_matching:
            raise RetentionInvalidError(str(self.match))
        object.__setattr__(self, "_globs", tuple(Glob(text) for text in self.keep_matching))

    def expired(self, tags: Iterable[TagAge], now: datetime) -> list[TagAge]:
        """Return which of a repository's tags, all of them this rule's, go; the oldest last."""
        newest_first = sorted(tags, key=lambda tag: (tag.since, tag.tag), reverse=True)
        return [
            tag
            for tag in newest_first[self.keep_newest or 0 :]
            if not self._is_young(tag, now) and not any(glob.matches(tag.tag.value) for glob in self._globs)
        ]

    def _is_young(self, tag: TagAge, now: datetime) -> bool:
        return self.keep_younger is not None and tag.since > now - self.keep_younger


@dataclass(frozen=True, slots=True)
class Retention:
    """All rules, in their order: of each tag the first that matches decides. A tag that none matches is kept."""

    rules: tuple[RetentionRule, ...] = ()
    immutable: ImmutableTags = NOTHING_IMMUTABLE

    def expired(self, repository: RepositoryName, tags: Sequence[TagAge], now: datetime) -> list[TagAge]:
        """Return which tags of a repository go; never an immutable one, though it counts among the newest."""
        by_rule: dict[int, list[TagAge]] = {}
        for tag in tags:
            for number, rule in enumerate(self.rules):
                if rule.match.matches(repository, tag.tag):
                    by_rule.setdefault(number, []).append(tag)
                    break
        return [
            tag
            for number, mine in sorted(by_rule.items())
            for tag in self.rules[number].expired(mine, now)
            if not self.immutable.covers(repository, tag.tag)
        ]


KEEP_ALL = Retention()
