"""Signing in with a bearer token: one of our own, or one of an issuer that settings trust."""

import json
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from roadstead.auth.caller import Caller
from roadstead.auth.credentials import Bearer, Credentials
from roadstead.auth.ports import NOT_MINE, Authenticator, Judges, Verdict
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.auth.tokens import OwnTokens
from roadstead.auth.verifying import TokenInvalidError, TokenVerifier, unverified_claims, unverified_header
from roadstead.clock import Clock


class ForeignTokens:
    """Believes the tokens of another issuer: who they name is known by that name and nothing else."""

    def __init__(self, verifier: TokenVerifier, clock: Clock) -> None:
        self._verifier = verifier
        self._clock = clock

    async def judge(self, token: str, kid: object) -> Verdict:
        """Return who a token was made for; raises TokenInvalidError. Its keys are fixed, whatever it names."""
        claims = self._verifier.verify(token, self._clock.now())
        principal = Principal(PrincipalKind.ISSUED, claims.subject)
        caller = Caller(principal, grants=claims.grants, via="token", expires_at=claims.expires_at)
        return Verdict(caller, partial(self._lasts, self._verifier.ends(claims)), found=True)

    async def _lasts(self, until: datetime) -> bool:
        return self._clock.now() <= until


class BearerTokens:
    """`Authenticator` of tokens; which issuer is asked is what the token says of itself."""

    def __init__(self, issuers: dict[str, OwnTokens | ForeignTokens]) -> None:
        self._issuers = issuers

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return who the token was made for; raises TokenInvalidError. What isn't a JWT is for somebody else."""
        return (await self.judge(credentials)).caller

    async def judge(self, credentials: Credentials) -> Verdict:
        """Return who the token was made for, and what its issuer goes by; raises TokenInvalidError."""
        if not isinstance(credentials, Bearer):
            return NOT_MINE
        token = credentials.token.reveal()
        if token.count(".") != 2:
            return NOT_MINE
        # What a token says of who made it, believed by nobody yet, only chooses whom to ask.
        issuer = unverified_claims(token).get("iss")
        if not isinstance(issuer, str) or issuer not in self._issuers:
            raise TokenInvalidError(f"its issuer {json.dumps(issuer)[:100]} is not trusted")
        return await self._issuers[issuer].judge(token, unverified_header(token).get("kid"))


if TYPE_CHECKING:
    _: type[Authenticator] = BearerTokens
    __: type[Judges] = BearerTokens
