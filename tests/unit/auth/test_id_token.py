"""ID tokens that are believed and ID tokens that aren't (OpenID Connect Core §3.1.3.7)."""

import base64
import hashlib
import hmac
import json
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey

from roadstead.auth.oidc.errors import ClocksDifferError, IdTokenInvalidError
from roadstead.auth.oidc.id_token import Exchanged, IdTokenRules, KeyUnknownError, verify_id_token
from roadstead.auth.oidc.key_set import KeySet, KeySetInvalidError

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
ISSUER, CLIENT, NONCE, ACCESS = "https://sso.example", "roadstead", "n-1", "the access token"
RULES = IdTokenRules(ISSUER, CLIENT, frozenset({"RS256", "PS256", "ES256", "EdDSA"}), timedelta(minutes=1))

RSA, OTHER_RSA, SHORT_RSA = (rsa.generate_private_key(65537, bits) for bits in (2048, 2048, 1024))
P256 = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
JOSE: Mapping[str, ECKey | RSAKey | OKPKey] = {
    "rsa": RSAKey.import_key(RSA),
    "other": RSAKey.import_key(OTHER_RSA),
    "p256": ECKey.import_key(P256),
    "ed": OKPKey.import_key(ED),
}


def public(name: str, **members: object) -> dict[str, object]:
    return {**JOSE[name].as_dict(private=False), "kid": name, **members}


KEYS = KeySet.parse(json.dumps({"keys": [public("rsa"), public("p256"), public("ed")]}).encode())


def claims(**changes: object) -> dict[str, Any]:
    """Return the claims of a good token, with changes; None leaves one out."""
    now = int(NOW.timestamp())
    good = {"iss": ISSUER, "aud": CLIENT, "sub": "s-1", "nonce": NONCE, "iat": now, "exp": now + 300}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def signed(said: Mapping[str, object], key: str = "rsa", algorithm: str = "RS256", **header: object) -> str:
    head = {name: value for name, value in {"alg": algorithm, "kid": key, **header}.items() if value is not None}
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        return jws.serialize_compact(head, json.dumps(said).encode(), JOSE[key], registry=registry)


def verify(token: str, keys: KeySet = KEYS, rules: IdTokenRules = RULES, access: str | None = ACCESS) -> object:
    return verify_id_token(token, keys, rules, Exchanged(NONCE, access), NOW)["sub"]


def seconds(offset: int) -> int:
    return int(NOW.timestamp()) + offset


def half(text: str, name: str = "sha256") -> str:
    digest = hashlib.new(name, text.encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).decode().rstrip("=")


@pytest.mark.parametrize(
    ("token"),
    [
        signed(claims()),
        signed(claims(), typ="JWT"),
        signed(claims(), "rsa", "PS256"),
        signed(claims(), "p256", "ES256"),
        signed(claims(), "ed", "EdDSA"),
        signed(claims(aud=[CLIENT])),
        signed(claims(aud=[CLIENT, "another"], azp=CLIENT)),
        signed(claims(azp=CLIENT)),
        signed(claims(exp=seconds(-59))),
        signed(claims(iat=seconds(59))),
        signed(claims(nbf=seconds(59))),
        signed(claims(at_hash=half(ACCESS))),
        signed(claims(at_hash=half(ACCESS, "sha512")), "ed", "EdDSA"),
        signed(claims(), "p256", "ES256", kid=None),
    ],
)
def test_a_good_token_is_believed(token: str) -> None:
    """With each kind of key, and times within what clocks may differ by."""
    assert verify(token) == "s-1"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://sso.example/"}, "iss"),
        ({"iss": None}, "iss"),
        ({"iss": [ISSUER]}, "iss"),
        ({"aud": "another"}, "aud"),
        ({"aud": None}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": f"{CLIENT} another"}, "aud"),
        ({"aud": [CLIENT, "another"]}, "azp"),
        ({"aud": [CLIENT, "another"], "azp": "another"}, "azp"),
        ({"azp": "another"}, "azp"),
        ({"nonce": None}, "nonce"),
        ({"nonce": "n-2"}, "nonce"),
        ({"nonce": [NONCE]}, "nonce"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "sub"),
        ({"sub": 7}, "sub"),
        ({"sub": "x" * 256}, "sub"),
        ({"sub": "a\nb"}, "sub"),
        ({"exp": None}, "when it ends"),
        ({"iat": None}, "when it was made"),
        ({"exp": "soon"}, "exp"),
        ({"exp": True}, "exp"),
        ({"iat": 1e300}, "iat"),
        ({"at_hash": half("another")}, "at_hash"),
        ({"at_hash": ""}, "at_hash"),
        ({"at_hash": 1}, "at_hash"),
    ],
)
def test_a_token_that_says_something_else_is_not(changes: Mapping[str, object], reason: str) -> None:
    """The reason says which claim it was."""
    with pytest.raises(IdTokenInvalidError, match=reason):
        verify(signed(claims(**changes)))


@pytest.mark.parametrize("changes", [{"exp": seconds(-60)}, {"iat": seconds(61)}, {"nbf": seconds(61)}])
def test_a_token_of_another_time_tells_of_clocks(changes: Mapping[str, object]) -> None:
    """What has just been made and isn't good now is a clock's fault, and the advice says so."""
    with pytest.raises(ClocksDifferError) as raised:
        verify(signed(claims(**changes)))
    assert "clock" in raised.value.advice()


