"""Who a request comes from, and what narrows what they may do: what ways of signing in give."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Self

from roadstead.auth.principal import ANONYMOUS, Grant, Principal, PrincipalKind
from roadstead.auth.proof import Proof
from roadstead.oci.pattern import Glob, Pattern, PatternInvalidError
from roadstead.oci.reference import NameInvalidError, RepositoryName

USER = "{user}"
"""What stands in a pattern for the name of whoever asks."""


class Action(StrEnum):
    """What can be allowed or denied."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    CATALOG = "catalog"
    AUGMENT = "augment"
    WATCH = "watch"
    ADMIN = "admin"

    __hash__ = str.__hash__  # an enumeration's own is written in Python, and each request asks for it

    @property
    def of_repository(self) -> bool:
        """Say whether it is done to a repository, and not to the registry as a whole."""
        return self not in (Action.CATALOG, Action.ADMIN)


@dataclass(frozen=True, slots=True)
class RepositoryGlob:
    """Which repositories, as in `oci.pattern` but without a tag; ``{user}`` stands for the name of whoever asks."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a glob; PatternInvalidError says what is wrong with it."""
        if ":" in text:
            raise PatternInvalidError(text, "access is given to whole repositories: leave out the ':' and the tag")
        try:
            Pattern.parse(text.replace(USER, "user"))
        except PatternInvalidError as error:
            raise PatternInvalidError(text, error.reason) from error
        return cls(text)

    def matches(self, repository: str, name: str) -> bool:
        """Say whether the repository falls under it when somebody of that name asks. Pure."""
        return _matches(self.text, repository, name if USER in self.text else "")

    def compiled(self, name: str) -> Glob | None:
        """Return what it comes to for somebody of that name; None where it fits nothing then. Pure."""
        return _compiled(self.text, name if USER in self.text else "")

    def beginning(self, name: str) -> str:
        """Return what every name that it fits begins with, when somebody of that name asks. Pure."""
        return self.text.replace(USER, name).partition("*")[0]

    def __str__(self) -> str:
        return self.text


@lru_cache(maxsize=65536)
def _matches(text: str, repository: str, name: str) -> bool:
    """Say whether the glob's text fits. What is remembered is arithmetic on texts, nobody's rights."""
    glob = _compiled(text, name)
    return glob is not None and glob.matches(repository)


@lru_cache(maxsize=4096)
def _compiled(text: str, name: str) -> Glob | None:
    """Return the glob for a name; None for a name that no repository's component can have.

    A name is put in as it is, so one with ``*`` or ``/`` must not get here: it would reach into what is others'.
    """
    if USER not in text:
        return Glob(text)
    try:
        RepositoryName.parse(name)
    except NameInvalidError:
        return None
    return None if "/" in name else Glob(text.replace(USER, name))


@dataclass(frozen=True, slots=True)
class Scope:
    """What an API key is limited to; what its owner may not, it may not either."""

    repositories: tuple[RepositoryGlob, ...]
    actions: frozenset[Action]

    def covers(self, action: Action, repository: str | None, name: str) -> bool:
        """Say whether the key is good for that, as far as it goes. Pure."""
        if action not in self.actions:
            return False
        return repository is None or any(glob.matches(repository, name) for glob in self.repositories)


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who has proved who they are (or nobody in particular), and how.

    ``grants`` are those of a bearer token and ``scope`` that of an API key: both only ever narrow. ``via`` names the
    way of signing in, ``expires_at`` when it ends, ``proof`` what a token that is given for it is bound to.
    """

    principal: Principal
    grants: tuple[Grant, ...] | None = None
    scope: Scope | None = None
    via: str = ""
    expires_at: datetime | None = field(default=None, compare=False)
    proof: Proof | None = field(default=None, compare=False, repr=False)
    _hash: int = field(init=False, compare=False, repr=False)  # each request finds by it what was decided

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.principal, self.grants, self.scope, self.via)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def is_anonymous(self) -> bool:
        """Say whether nobody in particular asks."""
        return self.principal.kind is PrincipalKind.ANONYMOUS

    def known_as(self, asked: str, repository: str) -> Self:
        """Return the caller whose token, where it is for the repository under another name, is for this one. Pure."""
        if self.grants is None:
            return self
        also = tuple(replace(grant, name=repository) for grant in self.grants if grant.name == asked)
        return replace(self, grants=(*self.grants, *also))


NOBODY = Caller(ANONYMOUS)
"""Whoever comes without credentials."""
