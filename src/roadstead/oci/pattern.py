"""Patterns of images: what rules, immutable tags and retention are written with.

A pattern is ``REPOSITORY[:TAG]``, both parts globs over the whole name:

    *     any characters except ``/`` (also none)
    **    any characters, ``/`` included
    no tag part: every tag

``library/*:latest`` is the tag ``latest`` of every repository right below ``library``; ``team/**`` is every tag of
every repository anywhere below ``team``; ``**`` is everything.

Patterns run as bit-parallel automata (Baeza-Yates and Gonnet: one bit for each place in the pattern), so that a match
takes one step a character, whatever the pattern. Names come from clients: no pattern can be made to take long.
"""

import re
from dataclasses import dataclass, field
from typing import Self

from roadstead.errors import InvalidError
from roadstead.oci.reference import RepositoryName, Tag

MAX_PATTERN = 512  # characters; a repository name has 255 at most, a tag 128
_TOKEN = re.compile(r"\*\*|.", re.DOTALL)
_REPOSITORY_OTHER = re.compile(r"[^a-z0-9._/*-]")
_TAG_OTHER = re.compile(r"[^A-Za-z0-9._*-]")


class PatternInvalidError(InvalidError):
    """A pattern that can't match any image, or isn't a pattern."""

    def __init__(self, pattern: str, reason: str) -> None:
        super().__init__(f"pattern {pattern!r}: {reason}")
        self.pattern = pattern
        self.reason = reason

    def advice(self) -> str:
        """Return examples that work."""
        return 'write REPOSITORY or REPOSITORY:TAG, for example "library/*:latest", "team/**" or "**"'


class Glob:
    """One part of a pattern, compiled: bit ``i`` of a state means "the first ``i`` plain characters are matched"."""

    __slots__ = ("_accept", "_loops", "_slash_loops", "_steps")

    def __init__(self, text: str) -> None:
        loops = slash_loops = position = 0
        steps: dict[str, int] = {}
        for token in _TOKEN.findall(text):
            if token == "**":  # noqa: S105 (a glob, no password)
                slash_loops |= 1 << position
            if token in {"*", "**"}:
                loops |= 1 << position
            else:
                steps[token] = steps.get(token, 0) | 1 << position
                position += 1
        self._steps = steps
        self._loops = loops
        self._slash_loops = slash_loops
        self._accept = 1 << position

    def matches(self, name: str) -> bool:
        """Say whether the whole name fits: one step a character."""
        states = 1
        for character in name:
            stay = self._slash_loops if character == "/" else self._loops
            states = (states & self._steps.get(character, 0)) << 1 | (states & stay)
            if not states:
                return False
        return bool(states & self._accept)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern of images, checked and compiled. ``str()`` gives back the text."""

    text: str
    _repository: Glob = field(compare=False, repr=False)
    _tag: Glob | None = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a pattern; PatternInvalidError says what is wrong with it."""
        if len(text) > MAX_PATTERN:
            raise PatternInvalidError(f"{text[:40]}…", f"longer than {MAX_PATTERN} characters")
        if "@" in text:
            raise PatternInvalidError(text, "rules match tags; what is pulled by digest is never changed")
        repository, colon, tag = text.partition(":")
        _check_repository(text, repository)
        if colon:
            _check_tag(text, tag)
        return cls(text, Glob(repository), Glob(tag) if colon else None)

    def matches(self, repository: RepositoryName, tag: Tag) -> bool:
        """Say whether this tag of this repository falls under the pattern."""
        return self._repository.matches(str(repository)) and (self._tag is None or self._tag.matches(str(tag)))

    def matches_repository(self, repository: RepositoryName) -> bool:
        """Say whether some tag of this repository may fall under the pattern."""
        return self._repository.matches(str(repository))

    def __str__(self) -> str:
        return self.text


def _check_repository(pattern: str, repository: str) -> None:
    if not repository:
        raise PatternInvalidError(pattern, "the repository part is empty")
    if other := _REPOSITORY_OTHER.search(repository):
        raise PatternInvalidError(
            pattern, f"{other.group()!r} can't be in a repository: a-z, 0-9, '.', '_', '-' and '/', with * and **"
        )
    if "***" in repository:
        raise PatternInvalidError(pattern, "'***' is neither * nor **")
    if "" in repository.split("/"):
        raise PatternInvalidError(pattern, "a repository has no empty component: no '/' at either end, no '//'")


def _check_tag(pattern: str, tag: str) -> None:
    if not tag:
        raise PatternInvalidError(pattern, "the tag part is empty; leave out the ':' for every tag")
    if ":" in tag:
        raise PatternInvalidError(pattern, "more than one ':'; a repository's name holds no port")
    if other := _TAG_OTHER.search(tag):
        raise PatternInvalidError(
            pattern, f"{other.group()!r} can't be in a tag: letters, digits, '.', '_' and '-', with *"
        )
    if "**" in tag:
        raise PatternInvalidError(pattern, "a tag has no '/', so * is enough there")
