"""Rules: which plan a pull by tag gets (``[[augment.rules]]``, design "The door").

A rule's pattern is one of ``oci.pattern``. The first rule that matches decides; there's no merging.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from typing import Self

from roadstead.augment.locations import LayerClaim
from roadstead.augment.plan import Plan, Profile
from roadstead.errors import InvalidError
from roadstead.oci.descriptor import Platform
from roadstead.oci.digest import Digest
from roadstead.oci.pattern import Pattern
from roadstead.oci.reference import RepositoryName, Tag

_REMEMBERED = 4096  # (repository, tag) pairs a worker keeps the answer for


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """A layer as settings name it: a directory, a ``.tar`` or a ``.tar.gz``, for one platform or all.

    Or one that lies elsewhere; then ``path`` doesn't count.
    """

    path: str | PathLike[str] = ""
    platform: Platform | None = None
    claim: LayerClaim | None = None


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
    labels: Sequence[str] = ()  # "NAME=value"
    includes: Sequence[str] = ()  # images, with their registries
    profile: Profile = Profile.NATIVE


class RuleInvalidError(InvalidError):
    """A rule that can't be carried out; ``match`` says which."""

    def __init__(self, match: str, reason: str) -> None:
        super().__init__(f"the rule with match = {match!r}: {reason}")
        self.match = match
        self.reason = reason


class RulesInvalidError(InvalidError):
    """A text that isn't the JSON of prepared rules."""


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

    def first_match(self, repository: RepositoryName, tag: Tag, also: RepositoryName | None = None) -> Plan | None:
        """Return the plan of the first rule that matches, or None. A look-up in a dictionary when asked again.

        `also` is another name of the same repository.
        """
        if not self.rules:
            return None
        rule = self._first_match(repository, tag, also)
        return None if rule is None else rule.plan

    def pattern_of(self, repository: RepositoryName, tag: Tag, also: RepositoryName | None = None) -> str | None:
        """Return the pattern of the first rule that matches, or None."""
        rule = self._first_match(repository, tag, also)
        return None if rule is None else str(rule.match)

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

    def _search(self, repository: RepositoryName, tag: Tag, also: RepositoryName | None) -> Rule | None:
        names = (repository,) if also is None else (repository, also)
        return next((rule for rule in self.rules if any(rule.match.matches(name, tag) for name in names)), None)
