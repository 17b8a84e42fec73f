"""Tokens that are believed and tokens that aren't."""

import base64
import json
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from roadstead.auth.chains import ChainInvalidError, follow, parse_chain
from roadstead.auth.key_ids import GENERATOR_OF_P256, libtrust_id, stripped_thumbprint, thumbprint
from roadstead.auth.principal import Grant
from roadstead.auth.trusted_keys import KeysUnreadableError, TrustedKeys, keys_of_bundle, keys_of_jwks
from roadstead.auth.verifying import TokenInvalidError, TokenRules, TokenVerifier

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
ISSUER, SERVICE = "www.synapse.test", "docker.synapse.test"
RULES = TokenRules(ISSUER, SERVICE)

P256 = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
RSA = rsa.generate_private_key(65537, 2048)
ED = ed25519.Ed25519PrivateKey.generate()
# Its x begins with a zero byte, so that distribution has another id for it than RFC 7638.
SHORT = next(
    key
    for secret in range(1, 5000)
    if (key := ec.derive_private_key(secret, ec.SECP256R1())).public_key().public_numbers().x < 1 << 248
)
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def jose(key: PrivateKey | OctKey) -> ECKey | RSAKey | OKPKey | OctKey:
    """Return a key as the library that signs takes it."""
    match key:
        case ec.EllipticCurvePrivateKey():
            return ECKey.import_key(key)
        case rsa.RSAPrivateKey():
            return RSAKey.import_key(key)
        case ed25519.Ed25519PrivateKey():
            return OKPKey.import_key(key)
        case _:
            return key


