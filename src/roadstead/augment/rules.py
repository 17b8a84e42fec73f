"""Rules: which plan a pull by tag gets (``[[augment.rules]]``, design "The door").

A pattern is ``REPOSITORY[:TAG]``, both parts globs over the whole name:

    *     any characters except ``/`` (also none)
    **    any characters, ``/`` included
    no tag part: every tag

``library/*:latest`` is the tag ``latest`` of every repository right below ``library``; ``team/**`` is every tag of
every repository anywhere below ``team``; ``**`` is everything. The first rule that matches decides; there's no merging.

Patterns run as bit-parallel automata (Baeza-Yates and Gonnet: one bit for each place in the pattern), so that a match
takes one step a character, whatever the pattern. Names come from clients: no pattern can be made to take long.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from os import PathLike
from typing import Self

from roadstead.augment.plan import Plan
from roadstead.errors import InvalidError
from roadstead.oci.descriptor import Platform
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag

MAX_PATTERN = 512  # characters; a repository name has 255 at most, a tag 128
_REMEMBERED = 4096  # (repository, tag) pairs a worker keeps the answer for
_TOKEN = re.compile(r"\*\*|.", re.DOTALL)
_REPOSITORY_OTHER = re.compile(r"[^a-z0-9._/*-]")
_TAG_OTHER = re.compile(r"[^A-Za-z0-9._*-]")


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """A layer as settings name it: a directory, a ``.tar`` or a ``.tar.gz``, for one platform or all."""

    path: str | PathLike[str]
    platform: Platform | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSpec:
    """One ``[[augment.rules]]`` as settings hand it over: nothing is read or checked yet.

    None keeps what the image has; an empty ``entrypoint`` or ``cmd`` clears it.
    """

    match: str
    layers: Sequence[LayerSpec] = ()
    env: Sequence[str] = ()  # "NAME=value"
    entrypoint: Sequence[str] | None = None
    cmd: Sequence[str] | None = None
    workdir: str | None = None


class PatternInvalidError(InvalidError):
    """A rule's pattern that can't match any image, or isn't a pattern."""

    def __init__(self, pattern: str, reason: str) -> None:
        super().__init__(f"match = {pattern!r}: {reason}")
        self.pattern = pattern
        self.reason = reason

    def advice(self) -> str:
        """Return examples that work."""
        return 'write REPOSITORY or REPOSITORY:TAG, for example "library/*:latest", "team/**" or "**"'


class RuleInvalidError(InvalidError):
    """A rule that can't be carried out; ``match`` says which."""

    def __init__(self, match: str, reason: str) -> None:
        super().__init__(f"the rule with match = {match!r}: {reason}")
        self.match = match
        self.reason = reason


class RulesInvalidError(InvalidError):
    """A text that isn't the JSON of prepared rules."""


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
    """A rule's ``match``, checked and compiled. ``str()`` gives back the text."""

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
        """Say whether a pull of this tag falls under the pattern."""
        return self._repository.matches(str(repository)) and (self._tag is None or self._tag.matches(str(tag)))

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


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern and what the pulls that match it get."""

    match: Pattern
    plan: Plan


class Rules:
    """All rules of a service in their order, immutable; answers are remembered, for they depend on names alone.

    The supervisor prepares rules once (``layers.prepare_rules``) and hands every worker the same by ``to_json``.
    """

    __slots__ = ("_first_match", "rules")

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self._first_match = lru_cache(maxsize=_REMEMBERED)(self._search)

    def first_match(self, repository: RepositoryName, tag: Tag) -> Plan | None:
        """Return the plan of the first rule that matches, or None. A look-up in a dictionary when asked again."""
        if not self.rules:
            return None
        return self._first_match(repository, tag)

    def layers(self) -> frozenset[Digest]:
        """Return the digests of all layers that the rules add."""
        return frozenset(layer.gzip_digest for rule in self.rules for layer in rule.plan.layers)

    def to_json(self) -> str:
        """Return the rules as JSON, for another process; ``from_json`` is the inverse."""
        rules = [{"match": str(rule.match), "plan": rule.plan.canonical()} for rule in self.rules]
        return json.dumps({"rules": rules}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read rules that ``to_json`` wrote; RulesInvalidError, PatternInvalidError, PlanInvalidError."""
        try:
            rules = [(rule["match"], rule["plan"]) for rule in json.loads(text)["rules"]]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise RulesInvalidError(f"these are not prepared rules: {error!r}") from error
        return cls(Rule(Pattern.parse(str(match)), Plan.parse(str(plan))) for match, plan in rules)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rules) and self.rules == other.rules

    def __hash__(self) -> int:
        return hash(self.rules)

    def __repr__(self) -> str:
        return f"Rules({self.rules!r})"

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return type(self).from_json, (self.to_json(),)

    def _search(self, repository: RepositoryName, tag: Tag) -> Plan | None:
        return next((rule.plan for rule in self.rules if rule.match.matches(repository, tag)), None)
