"""Where clients get their tokens: who they are is found out, what they ask is cut down to what they may."""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from roadstead.auth.access import Access
from roadstead.auth.caller import NOBODY, Action, Caller
from roadstead.auth.credentials import MAX_HEADER, Credentials
from roadstead.auth.errors import CredentialsWrongError
from roadstead.auth.policies import Policies
from roadstead.auth.ports import Identities, RefreshToken, RefreshTokenStore
from roadstead.auth.principal import Grant, Principal
from roadstead.auth.proof import Bonds, Proof
from roadstead.auth.scope import format_scope
from roadstead.auth.tokens import IssuedToken, TokenIssuer
from roadstead.clock import Clock
from roadstead.errors import InvalidError

_REPOSITORY = frozenset({Action.PULL, Action.PUSH, Action.DELETE})
_REFRESH_BYTES = 32

_LONGEST = MAX_HEADER - len("Bearer ")
"""What the door takes of a token."""

_log = structlog.get_logger()

Granting = Callable[[Caller, Grant], Sequence[Grant]]
"""What somebody gets of what they ask for: the same thing with fewer actions, nothing, or it under another name too."""


class ServiceUnknownError(InvalidError):
    """A token is asked for that would be good elsewhere."""

    def __init__(self, asked: str, service: str) -> None:
        super().__init__(f"tokens for {asked!r} are not issued here; this is the token server of {service!r}")


class ScopesTooManyError(InvalidError):
    """More is asked for at once than a token holds that comes in a header."""

    def __init__(self, length: int) -> None:
        super().__init__(f"a token for all these scopes has {length} characters, {_LONGEST} can be used")

    def advice(self) -> str:
        """Say what gives a token."""
        return "Ask for fewer repositories with one token."


@dataclass(frozen=True, slots=True)
class Handed:
    """What a client gets: a token, and maybe something to get the next one with."""

    token: IssuedToken
    refresh_token: str | None = None


class TokenDesk:
    """Gives out tokens to whoever signs in, and to nobody in particular."""

    def __init__(
        self,
        access: Access,
        issuer: TokenIssuer,
        granting: Granting,
        refresh_tokens: RefreshTokenStore,
        identities: Identities,
        bonds: Bonds,
        clock: Clock,
        *,
        service: str,
        refresh_lifetime: timedelta,
    ) -> None:
        self._access = access
        self._issuer = issuer
        self._granting = granting
        self._refresh_tokens = refresh_tokens
        self._identities = identities
        self._bonds = bonds
        self._clock = clock
        self._service = service
        self._refresh_lifetime = refresh_lifetime

    async def sign_in(
        self, credentials: Credentials | None, asked: Sequence[Grant], *, service: str | None, offline: bool
    ) -> Handed:
        """Return a token for what is asked and allowed, also if that is nothing; without credentials for nobody.

        Raises CredentialsWrongError, AttemptsTooManyError, ServiceUnknownError, ScopesTooManyError.
        """
        self._check(service)
        caller = NOBODY if credentials is None else await self._access.sign_in(credentials)
        token = await self._issue(caller, asked)
        refresh = None
        # One for a key that is limited would be good for all that its owner may.
        if offline and caller.proof is not None and caller.scope is None and caller.grants is None:
            refresh = await self._refresh_token(caller.principal, caller.proof)
        return Handed(token, refresh)

    async def refresh(self, refresh_token: str, asked: Sequence[Grant], *, service: str | None) -> Handed:
        """Return a token for the one whom the refresh token was made for; raises what `sign_in` does.

        It has ended with the password that it was got by.
        """
        self._check(service)
        found = await self._refresh_tokens.find_refresh_token(_hashed(refresh_token))
        if found is None or found.expires_at <= self._clock.now() or found.service != self._service:
            raise CredentialsWrongError("the refresh token is not valid (any more)")
        caller = await self._caller(found)
        if caller is None:
            raise CredentialsWrongError("the refresh token is not valid (any more)")
        return Handed(await self._issue(caller, asked), refresh_token)

    async def _caller(self, token: RefreshToken) -> Caller | None:
        """Return whose a refresh token is, if what it was got by still counts."""
        if token.bond is None:
            return None
        holder = await self._identities.holder(token.principal, token.bond.kind, token.bond.key_id)
        if holder is None:
            return None
        proof = Proof(token.bond.kind, holder.of)
        if not self._bonds.holds(token.bond, proof):
            return None
        return Caller(holder.principal, via="refresh token", proof=proof)

    def _check(self, service: str | None) -> None:
        if service is not None and service != self._service:
            raise ServiceUnknownError(service, self._service)

    async def _issue(self, caller: Caller, asked: Sequence[Grant]) -> IssuedToken:
        grants = [grant for each in asked for grant in self._granting(caller, each) if grant.actions]
        token = await self._issuer.issue(caller, grants)
        if len(token.text) > _LONGEST:
            raise ScopesTooManyError(len(token.text))
        _log.info(
            "token issued",
            subject=str(caller.principal),
            via=caller.via or None,
            scopes=[format_scope(grant) for grant in grants],
            lifetime_s=token.lifetime.total_seconds(),
        )
        return token

    async def _refresh_token(self, principal: Principal, proof: Proof) -> str:
        text, now = secrets.token_urlsafe(_REFRESH_BYTES), self._clock.now()
        nameless = Principal(principal.kind, principal.name)
        ends, bond = now + self._refresh_lifetime, self._bonds.bind(proof)
        row = RefreshToken(_hashed(text), nameless, self._service, now, ends, bond)
        await self._refresh_tokens.put_refresh_token(row)
        return text


def by_policies(policies: Policies, repositories_of: Callable[[str], Sequence[str]]) -> Granting:
    """Return what grants what policies allow.

    `repositories_of` gives the repositories that a name in a path may stand for: `as-pushed/team/app` for `team/app`,
    a default name of an upstream for its own and for what may be ours; none where there can't be any. A token names
    all of them, and what the client asked for: what it is checked against.
    """

    def grant(caller: Caller, asked: Grant) -> Sequence[Grant]:
        kind = asked.kind.partition("(")[0]
        if kind == "registry":
            return _registry(policies, caller, asked)
        repositories = repositories_of(asked.name) if kind == "repository" else ()
        wanted = [action for action in sorted(_REPOSITORY) if action.value in asked.actions or "*" in asked.actions]
        granted: dict[str, frozenset[str]] = {}
        for repository in repositories:
            allowed = frozenset(a.value for a in wanted if policies.decide(caller, a, repository).allowed)
            granted.setdefault(asked.name, allowed)  # what it stands for first
            granted[repository] = allowed
        return [Grant(asked.kind, name, allowed) for name, allowed in granted.items()]

    return grant


def _registry(policies: Policies, caller: Caller, asked: Grant) -> Sequence[Grant]:
    if asked.name not in (Action.CATALOG, Action.ADMIN):
        return ()
    allowed = policies.decide(caller, Action(asked.name), None).allowed
    return [Grant(asked.kind, asked.name, frozenset({"*"}))] if allowed else []


def _hashed(text: str) -> str:
    """Return the SHA-256: of 256 random bits nobody finds the other half, so nothing slower is needed."""
    return hashlib.sha256(text.encode()).hexdigest()
