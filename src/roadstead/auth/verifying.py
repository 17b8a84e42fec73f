"""Bearer tokens read and believed, or not: signature, issuer, audience, time (Docker token spec; RFC 7515, RFC 7519).

Everything is checked in one order: the form, the algorithm against those that are allowed, the key, whether the
algorithm is one of that key's, the signature, and only then what the token says.
"""

import hashlib
import json
import warnings
from base64 import urlsafe_b64decode
from binascii import Error as NotBase64Error
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache

from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning

from roadstead.auth.chains import ChainInvalidError
from roadstead.auth.errors import CredentialsWrongError
from roadstead.auth.principal import Grant
from roadstead.auth.trusted_keys import TrustedKey, TrustedKeys

ALGORITHMS = ("EdDSA", "Ed25519", *(f"{kind}{size}" for kind in ("RS", "ES", "PS", "HS") for size in (256, 384, 512)))
"""What can be allowed. The shared-secret ones (HS) fit only keys of a JWK set that are shared secrets."""

LEEWAY = timedelta(seconds=60)
"""What clocks may differ by, as in distribution."""

_FIRST = int(datetime(1, 1, 1, tzinfo=UTC).timestamp())
_LAST = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())
_MARGIN = 24 * 3600
"""Moments at the ends of the calendar mean "long ago" and "never": so many seconds off a leeway can be added to any."""

MAX_TOKEN = 16 << 10
MAX_GRANTS = 1000
REMEMBERED = 4096


class TokenInvalidError(CredentialsWrongError):
    """A token that isn't believed; the reason is for the log, as a client can do nothing with it.

    ``because`` is what operators are told in its place.
    """

    def __init__(self, reason: str, *, because: str | None = None) -> None:
        said = "the token is not valid"
        super().__init__(f"{said}: {reason}", because=None if because is None else f"{said}: {because}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must say: who issued it, for whom it is, and how it may be signed."""

    issuer: str
    service: str
    algorithms: frozenset[str] = frozenset(ALGORITHMS)
    leeway: timedelta = LEEWAY


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """What a believed token says. ``all`` has every claim as it came."""

    subject: str
    grants: tuple[Grant, ...]
    expires_at: datetime
    all: Mapping[str, object] = field(default_factory=dict, compare=False)


class TokenVerifier:
    """Believes tokens of one issuer. A token that was believed once is remembered until it ends."""

    def __init__(self, keys: TrustedKeys, rules: TokenRules, *, remembered: int = REMEMBERED) -> None:
        self._keys = keys
        self._rules = rules
        self._limit = remembered
        self._believed: OrderedDict[bytes, TokenClaims] = OrderedDict()

    def verify(self, token: str, now: datetime) -> TokenClaims:
        """Return what the token says; raises TokenInvalidError."""
        _check_form(token)
        digest = hashlib.sha256(token.encode()).digest()
        claims = self._believed.get(digest)
        if claims is not None:
            if now <= self.ends(claims):
                self._believed.move_to_end(digest)
                return claims
            del self._believed[digest]
        claims = self._verify(token, now)
        self._believed[digest] = claims
        if len(self._believed) > self._limit:
            self._believed.popitem(last=False)
        return claims

    def ends(self, claims: TokenClaims) -> datetime:
        """Return until when a token is believed that says so."""
        return claims.expires_at + self._rules.leeway

    def _verify(self, token: str, now: datetime) -> TokenClaims:
        header = unverified_header(token)
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._rules.algorithms:
            raise TokenInvalidError(f"the algorithm {algorithm!r} is not allowed")
        if "crit" in header or "b64" in header:
            raise TokenInvalidError("it asks for extensions that aren't known here")
        candidates = [key for key in self._candidates(header, now) if algorithm in key.algorithms]
        if not candidates:
            raise TokenInvalidError(f"its key is not trusted, or not one for {algorithm}")
        for key in candidates:
            payload = signed_payload(token, key, algorithm)
            if payload is not None:
                return self._claims(json_object(payload, "claims"), now)
        raise TokenInvalidError("the signature is wrong")

    def _candidates(self, header: Mapping[str, object], now: datetime) -> Sequence[TrustedKey]:
        """Return the keys that may have signed, by what the token brings: certificates, a key, the name of one."""
        if "x5c" in header:
            try:
                return (self._keys.of_chain(header["x5c"], now),)
            except ChainInvalidError as error:
                raise TokenInvalidError(str(error)) from error
        if "jwk" in header:
            return self._keys.of_jwk(header["jwk"])
        name = header.get("kid")
        return self._keys.by_id.get(name, ()) if isinstance(name, str) else ()

    def _claims(self, claims: Mapping[str, object], now: datetime) -> TokenClaims:
        rules = self._rules
        if claims.get("iss") != rules.issuer:
            raise TokenInvalidError("it is of another issuer")
        audience = claims.get("aud")
        if rules.service not in (audience if isinstance(audience, list) else [audience]):
            raise TokenInvalidError("it is for another service")
        expires_at = moment_of(claims, "exp")
        if expires_at is None or now > expires_at + rules.leeway:
            raise TokenInvalidError("it has ended" if expires_at else "it never ends")
        not_before = moment_of(claims, "nbf")
        if not_before is not None and now < not_before - rules.leeway:
            raise TokenInvalidError("it is not valid yet")
        subject = claims.get("sub", "")
        if not isinstance(subject, str) or not _is_text(subject):
            raise TokenInvalidError("its subject isn't a text")
        return TokenClaims(subject, _grants(claims.get("access")), expires_at, claims)


class _Registry(jws.JWSRegistry):
    """Limits as wide as ours: a chain of certificates makes a long header."""

    max_header_length = MAX_TOKEN
    max_payload_length = MAX_TOKEN
    max_signature_length = MAX_TOKEN


@cache
def _registry(algorithm: str) -> jws.JWSRegistry:
    """Return what has the library take this algorithm alone, and pass over what else a header says (RFC 7515 §4)."""
    return _Registry(algorithms=[algorithm], strict_check_header=False)


def unverified_header(token: str) -> Mapping[str, object]:
    """Return what a token's header says, believed by nobody yet; raises TokenInvalidError."""
    _check_form(token)
    return _decoded_object(token.partition(".")[0], "header")


def unverified_claims(token: str) -> Mapping[str, object]:
    """Return what a token claims, believed by nobody yet; raises TokenInvalidError."""
    _check_form(token)
    return _decoded_object(token.split(".")[1], "claims")


def _check_form(token: str) -> None:
    if len(token) > MAX_TOKEN or token.count(".") != 2 or not token.isascii():
        raise TokenInvalidError("it isn't a signed token (JWS compact serialisation)")


def signed_payload(token: str, key: TrustedKey, algorithm: str) -> bytes | None:
    """Return what was signed; None where this key didn't sign it."""
    try:
        with warnings.catch_warnings():
            # RFC 9864 has another name for EdDSA, which the token servers that there are don't know.
            warnings.simplefilter("ignore", SecurityWarning)
            return jws.deserialize_compact(token, key.key, registry=_registry(algorithm)).payload
    except (JoseError, ValueError):
        return None


def _decoded_object(encoded: str, what: str) -> Mapping[str, object]:
    try:
        return json_object(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)), what)
    except (NotBase64Error, ValueError) as error:
        raise TokenInvalidError(f"its {what} can't be read") from error


