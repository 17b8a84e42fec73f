"""Who may do what: policies, and the decision they come to. Pure.

A policy says of subjects, repositories and actions that they are allowed or denied. One that denies wins over any that
allows, whatever their order, and what no policy allows is denied. A bearer token and an API key narrow this further.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from roadstead.auth.caller import Action, Caller, RepositoryGlob, Scope
from roadstead.auth.principal import Grant, Principal, PrincipalKind
from roadstead.auth.sight import Globs, Sight, common, shortest
from roadstead.errors import InvalidError
from roadstead.oci.pattern import Glob

ANYWHERE = "anywhere"
"""In an explanation, the place of an action that isn't done to a repository."""

_REMEMBERED = 16_384  # decisions of one process: some MiB, some more where each is of another token

_FEW_GRANTS = 4
"""What clients ask of a token for one image. A token may have hundreds, and take a hundred times as much."""

NOTHING = Sight((), (), None, ())
"""No repository at all."""

_WORDS = ("anonymous", "authenticated", "everyone")
_NAMED = re.compile(r"(user|robot|group|issued):(\S{1,255})")


class Effect(StrEnum):
    """What a policy comes to where it applies."""

    ALLOW = "allow"
    DENY = "deny"


class SubjectInvalidError(InvalidError):
    """A text doesn't name anybody."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"{text!r} names nobody: expected anonymous, authenticated, everyone, "
            "user:NAME, robot:NAME, group:NAME or issued:NAME"
        )


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a policy is about: ``user:ana``, ``group:ci``, ``anonymous``; in a name ``*`` stands for any characters."""

    text: str
    _kind: str = field(compare=False, repr=False)
    _name: Glob | None = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a subject; SubjectInvalidError."""
        if text in _WORDS:
            return cls(text, text, None)
        named = _NAMED.fullmatch(text)
        if named is None:
            raise SubjectInvalidError(text)
        return cls(text, named[1], Glob(named[2]))

    def matches(self, principal: Principal) -> bool:
        """Say whether the policy is about this one."""
        if self._name is None:
            anonymous = principal.kind is PrincipalKind.ANONYMOUS
            return self._kind == "everyone" or anonymous == (self._kind == "anonymous")
        if self._kind == "group":
            return any(self._name.matches(group) for group in principal.groups)
        return self._kind == principal.kind.value and self._name.matches(principal.name)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Policy:
    """One line of who may do what. ``name`` is where it was written (``auth.policies[0]``)."""

    name: str
    subjects: tuple[Subject, ...]
    repositories: tuple[RepositoryGlob, ...]
    actions: frozenset[Action]
    effect: Effect = Effect.ALLOW

    @classmethod
    def parse(
        cls,
        name: str,
        subjects: Iterable[str],
        repositories: Iterable[str],
        actions: Iterable[str],
        effect: str = Effect.ALLOW,
    ) -> Self:
        """Read a policy's texts; SubjectInvalidError, PatternInvalidError."""
        return cls(
            name,
            tuple(Subject.parse(text) for text in subjects),
            tuple(RepositoryGlob.parse(text) for text in repositories),
            frozenset(Action(text) for text in actions),
            Effect(effect),
        )

    def is_about(self, principal: Principal, action: Action) -> bool:
        """Say whether it speaks of this one doing that, in some repository or other."""
        return action in self.actions and any(subject.matches(principal) for subject in self.subjects)

    def applies(self, principal: Principal, action: Action, repository: str | None) -> bool:
        """Say whether it decides; where there is no repository (catalog, admin), repositories don't count."""
        if not self.is_about(principal, action):
            return False
        return repository is None or any(glob.matches(repository, principal.name) for glob in self.repositories)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether something is allowed, and why, for people.

    ``by_token``: it is the bearer token that isn't good for it, so the client may ask for one that is.
    """

    allowed: bool
    because: str
    by_token: bool = False


class Policies:
    """All policies; where none was written, whoever signed in may do what distribution lets them do.

    What they come to is remembered, by everything that it depends on: who asks with which groups, what narrows them,
    what, and where. It is arithmetic; who somebody is, and what narrows them, is found out anew each time.
    """

    def __init__(self, written: Sequence[Policy] = ()) -> None:
        self.written = tuple(written)
        self._decided: dict[tuple[Caller, Action, str | None], Decision] = {}

    @property
    def all(self) -> Sequence[Policy]:
        """Return the policies that count."""
        return self.written or DEFAULT

    def decide(self, caller: Caller, action: Action, repository: str | None) -> Decision:
        """Decide whether the caller may; `repository` is None for what isn't done to one."""
        asked = (caller, action, repository)
        decision = self._decided.get(asked)
        if decision is None:
            decision = self._decide(*asked)
            if caller.grants is None or len(caller.grants) <= _FEW_GRANTS:
                if len(self._decided) >= _REMEMBERED:
                    self._decided.clear()
                self._decided[asked] = decision
        return decision

    def _decide(self, caller: Caller, action: Action, repository: str | None) -> Decision:
        narrowed = _narrowed(caller, action, repository)
        if narrowed is not None:
            return narrowed
        principal = caller.principal
        if principal.kind is PrincipalKind.ISSUED and not self.written:
            return Decision(allowed=True, because="the token grants it, and no policies are written")
        place = ANYWHERE if repository is None else repository
        allowing = None
        for policy in self.all:
            if policy.applies(principal, action, repository):
                if policy.effect is Effect.DENY:
                    return Decision(allowed=False, because=f"{policy.name} denies {principal} to {action} {place}")
                allowing = allowing or policy
        if allowing is None:
            return Decision(allowed=False, because=f"no policy allows {principal} to {action} {place}")
        return Decision(allowed=True, because=f"{allowing.name} allows {principal} to {action} {place}")

    def sight(self, principal: Principal, key: Scope | None, action: Action) -> Sight:
        """Return which repositories `decide` lets them do it to, for whoever asks about many. Pure."""
        if key is not None and action not in key.actions:
            return NOTHING
        if principal.kind is PrincipalKind.ISSUED and not self.written:
            allowing, denying = [RepositoryGlob("**")], []
        else:
            about = [policy for policy in self.all if policy.is_about(principal, action)]
            allowing = [glob for policy in about if policy.effect is Effect.ALLOW for glob in policy.repositories]
            denying = [glob for policy in about if policy.effect is Effect.DENY for glob in policy.repositories]
        allowed, begins = _for(allowing, principal.name)
        denied, _ = _for(denying, principal.name)
        if key is None:
            return Sight(allowed, denied, None, begins)
        within, key_begins = _for(key.repositories, principal.name)
        return Sight(allowed, denied, within, common(begins, key_begins))

    def may_somewhere(self, principal: Principal, action: Action) -> bool:
        """Say whether a policy allows them to do that, in some repository or other. Pure."""
        return any(policy.effect is Effect.ALLOW and policy.is_about(principal, action) for policy in self.all)

    def may_do_anything(self, caller: Caller) -> bool:
        """Say whether there is anything at all that the caller may hope for, in some repository or other. Pure.

        A policy that denies a part of what another allows doesn't count: this only tells whether to ask who it is.
        """
        if caller.principal.kind is PrincipalKind.ISSUED and not self.written:
            return True
        return any(
            policy.effect is Effect.ALLOW and policy.is_about(caller.principal, action)
            for policy in self.all
            for action in policy.actions
        )


