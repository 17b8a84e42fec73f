"""An ID token read and believed, or not (OpenID Connect Core §3.1.3.7, §3.1.3.6). Pure.

Everything is checked in one order: the form, the algorithm against those that are allowed, the key by the issuer's own
set (whatever the token brings or points to), the signature, and only then what the token says.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from roadstead.auth.oidc.errors import ClocksDifferError, IdTokenInvalidError
from roadstead.auth.oidc.key_set import KeySet
from roadstead.auth.verifying import TokenInvalidError, json_object, moment_of, signed_payload, unverified_header

_HASHES = {"256": "sha256", "384": "sha384", "512": "sha512"}
_ED25519 = frozenset({"EdDSA", "Ed25519"})
_SUBJECT = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")  # OpenID Connect Core §2: 255 of ASCII


class KeyUnknownError(IdTokenInvalidError):
    """None of the keys that are known can have signed it; the issuer may have new ones."""


@dataclass(frozen=True, slots=True)
class IdTokenRules:
    """What an ID token must say: who issued it, for whom, and how it may be signed."""

    issuer: str
    client_id: str
    algorithms: frozenset[str]
    leeway: timedelta


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What the token has to belong to: the attempt that was begun, and the access token that came with it."""

    nonce: str
    access_token: str | None = None


def verify_id_token(
    token: str, keys: KeySet, rules: IdTokenRules, exchanged: Exchanged, now: datetime
) -> Mapping[str, object]:
    """Return what the token says; raises KeyUnknownError, ClocksDifferError, IdTokenInvalidError."""
    try:
        claims, algorithm = _signed_claims(token, keys, rules)
        _check_parties(claims, rules)
        _check_times(claims, rules, now)
    except TokenInvalidError as error:
        raise IdTokenInvalidError(rules.issuer, error.reason) from error
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), exchanged.nonce.encode()):
        raise IdTokenInvalidError(rules.issuer, "it belongs to another sign-in (nonce)")
    _check_access_token(claims, algorithm, rules, exchanged.access_token)
    return claims


def _signed_claims(token: str, keys: KeySet, rules: IdTokenRules) -> tuple[Mapping[str, object], str]:
    header = unverified_header(token)
    algorithm = header.get("alg")
    # Shared secrets are never allowed, so that a public key can't be taken for one (CVE-2015-9235).
    if not isinstance(algorithm, str) or algorithm not in rules.algorithms or algorithm.startswith("HS"):
        raise TokenInvalidError(f"the algorithm {str(algorithm)[:40]!r} is not allowed")
    if "crit" in header or "b64" in header:
        raise TokenInvalidError("it asks for extensions that aren't known here")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.upper() != "JWT":
        raise TokenInvalidError("it is a token of another kind (typ)")
    candidates = keys.candidates(header.get("kid"), algorithm)
    if not candidates:
        raise KeyUnknownError(rules.issuer, f"none of the keys it publishes for {algorithm} is the token's")
    for candidate in candidates:
        payload = signed_payload(token, candidate.key, algorithm)
        if payload is not None:
            return json_object(payload, "claims"), algorithm
    raise TokenInvalidError("the signature is wrong")


def _check_parties(claims: Mapping[str, object], rules: IdTokenRules) -> None:
    if claims.get("iss") != rules.issuer:
        raise TokenInvalidError("it is of another issuer (iss)")
    said = claims.get("aud")
    audience = said if isinstance(said, list) else [said]
    if rules.client_id not in audience:
        raise TokenInvalidError("it is for another client (aud)")
    authorized = claims.get("azp")
    if authorized is None and len(audience) > 1:
        raise TokenInvalidError("it is for several clients, and doesn't say for which (azp)")
    if authorized is not None and authorized != rules.client_id:
        raise TokenInvalidError("it was made for another client (azp)")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
        raise TokenInvalidError("it names nobody (sub)")


def _check_times(claims: Mapping[str, object], rules: IdTokenRules, now: datetime) -> None:
    expires_at, issued_at = moment_of(claims, "exp"), moment_of(claims, "iat")
    if expires_at is None or issued_at is None:
        raise TokenInvalidError("it doesn't say when it was made, or when it ends (iat, exp)")
    if now >= expires_at + rules.leeway:
        late = round((now - expires_at).total_seconds())
        raise ClocksDifferError(rules.issuer, f"it has ended {late} s ago, and has only just been made")
    begins_at = max(issued_at, moment_of(claims, "nbf") or issued_at)
    if now < begins_at - rules.leeway:
        early = round((begins_at - now).total_seconds())
        raise ClocksDifferError(rules.issuer, f"it is not good for another {early} s")


def _check_access_token(
    claims: Mapping[str, object], algorithm: str, rules: IdTokenRules, access_token: str | None
) -> None:
    said = claims.get("at_hash")
    if said is None:
        return
    name = "sha512" if algorithm in _ED25519 else _HASHES[algorithm[-3:]]
    digest = hashlib.new(name, (access_token or "").encode()).digest()
    half = urlsafe_b64encode(digest[: len(digest) // 2]).decode().rstrip("=")
    if not access_token or not isinstance(said, str) or not hmac.compare_digest(said.encode(), half.encode()):
        raise IdTokenInvalidError(rules.issuer, "it belongs to another access token (at_hash)")