def certificate(
    key: PrivateKey,
    issuer: PrivateKey | None = None,
    *,
    name: str = "issuer",
    by: str = "issuer",
    ca: bool | None = None,
    days: int = 10,
    below: int | None = None,
    more: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> x509.Certificate:
    """Return a certificate for the key, by itself or by another; valid around NOW."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, by)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=20))
        .not_valid_after(NOW + timedelta(days=days))
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=below), critical=True)
    for extension, critical in more:
        builder = builder.add_extension(extension, critical)
    signer = issuer or key
    return builder.sign(signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def bundle(*certificates: x509.Certificate) -> TrustedKeys:
    return keys_of_bundle(b"".join(each.public_bytes(Encoding.PEM) for each in certificates), "bundle")


TRUSTED = bundle(*(certificate(key) for key in (P256, P384, RSA, ED, SHORT)))


def claims(**changes: object) -> dict[str, object]:
    """Return the claims of a good token, changed; None leaves one out."""
    at = int(NOW.timestamp())
    access = [{"type": "repository", "name": "syn1/app", "actions": ["pull", "push"]}]
    good: dict[str, object] = {"iss": ISSUER, "aud": SERVICE, "sub": "273950", "iat": at, "nbf": at - 120}
    good |= {"exp": at + 120, "jti": "x", "access": access}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def token(key: object, algorithm: str, header: Mapping[str, object], body: Mapping[str, object] | None = None) -> str:
    payload = json.dumps(claims() if body is None else body).encode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        full = {"typ": "JWT", **header, "alg": algorithm}
        return jws.serialize_compact(full, payload, jose(key), algorithms=[algorithm])


def verify(text: str, keys: TrustedKeys = TRUSTED, rules: TokenRules = RULES, now: datetime = NOW) -> str:
    return TokenVerifier(keys, rules).verify(text, now).subject


KEYS = [
    (P256, "ES256", libtrust_id(P256.public_key())),
    (P256, "ES256", thumbprint(P256.public_key())),
    (P256, "ES256", GENERATOR_OF_P256),  # as distribution 3.0.0 had it for all keys of the curve
    (SHORT, "ES256", thumbprint(SHORT.public_key())),
    (SHORT, "ES256", stripped_thumbprint(SHORT.public_key())),
    (SHORT, "ES256", GENERATOR_OF_P256),
    (P384, "ES384", libtrust_id(P384.public_key())),
    (RSA, "RS256", libtrust_id(RSA.public_key())),
    (RSA, "PS512", thumbprint(RSA.public_key())),
    (ED, "EdDSA", thumbprint(ED.public_key())),
    (ED, "Ed25519", thumbprint(ED.public_key())),
]


# Keys are random, and so their ids: what names the tests has to be the same in each of their processes.
@pytest.mark.parametrize(("key", "algorithm", "kid"), KEYS, ids=range(len(KEYS)))
def test_every_id_and_algorithm(key: PrivateKey, algorithm: str, kid: str) -> None:
    """A key of the bundle is found by each id that a token server may give it, and each kind of key verifies."""
    assert verify(token(key, algorithm, {"kid": kid})) == "273950"


def test_what_else_a_header_says_is_passed_over() -> None:
    """Parameters that nobody has to understand do no harm (RFC 7515 §4)."""
    registry = jws.JWSRegistry(algorithms=["ES256"], strict_check_header=False)
    header = {"alg": "ES256", **KID, "vendor": {"a": 1}}

    signed = jws.serialize_compact(header, json.dumps(claims()).encode(), jose(P256), registry=registry)

    assert verify(signed) == "273950"


def test_what_a_token_says() -> None:
    """Subject, grants and end come out as they came in."""
    found = TokenVerifier(TRUSTED, RULES).verify(token(P256, "ES256", {"kid": thumbprint(P256.public_key())}), NOW)

    assert found.subject == "273950"
    assert found.grants == (Grant("repository", "syn1/app", frozenset({"pull", "push"})),)
    assert found.expires_at == NOW + timedelta(seconds=120)


KID = {"kid": thumbprint(P256.public_key())}
AT = int(NOW.timestamp())


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": [SERVICE, "other"]},
        {"exp": AT - 59},
        {"nbf": AT + 59},
        {"nbf": None, "iat": None, "jti": None},
        {"exp": AT + 0.5},
        {"exp": 253402300799},  # the last second of the calendar: for ever
        {"nbf": -62135596800},  # the first one: Go's zero time
        {"nbf": 0},
        {"access": None},
        {"access": []},
        {"access": [{"type": "registry", "name": "catalog", "actions": None}]},
        {"sub": None},
    ],
)
def test_claims_that_are_fine(changes: Mapping[str, object]) -> None:
    """Several services, clocks a minute apart, and what token servers leave out."""
    verify(token(P256, "ES256", KID, claims(**changes)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "other"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"iss": [ISSUER]}, "another issuer"),
        ({"aud": "other"}, "another service"),
        ({"aud": None}, "another service"),
        ({"aud": ["other"]}, "another service"),
        ({"aud": {SERVICE: 1}}, "another service"),
        ({"exp": AT - 61}, "has ended"),
        ({"exp": None}, "never ends"),
        ({"exp": str(AT + 60)}, "exp isn't a moment"),
        ({"exp": True}, "exp isn't a moment"),
        ({"exp": 10**30}, "exp isn't a moment"),
        ({"exp": 10**400}, "exp isn't a moment"),
        ({"exp": 253402300800}, "exp isn't a moment"),
        ({"exp": -62135596800}, "has ended"),
        ({"exp": float("inf")}, "exp isn't a moment"),
        ({"exp": float("nan")}, "exp isn't a moment"),
        ({"nbf": -(10**400)}, "nbf isn't a moment"),
        ({"nbf": 253402300799}, "not valid yet"),
        ({"nbf": AT + 61}, "not valid yet"),
        ({"sub": 273950}, "subject isn't a text"),
        ({"sub": "a\0b"}, "subject isn't a text"),
        ({"sub": "\ud800"}, "subject isn't a text"),
        ({"access": {"type": "repository"}}, "list of grants"),
        ({"access": ["repository:a:pull"]}, "list of grants"),
        ({"access": [{"type": "repository", "name": "a", "actions": "pull"}]}, "list of grants"),
        ({"access": [{"type": "repository", "name": "a", "actions": [1]}]}, "list of grants"),
        ({"access": [{"type": "repository", "actions": []}]}, "list of grants"),
    ],
)
def test_claims_that_are_not(changes: Mapping[str, object], reason: str) -> None:
    """Another issuer, another service, another time, and what isn't of its type."""
    with pytest.raises(TokenInvalidError, match=reason):
        verify(token(P256, "ES256", KID, claims(**changes)))


def encoded(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def public_pem() -> bytes:
    return RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def resigned_with(header: Mapping[str, object]) -> str:
    """Return a good token with another header in the place of its own."""
    return ".".join([encoded(header), *token(P256, "ES256", KID).split(".")[1:]])


def public_key_as_secret() -> str:
    """Return a token signed with HMAC, the public key of the bundle for its secret: the classic confusion."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        secret = OctKey.import_key(base64.b64encode(public_pem()))
    return token(secret, "HS256", {"kid": thumbprint(RSA.public_key())})


TWICE = '{"alg":"none","alg":"ES256"}'

TRICKS = [
    (f"{encoded({'alg': 'none', **KID})}.{encoded(claims())}.", "'none' is not allowed"),
    (f"{encoded({'alg': 'None', **KID})}.{encoded(claims())}.", "'None' is not allowed"),
    (f"{encoded({**KID})}.{encoded(claims())}.x", "None is not allowed"),
    (f"{encoded({'alg': ['ES256'], **KID})}.{encoded(claims())}.x", "is not allowed"),
    (public_key_as_secret(), "not one for HS256"),
    (token(P256, "ES256", {"kid": thumbprint(RSA.public_key())}), "not one for ES256"),
    (token(RSA, "RS256", {"kid": thumbprint(P256.public_key())}), "not one for RS256"),
    (token(OTHER, "ES256", KID), "signature is wrong"),
    (token(OTHER, "ES256", {"kid": GENERATOR_OF_P256}), "signature is wrong"),
    (token(OTHER, "ES256", {"kid": thumbprint(OTHER.public_key())}), "not trusted"),
    (token(P256, "ES256", {}), "not trusted"),
    (resigned_with({"alg": "ES256", "kid": 7}), "not trusted"),
    (resigned_with({"alg": "ES256", **KID, "crit": ["exp"], "exp": 1}), "extensions"),
    (resigned_with({"alg": "ES256", **KID, "b64": False}), "extensions"),
    (resigned_with({"alg": "ES256", **KID, "more": 1}), "signature is wrong"),
    (f"{encoded(TWICE)}.{encoded(claims())}.x", "header can't be read"),
    (token(P256, "ES256", KID)[:-4] + "AAAA", "signature is wrong"),
    (token(P256, "ES256", KID) + "." + "x", "isn't a signed token"),
    ("", "isn't a signed token"),
    ("a.b.c", "header can't be read"),
    ("é.b.c", "isn't a signed token"),
    (f"{encoded('[1]')}.{encoded(claims())}.x", "header can't be read"),
    ("x" * 20_000, "isn't a signed token"),
    # The key that it brings itself, under the name of one that is trusted (CVE-2025-24976).
    (token(OTHER, "ES256", {**KID, "jwk": {**ECKey.import_key(OTHER.public_key()).as_dict(), **KID}}), "not trusted"),
    (resigned_with({"alg": "ES256", **KID, "jwk": "x"}), "not trusted"),
    (resigned_with({"alg": "ES256", **KID, "jwk": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}}), "not trusted"),
]


@pytest.mark.parametrize(("text", "reason"), TRICKS, ids=range(len(TRICKS)))
def test_tricks(text: str, reason: str) -> None:
    """No signature, another algorithm, a foreign key, a key of its own, doubled names: not believed."""
    with pytest.raises(TokenInvalidError, match=reason):
        verify(text)


def test_claims_that_come_twice() -> None:
    """A claim that comes twice could be read in two ways: not believed, though the signature is good."""
    doubled = json.dumps(claims())[:-1] + ', "sub": "root"}'
    signed = jws.serialize_compact(
        {"alg": "ES256", **KID}, doubled.encode(), ECKey.import_key(P256), algorithms=["ES256"]
    )

    with pytest.raises(TokenInvalidError, match="claims can't be read"):
        verify(signed)


def test_algorithms_that_settings_leave_out() -> None:
    """`signingalgorithms` narrows what is believed."""
    rules = TokenRules(ISSUER, SERVICE, frozenset({"RS256"}))

    assert verify(token(RSA, "RS256", {"kid": thumbprint(RSA.public_key())}), rules=rules)
    with pytest.raises(TokenInvalidError, match="'ES256' is not allowed"):
        verify(token(P256, "ES256", KID), rules=rules)


def test_a_key_that_the_token_brings() -> None:
    """A JWK in the header that is one of ours verifies, whatever it calls itself."""
    brought = {**ECKey.import_key(P256.public_key()).as_dict(), "kid": "anything"}

    assert verify(token(P256, "ES256", {"jwk": brought})) == "273950"


# Certificates in the token


ROOT = certificate(P384, name="root", by="root", ca=True)
BETWEEN_KEY = ec.generate_private_key(ec.SECP256R1())
BETWEEN = certificate(BETWEEN_KEY, P384, name="between", by="root", ca=True)
LEAF = certificate(OTHER, BETWEEN_KEY, name="leaf", by="between", ca=False)
STRANGER = certificate(OTHER, OTHER, name="leaf", by="leaf")
ENDED = certificate(OTHER, BETWEEN_KEY, name="leaf", by="between", ca=False, days=-1)
NO_AUTHORITY = certificate(BETWEEN_KEY, P384, name="between", by="root", ca=False)


def x5c(*chain: x509.Certificate) -> dict[str, object]:
    return {"x5c": [base64.b64encode(each.public_bytes(Encoding.DER)).decode() for each in chain]}


def test_a_chain_of_certificates() -> None:
    """A token's certificate that leads over another to a trusted one verifies; so does a trusted one itself."""
    assert verify(token(OTHER, "ES256", x5c(LEAF, BETWEEN)), bundle(ROOT)) == "273950"
    assert verify(token(OTHER, "ES256", x5c(LEAF, BETWEEN, ROOT)), bundle(ROOT)) == "273950"
    assert verify(token(OTHER, "ES256", x5c(STRANGER)), bundle(STRANGER)) == "273950"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (x5c(LEAF), "leads to none"),
        (x5c(STRANGER), "leads to none"),
        (x5c(LEAF, ROOT), "don't issue one another"),
        (x5c(ENDED, BETWEEN), "is not valid now"),
        (x5c(LEAF, NO_AUTHORITY), "may not issue"),
        ({"x5c": []}, "x5c"),
        ({"x5c": "x"}, "x5c"),
        ({"x5c": ["!"]}, "no certificate"),
        ({"x5c": [7]}, "no certificate"),
        ({"x5c": ["AAAA"] * 9}, "a few"),
        ({**x5c(STRANGER), "kid": thumbprint(P384.public_key())}, "leads to none"),  # what else it says doesn't help
    ],
)
def test_chains_that_lead_nowhere(header: Mapping[str, object], reason: str) -> None:
    """Missing links, foreign roots, ended ones, those that may not issue."""
    text = ".".join([encoded({"alg": "ES256", **header}), *token(OTHER, "ES256", KID).split(".")[1:]])

    with pytest.raises(TokenInvalidError, match=reason):
        verify(text, bundle(ROOT))


