"""Who asks: the values that ways of signing in give, and that policies decide on."""

from dataclasses import dataclass
from enum import StrEnum


class PrincipalKind(StrEnum):
    """The kinds of callers, as policies name them (``user:ana``, ``robot:ci``)."""

    ANONYMOUS = "anonymous"
    USER = "user"
    ROBOT = "robot"
    ISSUED = "issued"
    """Somebody whom a foreign token issuer vouches for: we know the name it gives, no more."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a bearer token says it is good for: one entry of its ``access`` claim (distribution's token specification).

    ``kind`` is ``repository`` or ``registry``, ``name`` the repository or ``catalog``, ``actions`` are the token's
    words (``pull``, ``push``, ``delete``, ``*``), as they came.
    """

    kind: str
    name: str
    actions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, proven: a person, a robot account, or nobody in particular."""

    kind: PrincipalKind
    name: str = ""
    groups: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else str(self.kind)


ANONYMOUS = Principal(PrincipalKind.ANONYMOUS)
