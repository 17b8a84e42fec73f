"""Signing in with a bearer token: one of our own, or one of an issuer that settings trust."""

import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from roadstead.auth.caller import Caller
from roadstead.auth.credentials import Bearer, Credentials
from roadstead.auth.ports import Authenticator
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.auth.tokens import OwnTokens
from roadstead.auth.verifying import (
    REMEMBERED,
    TokenInvalidError,
    TokenVerifier,
    unverified_claims,
    unverified_header,
)
from roadstead.clock import Clock


class ForeignTokens:
    """Believes the tokens of another issuer: who they name is known by that name and nothing else."""

    def __init__(self, verifier: TokenVerifier, clock: Clock) -> None:
        self._verifier = verifier
        self._clock = clock

    async def caller(self, token: str, kid: object) -> Caller:
        """Return who a token was made for; raises TokenInvalidError. Its keys are fixed, whatever it names."""
        claims = self._verifier.verify(token, self._clock.now())
        principal = Principal(PrincipalKind.ISSUED, claims.subject)
        return Caller(principal, grants=claims.grants, via="token", expires_at=claims.expires_at)


@dataclass(frozen=True, slots=True)
class Label:
    """What a token says of who made it, believed by nobody yet: it chooses only whom to ask."""

    issuer: object
    kid: object


def _label(token: str) -> Label:
    return Label(unverified_claims(token).get("iss"), unverified_header(token).get("kid"))


class BearerTokens:
    """`Authenticator` of tokens; which issuer is asked is what the token says of itself."""

    def __init__(self, issuers: dict[str, OwnTokens | ForeignTokens]) -> None:
        self._issuers = issuers
        self._believed: OrderedDict[bytes, Label] = OrderedDict()

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return who the token was made for; raises TokenInvalidError. What isn't a JWT is for somebody else."""
        if not isinstance(credentials, Bearer):
            return None
        token = credentials.token.reveal()
        if token.count(".") != 2:
            return None
        digest = hashlib.sha256(token.encode()).digest()
        label = self._believed.get(digest) or _label(token)
        if not isinstance(label.issuer, str) or label.issuer not in self._issuers:
            raise TokenInvalidError(f"its issuer {json.dumps(label.issuer)[:100]} is not trusted")
        caller = await self._issuers[label.issuer].caller(token, label.kid)
        self._remember(digest, label)
        return caller

    def _remember(self, digest: bytes, label: Label) -> None:
        # To read a label takes longer than all the rest, and many requests bring the same token.
        if digest not in self._believed:
            self._believed[digest] = label
            if len(self._believed) > REMEMBERED:
                self._believed.popitem(last=False)


if TYPE_CHECKING:
    _: type[Authenticator] = BearerTokens