def json_object(text: bytes, what: str) -> Mapping[str, object]:
    """Read a JSON object; a name that comes twice would mean one thing here and another elsewhere (RFC 7519 §4)."""
    try:
        found = json.loads(text, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise TokenInvalidError(f"its {what} can't be read") from error
    if not isinstance(found, dict):
        raise TokenInvalidError(f"its {what} can't be read")
    return found


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def moment_of(claims: Mapping[str, object], name: str) -> datetime | None:
    """Return the moment of a claim, None where it isn't there; raises TokenInvalidError."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not _FIRST <= value <= _LAST:
        raise TokenInvalidError(f"{name} isn't a moment")
    return datetime.fromtimestamp(min(max(value, _FIRST + _MARGIN), _LAST - _MARGIN), UTC)


def _is_text(name: str) -> bool:
    """Say whether a name can be written down: databases take no zero character, and half a character is none."""
    return "\0" not in name and not any("\ud800" <= each <= "\udfff" for each in name)


def _grants(access: object) -> tuple[Grant, ...]:
    if access is None:
        return ()
    if not isinstance(access, list) or len(access) > MAX_GRANTS:
        raise TokenInvalidError("its access isn't a list of grants")
    return tuple(_grant(entry) for entry in access)


def _grant(entry: object) -> Grant:
    if isinstance(entry, dict):
        kind, name, actions = entry.get("type"), entry.get("name"), entry.get("actions")
        actions = [] if actions is None else actions
        if isinstance(kind, str) and isinstance(name, str) and isinstance(actions, list):
            words = [word for word in actions if isinstance(word, str)]
            if len(words) == len(actions):
                return Grant(kind, name, frozenset(words))
    raise TokenInvalidError("its access isn't a list of grants")