def unsigned(header: Mapping[str, object], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(claims()).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def with_public_key_as_secret() -> str:
    """Return a token whose HMAC key is the public key that everybody knows (CVE-2015-9235)."""
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head, body, _ = unsigned({"alg": "HS256", "kid": "rsa"}).split(".")
    mac = hmac.digest(pem, f"{head}.{body}".encode(), "sha256")
    return f"{head}.{body}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


HS_TOO = IdTokenRules(ISSUER, CLIENT, frozenset({"RS256", "HS256", "none"}), timedelta(minutes=1))


@pytest.mark.parametrize(
    ("token", "rules"),
    [
        (unsigned({"alg": "none"}), RULES),
        (unsigned({"alg": "none", "kid": "rsa"}), HS_TOO),
        (unsigned({"alg": "NONE", "kid": "rsa"}), RULES),
        (unsigned({"kid": "rsa"}), RULES),
        (unsigned({"alg": ["RS256"], "kid": "rsa"}), RULES),
        (unsigned({"alg": "RS256", "kid": "rsa"}), RULES),
        (with_public_key_as_secret(), RULES),
        (with_public_key_as_secret(), HS_TOO),
        (signed(claims(), "other", kid="rsa"), RULES),
        (signed(claims(), "other", kid="rsa", jwk=public("other")), RULES),
        (signed(claims(), "other", kid="rsa", jku="https://evil.example/keys"), RULES),
        (signed(claims(), "rsa", "RS384"), RULES),
        (unsigned({"alg": "RS256", "kid": "rsa", "crit": ["exp"], "exp": 1}), RULES),
        (signed(claims(), typ="at+jwt"), RULES),
        (signed(claims(), typ="logout+jwt"), RULES),
        (unsigned({"alg": "RS256", "kid": "rsa", "typ": 1}), RULES),
        (signed(claims())[:-3], RULES),
        ("", RULES),
        ("a.b.c", RULES),
        ("a.b.c.d.e", RULES),
        (f"{signed(claims())}é", RULES),
    ],
)
def test_a_token_that_nobody_signed_is_not_believed(token: str, rules: IdTokenRules) -> None:
    """None at all, a public key as a shared secret, a key that it brings along, an algorithm that isn't allowed."""
    with pytest.raises(IdTokenInvalidError):
        verify(token, rules=rules)


@pytest.mark.parametrize(
    "token",
    [
        signed(claims(), "other"),
        signed(claims(), kid="newer"),
        signed(claims(), kid="p256"),
        signed(claims(), "p256", "ES256", kid="rsa"),
        unsigned({"alg": "RS256", "kid": 7}),
        unsigned({"alg": "RS256", "kid": ["rsa"]}),
    ],
)
def test_an_unknown_key_is_told_apart(token: str) -> None:
    """The issuer may have new ones; a key of another kind isn't the one that is named."""
    with pytest.raises(KeyUnknownError):
        verify(token)


def test_a_token_without_a_name_of_its_key_needs_a_single_one() -> None:
    """Where there are several that fit, none is tried."""
    two = KeySet.parse(json.dumps({"keys": [public("rsa"), public("other")]}).encode())

    with pytest.raises(KeyUnknownError):
        verify(signed(claims(), kid=None), two)


def test_a_token_that_says_something_twice_is_not_believed() -> None:
    """Two readers would take it for two things."""
    twice = json.dumps(claims())[:-1] + ', "sub": "s-2"}'
    token = jws.serialize_compact({"alg": "RS256", "kid": "rsa"}, twice.encode(), JOSE["rsa"])

    with pytest.raises(IdTokenInvalidError):
        verify(token)


def test_an_access_token_that_is_promised_has_to_be_there() -> None:
    """at_hash without one is of something else."""
    with pytest.raises(IdTokenInvalidError, match="at_hash"):
        verify(signed(claims(at_hash=half(ACCESS))), access=None)


def number(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8, "big")).decode().rstrip("=")


SHORT = {"kty": "RSA", "n": number(SHORT_RSA.public_key().public_numbers().n), "e": "AQAB", "kid": "rsa"}


@pytest.mark.parametrize(
    "entry",
    [
        public("rsa", use="enc"),
        public("rsa", key_ops=["encrypt"]),
        public("rsa", key_ops="verify"),
        public("rsa", alg="RSA-OAEP"),
        public("rsa", alg="PS256"),
        public("rsa", alg=1),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "rsa"},
        {"kty": "RSA", "kid": "rsa"},
        {"kty": "RSA", "n": 1, "e": 2, "kid": "rsa"},
        {"kty": "OKP", "crv": "X25519", "x": base64.urlsafe_b64encode(b"\x09" * 32).decode().rstrip("="), "kid": "rsa"},
        {},
        [],
        "rsa",
        None,
        SHORT,
    ],
)
def test_keys_that_are_not_for_this_are_left_out(entry: object) -> None:
    """For encryption, for another algorithm, shared, broken, too short; the others of the set hold."""
    keys = KeySet.parse(json.dumps({"keys": [entry, public("p256")]}).encode())

    with pytest.raises(KeyUnknownError):
        verify(signed(claims()), keys)
    assert verify(signed(claims(), "p256", "ES256"), keys) == "s-1"


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": 1}', b"[" * 100_000])
def test_what_is_no_set_of_keys_is_an_error(text: bytes) -> None:
    """Told by name, however deep it is."""
    with pytest.raises(KeySetInvalidError):
        KeySet.parse(text)
