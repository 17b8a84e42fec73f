"""Bearer tokens of our own: made for somebody who signed in, and believed when they come back (Docker token spec).

A token says who it was made for, by what they proved it, and what it grants; policies are asked again with every
request. Groups aren't in it: they are what they are when it is used. Somebody who is gone is gone with their tokens,
and so is a key or a password that one was got by.
"""

import json
import secrets
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from joserfc import jws
from joserfc.errors import SecurityWarning

from roadstead.auth.caller import Caller
from roadstead.auth.ports import Holder, Identities, Verdict
from roadstead.auth.principal import ANONYMOUS, Grant, Principal, PrincipalKind
from roadstead.auth.proof import Bond, Bonds, Proof
from roadstead.auth.signing_keys import SigningKey, SigningKeys
from roadstead.auth.trusted_keys import TrustedKeys
from roadstead.auth.verifying import TokenInvalidError, TokenRules, TokenVerifier
from roadstead.clock import Clock

KIND: Final = "roadstead.kind"
"""The claim that has the kind of caller: a user and a robot account may share nothing but their name."""

BOND: Final = "roadstead.bond"
"""The claim that has what the token was got by, which it ends with (``auth.proof``)."""

_NOBODY: Final = Holder(ANONYMOUS, "")

_STARTED_BEFORE = timedelta(seconds=10)  # what another machine's clock may be behind, as token servers have it


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token, and when it was made for how long."""

    text: str
    issued_at: datetime
    lifetime: timedelta
    grants: Sequence[Grant]


class TokenIssuer:
    """Makes tokens."""

    def __init__(
        self,
        keys: SigningKeys,
        rules: TokenRules,
        bonds: Bonds,
        clock: Clock,
        *,
        lifetime: timedelta,
        libtrust: bool = False,
    ) -> None:
        """`libtrust` names keys as registries of version 2 know them, in the place of RFC 7638's thumbprint."""
        self._keys = keys
        self._rules = rules
        self._bonds = bonds
        self._clock = clock
        self._lifetime = lifetime
        self._libtrust = libtrust

    async def issue(self, caller: Caller, grants: Sequence[Grant]) -> IssuedToken:
        """Return a token for one who signed in, or for nobody in particular; it outlives no key."""
        now = self._clock.now()
        lifetime = self._lifetime
        if caller.expires_at is not None:
            lifetime = max(min(lifetime, caller.expires_at - now), timedelta())
        key = await self._keys.signing()
        claims: dict[str, object] = {
            "iss": self._rules.issuer,
            "sub": caller.principal.name,
            "aud": self._rules.service,
            "exp": int((now + lifetime).timestamp()),
            "nbf": int((now - _STARTED_BEFORE).timestamp()),
            "iat": int(now.timestamp()),
            "jti": secrets.token_urlsafe(16),
            "access": [{"type": grant.kind, "name": grant.name, "actions": sorted(grant.actions)} for grant in grants],
            KIND: caller.principal.kind.value,
        }
        if caller.proof is not None:
            claims[BOND] = str(self._bonds.bind(caller.proof))
        header = {"typ": "JWT", "alg": key.algorithm, "kid": key.libtrust_kid if self._libtrust else key.kid}
        with warnings.catch_warnings():
            # RFC 9864 has another name for EdDSA, which registries that check our tokens don't know.
            warnings.simplefilter("ignore", SecurityWarning)
            text = jws.serialize_compact(header, json.dumps(claims).encode(), key.jose, algorithms=[key.algorithm])
        return IssuedToken(text, now, lifetime, tuple(grants))


def _got_by(bond: Bond | None) -> str | None:
    """Return why a token is over that was got by a key, for operators; None for any other."""
    if bond is None or not bond.key_id:
        return None
    return f"the key {bond.key_id} that it was got by is not good here (any more)"


class OwnTokens:
    """Believes the tokens that this installation has made."""

    def __init__(
        self, keys: SigningKeys, rules: TokenRules, identities: Identities, bonds: Bonds, clock: Clock
    ) -> None:
        self._keys = keys
        self._rules = rules
        self._bonds = bonds
        self._identities = identities
        self._clock = clock
        self._verifier: tuple[frozenset[frozenset[str]], TokenVerifier] | None = None

    async def judge(self, token: str, kid: object) -> Verdict:
        """Return who a token was made for, as they are now, and that it goes by who that is, by what they proved it
        with, and by the keys that there are; raises TokenInvalidError. `kid` is what names its key.
        """
        published = await self._keys.published()  # before it is checked: a key that goes meanwhile has it checked again
        keys = await self._keys.trusted(kid if isinstance(kid, str) else "")
        claims = self._verifying(keys).verify(token, self._clock.now())
        try:
            kind = PrincipalKind(str(claims.all.get(KIND)))
        except ValueError as error:
            raise TokenInvalidError("it was made for nobody known here") from error
        bond = Bond.parse(claims.all.get(BOND))
        read = partial(self._standing, Principal(kind, claims.subject), bond, self._verifying(keys).ends(claims))
        holder, _ = await read()
        if holder is None:
            raise TokenInvalidError(
                "the one it was made for, or the key that it was got by, is not here any more",
                because=_got_by(bond),
            )
        proof = None if bond is None else Proof(bond.kind, holder.of)
        if bond is not None and proof is not None and not self._bonds.holds(bond, proof):
            raise TokenInvalidError("the password that it was got by is another one now")
        # What a token grants was cut down to what the key is good for; a listing asks for what no token names.
        caller = Caller(holder.principal, claims.grants, holder.scope, "token", claims.expires_at, proof)
        return Verdict(caller, read, (holder, published))

    async def _standing(
        self, principal: Principal, bond: Bond | None, until: datetime
    ) -> tuple[Holder | None, Sequence[SigningKey]]:
        """Return what a token for somebody goes by: who that is now and what proves it, nobody where its time is over
        or where nothing says what it was got by; and the keys.
        """
        now = self._clock.now()
        keys = self._keys.known(now) or await self._keys.published()
        if now > until:
            return None, keys
        if principal.kind is PrincipalKind.ANONYMOUS:
            return _NOBODY, keys
        if bond is None:
            return None, keys
        return await self._identities.holder(principal, bond.kind, bond.key_id), keys

    def _verifying(self, keys: TrustedKeys) -> TokenVerifier:
        """Return what believes tokens of these keys: the one that remembers, as long as the keys are the same."""
        ids = frozenset(key.ids for key in keys.keys)
        if self._verifier is None or self._verifier[0] != ids:
            self._verifier = (ids, TokenVerifier(keys, self._rules))
        return self._verifier[1]