def usage(*, certificates: bool) -> tuple[x509.ExtensionType, bool]:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    rest = dict.fromkeys((*names, "crl_sign", "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(**{**rest, "digital_signature": True}, key_cert_sign=certificates), True


NAMED = (x509.SubjectAlternativeName([x509.DNSName("issuer.test")]), False)
NARROW = (x509.NameConstraints([x509.DNSName("issuer.test")], None), True)
OF_PEOPLE = (x509.NameConstraints([x509.DirectoryName(ROOT.subject)], None), True)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
LOW_KEY = ec.generate_private_key(ec.SECP256R1())
LOW = certificate(LOW_KEY, BETWEEN_KEY, name="low", by="between", ca=True)
LOW_LEAF = certificate(OTHER, LOW_KEY, name="leaf", by="low")


def between(*more: tuple[x509.ExtensionType, bool], below: int | None = None) -> x509.Certificate:
    return certificate(BETWEEN_KEY, P384, name="between", by="root", ca=True, below=below, more=more)


def root(*more: tuple[x509.ExtensionType, bool], ca: bool | None = True, days: int = 10) -> x509.Certificate:
    return certificate(P384, name="root", by="root", ca=ca, more=more, days=days)


def leaf(*more: tuple[x509.ExtensionType, bool]) -> x509.Certificate:
    return certificate(OTHER, BETWEEN_KEY, name="leaf", by="between", ca=False, more=more)


SOUND = [
    ((LEAF, between(usage(certificates=True))), ROOT),
    ((LEAF, between((UNKNOWN, False))), ROOT),
    ((LEAF, between(NARROW)), ROOT),
    ((LEAF, between(below=0)), ROOT),
    ((LEAF, between(below=0), ROOT), ROOT),
    ((LOW_LEAF, LOW, between(below=1)), ROOT),
    ((leaf(NAMED, usage(certificates=False)), BETWEEN), root(usage(certificates=True))),
]

UNSOUND = [
    ((LEAF, between(usage(certificates=False))), ROOT, "CN=between may not issue"),
    ((LEAF, BETWEEN), root(usage(certificates=False)), "CN=root may not issue"),
    ((LEAF, BETWEEN), root(ca=None), "CN=root may not issue"),
    ((LEAF, BETWEEN), root(ca=False), "CN=root may not issue"),
    ((LOW_LEAF, LOW, between(below=0)), ROOT, "CN=between allows 0"),
    ((LOW_LEAF, LOW, BETWEEN), certificate(P384, name="root", by="root", ca=True, below=1), "CN=root allows 1"),
    ((LEAF, between((UNKNOWN, True))), ROOT, "CN=between has a critical extension"),
    ((leaf((UNKNOWN, True)), BETWEEN), ROOT, "CN=leaf has a critical extension"),
    ((LEAF, BETWEEN), root((UNKNOWN, True)), "CN=root has a critical extension"),
    ((LEAF, BETWEEN), root(days=-1), "CN=root is not valid now"),
    ((LEAF, BETWEEN, root(days=-1)), root(days=-1), "CN=root is not valid now"),
    ((certificate(OTHER, days=-1),), certificate(OTHER, days=-1), "is not valid now"),
    ((leaf(NAMED), between(NARROW)), ROOT, "narrows the names"),
    ((LEAF, between(OF_PEOPLE)), ROOT, "narrows the names"),
]


@pytest.mark.parametrize(("chain", "trusted"), SOUND, ids=range(len(SOUND)))
def test_chains_that_are_sound(chain: Sequence[x509.Certificate], trusted: x509.Certificate) -> None:
    """Uses that fit, as many authorities as one allows, extensions that nobody has to know."""
    assert verify(token(OTHER, "ES256", x5c(*chain)), bundle(trusted)) == "273950"


@pytest.mark.parametrize(("chain", "trusted", "reason"), UNSOUND, ids=range(len(UNSOUND)))
def test_chains_that_are_not(chain: Sequence[x509.Certificate], trusted: x509.Certificate, reason: str) -> None:
    """What distribution refuses is refused: keys for another use, too many authorities, what has to be known, age."""
    with pytest.raises(TokenInvalidError, match=reason):
        verify(token(OTHER, "ES256", x5c(*chain)), bundle(trusted))


# Made with openssl x509 -req, for a hundred years: the library makes none of these kinds.
FIRST_VERSION = (
    "MIIBEjCBugIUdsWzYIIxmWQ1F0dZ0uCLNQMjaC8wCQYHKoZIzj0EATAMMQowCAYDVQQDDAFyMCAXDTI2MTEyMzA0MTI0M1oYDzIx"
    "MjYxMDMwMDQxMjQzWjAMMQowCAYDVQQDDAFyMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE3Rxtd0MsWTQEFcMB8fYZqg+CR85X"
    "5IuyjkL5gKza1IU8dRaJnwaMUcSc/dinSNPV9Kr/pMCinZbevTKEzk1zmzAJBgcqhkjOPQQBA0gAMEUCIEImPLoL1HotpgFk59MA"
    "jvf7XoJZOknGfq/rBuYwJUPAAiEArB0tr69szkL3knbtPewjImhFGB1QKrCDoVg6dIRcuiQ="
)
OF_SHA_1 = (
    "MIIBADCBpwIBAjAJBgcqhkjOPQQBMAwxCjAIBgNVBAMMAXIwIBcNMjYxMTIzMDQxMjQzWhgPMjEyNjEwMzAwNDEyNDNaMAwxCjAI"
    "BgNVBAMMAWwwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARtbC333NjHkn5Zgz0Qz1FAsl22NTTb/Q6eRkduk+7GmQEGIFtoPPkR"
    "HRtFOFw+IOs6yFz6kPebt6CEaB9zDEg8MAkGByqGSM49BAEDSQAwRgIhAIbwwvvU/8X97qUUqyHrfHYCWmD1Yuoc4X0lcmQO5eAc"
    "AiEAtYyFmVA7i+ATdEPkzhgppk11HlJEWeS2B12D4HT+OdY="
)
OF_SHA_256 = (
    "MIIBADCBqAIBAzAKBggqhkjOPQQDAjAMMQowCAYDVQQDDAFyMCAXDTI2MTEyMzA0MTI0M1oYDzIxMjYxMDMwMDQxMjQzWjAMMQow"
    "CAYDVQQDDAFsMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEbWwt99zYx5J+WYM9EM9RQLJdtjU02/0OnkZHbpPuxpkBBiBbaDz5"
    "ER0bRThcPiDrOshc+pD3m7eghGgfcwxIPDAKBggqhkjOPQQDAgNHADBEAiA9uuR8FgZCzrszvOsx0ycCE3ZWnBwoeHzPloQ1bIka"
    "FAIgJAb5KGVDRRBsx7D+5EaOxRIL/rp9o50dO8gS/zWJFls="
)


def test_a_root_before_version_3_is_an_authority() -> None:
    """It can't say so, but whoever put it into the bundle has; that SHA-1 signs it doesn't matter, as nobody looks."""
    (trusted,) = parse_chain([FIRST_VERSION])

    assert trusted.version is x509.Version.v1
    follow(parse_chain([OF_SHA_256]), [trusted], datetime(2050, 1, 1, tzinfo=UTC))


def test_signatures_with_sha_1_lead_nowhere() -> None:
    """Somebody else can have made them."""
    with pytest.raises(ChainInvalidError, match="leads to none"):
        follow(parse_chain([OF_SHA_1]), parse_chain([FIRST_VERSION]), datetime(2050, 1, 1, tzinfo=UTC))


def test_a_certificate_with_any_signature_carries_a_key() -> None:
    """Of a certificate in the bundle only the key counts: signed by nobody we know, ended long ago."""
    foreign = certificate(P256, OTHER, by="nobody", days=-5)

    assert verify(token(P256, "ES256", KID), bundle(foreign)) == "273950"


# JWK sets


def jwks(*keys: Mapping[str, object]) -> TrustedKeys:
    return keys_of_jwks(json.dumps({"keys": keys}).encode(), "jwks")


def test_a_set_of_keys() -> None:
    """Keys are known by the ids that the set gives them, and by their own."""
    keys = jwks({**ECKey.import_key(P256.public_key()).as_dict(), "kid": "first"}, RSAKey.import_key(RSA).as_dict())

    assert verify(token(P256, "ES256", {"kid": "first"}), keys)
    assert verify(token(P256, "ES256", KID), keys)
    assert verify(token(RSA, "RS256", {"kid": thumbprint(RSA.public_key())}), keys)


def test_a_shared_secret() -> None:
    """HMAC works with a shared secret of the set, and with nothing else."""
    secret = OctKey.import_key("0123456789abcdef0123456789abcdef0123456789abcdef")
    keys = jwks({**secret.as_dict(), "kid": "shared"}, {**ECKey.import_key(P256.public_key()).as_dict(), "kid": "pair"})

    assert verify(token(secret, "HS256", {"kid": "shared"}), keys)
    with pytest.raises(TokenInvalidError, match="not one for HS256"):
        verify(token(secret, "HS256", {"kid": "pair"}), keys)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": []}', '{"keys": [1]}', '{"keys": [{"kty": "EC"}]}'])
def test_sets_that_cannot_be_read(text: str) -> None:
    """What isn't a set of keys is an error that names the file."""
    with pytest.raises(KeysUnreadableError, match=r"jwks\.json"):
        keys_of_jwks(text.encode(), "jwks.json")


def test_a_bundle_that_cannot_be_read() -> None:
    """A bundle without a certificate is an error that names the file."""
    with pytest.raises(KeysUnreadableError, match=r"bundle\.pem"):
        keys_of_bundle(b"nothing", "bundle.pem")


# Memory


def test_a_believed_token_is_remembered_until_it_ends() -> None:
    """The second look costs no signature; when the token has ended it isn't believed any more."""
    verifier = TokenVerifier(TRUSTED, RULES)
    text = token(P256, "ES256", KID)

    assert verifier.verify(text, NOW) is verifier.verify(text, NOW + timedelta(seconds=170))
    with pytest.raises(TokenInvalidError, match="has ended"):
        verifier.verify(text, NOW + timedelta(seconds=181))


def test_the_memory_is_bounded() -> None:
    """The one that wasn't asked about for longest is forgotten first."""
    verifier = TokenVerifier(TRUSTED, RULES, remembered=2)
    first, second, third = (token(P256, "ES256", KID, claims(jti=name)) for name in "abc")
    remembered = {text: verifier.verify(text, NOW) for text in (first, second)}

    verifier.verify(first, NOW)
    verifier.verify(third, NOW)

    assert verifier.verify(first, NOW) is remembered[first]
    assert verifier.verify(second, NOW) is not remembered[second]


MOMENTS = st.integers() | st.integers(-62135596801, 253402300800) | st.floats() | st.booleans() | st.text(max_size=5)
VALUES = st.recursive(
    st.none()
    | MOMENTS
    | st.text(st.characters(), max_size=5)
    | st.sampled_from([10**400, -(10**400), ISSUER, SERVICE]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(["exp", "nbf"]), MOMENTS), st.dictionaries(st.sampled_from([*claims()]), VALUES))
def test_whatever_a_signed_token_says(moments: Mapping[str, object], odd: Mapping[str, object]) -> None:
    """It is believed and lasts until a moment that can be compared, or it is refused in the one way."""
    verifier = TokenVerifier(TRUSTED, RULES)
    for changed in (moments, odd):
        text = token(P256, "ES256", KID, {**claims(), **changed})
        try:
            found = verifier.verify(text, NOW)
        except TokenInvalidError:
            continue
        assert verifier.ends(found) >= NOW


@given(
    st.text(st.characters(), max_size=60)
    | st.binary(max_size=60).map(lambda raw: f"{encoded(raw.decode('latin-1'))}.e30.x")
)
def test_anything_else_is_refused(text: str) -> None:
    """Whatever comes, it is refused in the same way."""
    with pytest.raises(TokenInvalidError):
        verify(text)