def _for(globs: Iterable[RepositoryGlob], name: str) -> tuple[Globs, Sequence[str]]:
    """Return globs as they are for somebody, and what begins the names that they fit."""
    fitting = [(glob, compiled) for glob in globs if (compiled := glob.compiled(name)) is not None]
    return tuple(compiled for _, compiled in fitting), shortest(glob.beginning(name) for glob, _ in fitting)


def _narrowed(caller: Caller, action: Action, repository: str | None) -> Decision | None:
    """Return the refusal that lies in what the caller came with; None where that is good for it."""
    if caller.grants is not None and not any(_grants(grant, action, repository) for grant in caller.grants):
        place = repository or "the registry"
        return Decision(allowed=False, because=f"the token does not grant {action} on {place}", by_token=True)
    if caller.scope is not None and not caller.scope.covers(action, repository, caller.principal.name):
        return Decision(
            allowed=False, because=f"the key that was used is not good for {action} on {repository or 'the registry'}"
        )
    return None


def _grants(grant: Grant, action: Action, repository: str | None) -> bool:
    """Say whether an entry of a token covers it; ``repository(plugin)`` is a repository, ``*`` is any action."""
    kind, name = ("registry", action.value) if repository is None else ("repository", repository)
    if grant.name != name or grant.kind.partition("(")[0] != kind:
        return False
    return action in grant.actions or "*" in grant.actions


def needed(action: Action, repository: str | None) -> Grant:
    """Return what a token has to grant for it, as a challenge asks for it; who pushes also pulls."""
    if repository is None:
        return Grant("registry", action.value, frozenset({"*"}))
    words = {"pull", "push"} if action is Action.PUSH else {action.value}
    return Grant("repository", repository, frozenset(words))


DEFAULT = (
    Policy.parse("the default", ("authenticated",), ("**",), ("pull", "push", "delete", "catalog", "augment", "watch")),
    Policy.parse("the default", ("group:admins",), ("**",), ("admin",)),
)
"""What counts until policies are written: as with distribution, whoever signs in may do everything to images; the
installation itself is for the group ``admins``."""
