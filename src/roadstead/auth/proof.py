"""What somebody proved who they are by, and how a token of ours is bound to it: it ends when that does.

A key ends when it is revoked or its time is over; a password when there is another one. In a token stands the id of the
key, or a keyed mark of the password's hash: the hash itself would let whoever finds the token guess the password.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self


class ProofKind(StrEnum):
    """Where it is looked up what counts now: keys, passwords in the database, lines of htpasswd."""

    KEY = "key"
    ACCOUNT = "account"
    LINE = "line"


@dataclass(frozen=True, slots=True)
class Proof:
    """A key or a password: ``of`` is the key's id, else the hash that the password fits."""

    kind: ProofKind
    of: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bond:
    """What a token is bound to, as it stands there: ``key:ID``, ``account:MARK`` or ``line:MARK``."""

    kind: ProofKind
    mark: str

    @classmethod
    def parse(cls, text: object) -> Self | None:
        """Read what `__str__` wrote; None for anything else."""
        kind, colon, mark = text.partition(":") if isinstance(text, str) else ("", "", "")
        if not colon or kind not in frozenset(ProofKind):
            return None
        return cls(ProofKind(kind), mark)

    @property
    def key_id(self) -> str:
        """Return which key it is; nothing where it is a password."""
        return self.mark if self.kind is ProofKind.KEY else ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.mark}"


class Bonds:
    """Binds tokens to proofs; `marking` gives the keyed mark of a text, which is the same in every process."""

    def __init__(self, marking: Callable[[str], str]) -> None:
        self._marking = marking

    def bind(self, proof: Proof) -> Bond:
        """Return what a token got by this is bound to."""
        return Bond(proof.kind, proof.of if proof.kind is ProofKind.KEY else self._marking(f"{proof.kind}:{proof.of}"))

    def holds(self, bond: Bond, proof: Proof) -> bool:
        """Say whether a token that is bound so was got by this."""
        now = self.bind(proof)
        return now.kind is bond.kind and hmac.compare_digest(now.mark.encode(), bond.mark.encode())
