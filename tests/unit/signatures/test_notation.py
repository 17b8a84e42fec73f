"""The Notary Project's envelopes: what `notation sign` writes holds, and what was tampered with doesn't."""

import itertools
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.signatures.making import IMAGE, NOW, OTHER, Holder, base64url, cose, holder, jws

from roadstead.oci.digest import Digest
from roadstead.signatures import notation
from roadstead.signatures.errors import KeyInvalidError, SignatureInvalidError

ROOT = holder("root", ca=True)
MIDDLE = holder("middle", ROOT, ca=True, path_length=0)
LEAF = holder("leaf", MIDDLE)
ALONE = holder("alone")
STRANGER = holder("stranger", ca=True)

every_key = pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["ES256", "ES384", "ES512", "PS256"],
)


def check(envelope: Mapping[str, Any], *trusted: Holder, subject: Digest = IMAGE) -> None:
    """Check an envelope against certificates."""
    certificates = [one.certificate for one in trusted or (ROOT,)]
    notation.check_envelope(json.dumps(envelope).encode(), notation.JWS, subject, certificates, NOW)


@every_key
def test_an_envelope_holds_under_a_trusted_root(key: Any) -> None:
    """The chain ends at what is trusted, whichever key signs."""
    check(jws(holder("leaf", MIDDLE, key=key), MIDDLE, ROOT))


def test_a_self_signed_certificate_may_be_trusted_itself() -> None:
    """As `notation cert generate-test` makes it."""
    check(jws(ALONE), ALONE)


def tampered(envelope: dict[str, Any], **members: Any) -> dict[str, Any]:
    """Return an envelope with members replaced."""
    return {**envelope, **members}


GOOD = jws(LEAF, MIDDLE, ROOT)
X5C = GOOD["header"]["x5c"]


@pytest.mark.parametrize(
    ("envelope", "reason"),
    [
        (jws(LEAF, MIDDLE, ROOT, subject=OTHER), "another image"),
        (tampered(GOOD, payload=jws(LEAF, subject=OTHER)["payload"]), "isn't that of its certificate"),
        (tampered(GOOD, signature=base64url(b"\0" * 64)), "isn't that of its certificate"),
        (tampered(GOOD, signature=base64url(b"\1" * 63)), "63 bytes"),
        (tampered(GOOD, signature=GOOD["signature"] + "="), "base64url"),
        (tampered(GOOD, header={"x5c": [X5C[1], *X5C[1:]]}), "certificate"),
        (tampered(GOOD, header={"x5c": []}), "0 certificates"),
        (tampered(GOOD, header={"x5c": X5C * 4}), "12 certificates"),
        (tampered(GOOD, header={"x5c": ["AAAA"]}), "can't be read"),
        (tampered(GOOD, header={}), "x5c"),
        (jws(LEAF, MIDDLE, ROOT, protected={"alg": "none"}), "'none'"),
        (jws(LEAF, MIDDLE, ROOT, protected={"alg": "HS256"}), "'HS256'"),
        (jws(LEAF, MIDDLE, ROOT, protected={"alg": "ES384"}), "'ES384'"),
        (jws(LEAF, MIDDLE, ROOT, protected={"cty": "text/plain"}), "text/plain"),
        (jws(LEAF, MIDDLE, ROOT, protected={"crit": []}), "scheme"),
        (jws(LEAF, MIDDLE, ROOT, protected={"crit": ["io.cncf.notary.signingScheme", "b64"]}), "b64"),
        (jws(LEAF, MIDDLE, ROOT, without=["crit"]), "as crit"),
        (jws(LEAF, MIDDLE, ROOT, protected={"io.cncf.notary.signingScheme": "other"}), "other"),
        (
            jws(
                LEAF,
                MIDDLE,
                ROOT,
                protected={
                    "crit": ["io.cncf.notary.signingScheme", "io.cncf.notary.expiry"],
                    "io.cncf.notary.expiry": "2026-04-30T13:00:00Z",
                },
            ),
            "expired",
        ),
        (
            jws(
                LEAF,
                MIDDLE,
                ROOT,
                protected={
                    "crit": ["io.cncf.notary.signingScheme", "io.cncf.notary.expiry"],
                    "io.cncf.notary.expiry": "tomorrow",
                },
            ),
            "no time",
        ),
        (jws(LEAF, MIDDLE), "none of the trusted"),
        (jws(LEAF), "none of the trusted"),
        (jws(LEAF, ROOT), "hasn't issued"),
        (jws(ALONE, ROOT), "hasn't issued"),
        (jws(holder("x", STRANGER), STRANGER), "none of the trusted"),
        (jws(holder("x", ALONE), ALONE), "may not issue"),
        (jws(holder("x", holder("y", MIDDLE, ca=True)), MIDDLE, ROOT), "hasn't issued"),
        (jws(holder("x", MIDDLE, signs=False), MIDDLE, ROOT), "isn't for signatures"),
        (jws(holder("x", MIDDLE, purposes=[ExtendedKeyUsageOID.SERVER_AUTH]), MIDDLE, ROOT), "signing code"),
        (jws(holder("x", MIDDLE, lasts=timedelta(hours=1)), MIDDLE, ROOT), "valid now"),
        (jws(holder("x", MIDDLE, since=NOW + timedelta(hours=1)), MIDDLE, ROOT), "valid now"),
        (jws(holder("x", MIDDLE, ca=True), MIDDLE, ROOT), "issues others"),
    ],
)
def test_an_envelope_that_was_tampered_with(envelope: dict[str, Any], reason: str) -> None:
    """Algorithm, chain, validity, purpose, critical headers, image: each is refused by its reason."""
    with pytest.raises(SignatureInvalidError, match=reason):
        check(envelope)


def test_a_chain_is_not_longer_than_its_issuers_allow() -> None:
    """`MIDDLE` may issue no further issuers."""
    below = holder("below", MIDDLE, ca=True)

    with pytest.raises(SignatureInvalidError, match="longer than it allows"):
        check(jws(holder("leaf", below), below, MIDDLE, ROOT))


def test_another_envelope_is_named() -> None:
    """What is neither JWS nor COSE isn't read."""
    with pytest.raises(SignatureInvalidError, match="unknown type"):
        notation.check_envelope(b"", "text/plain", IMAGE, [ROOT.certificate], NOW)


@given(st.binary(max_size=200), st.sampled_from([notation.JWS, notation.COSE]))
def test_any_bytes_are_refused_in_words(raw: bytes, media_type: str) -> None:
    """Whatever comes, the answer is that it doesn't hold."""
    with pytest.raises(SignatureInvalidError):
        notation.check_envelope(raw, media_type, IMAGE, [ROOT.certificate], NOW)


# COSE


def check_cose(envelope: bytes, *trusted: Holder, subject: Digest = IMAGE) -> None:
    """Check an envelope against certificates."""
    certificates = [one.certificate for one in trusted or (ROOT,)]
    notation.check_envelope(envelope, notation.COSE, subject, certificates, NOW)


@every_key
def test_a_cose_envelope_holds_under_a_trusted_root(key: Any) -> None:
    """The chain ends at what is trusted, whichever key signs; one that expires later holds until then."""
    expiring = {2: ["io.cncf.notary.signingScheme", EXPIRY], EXPIRY: cbor2.CBORTag(1, int(NOW.timestamp()) + 1)}
    check_cose(cose(holder("leaf", MIDDLE, key=key), MIDDLE, ROOT))
    check_cose(cose(holder("leaf", MIDDLE, key=key), MIDDLE, ROOT, protected=expiring))


def parts(envelope: bytes) -> list[Any]:
    """Return an envelope's four parts."""
    return list(cbor2.loads(envelope).value)


def wrapped(*members: Any) -> bytes:
    """Return an envelope of these parts."""
    return cbor2.dumps(cbor2.CBORTag(18, list(members)))


EXPIRY = "io.cncf.notary.expiry"
MADE = cose(LEAF, MIDDLE, ROOT)
HEAD, MORE, PAYLOAD, SIGNATURE = parts(MADE)
TWICE = b"\xa2\x01\x26\x01\x26"  # {1: -7, 1: -7}


@pytest.mark.parametrize(
    ("envelope", "reason"),
    [
        (cose(LEAF, MIDDLE, ROOT, subject=OTHER), "another image"),
        (wrapped(HEAD, MORE, parts(cose(LEAF, subject=OTHER))[2], SIGNATURE), "isn't that of its certificate"),
        (wrapped(parts(cose(LEAF, protected={"x": 1}))[0], MORE, PAYLOAD, SIGNATURE), "isn't that of its certificate"),
        (wrapped(HEAD, MORE, PAYLOAD, b"\0" * 64), "isn't that of its certificate"),
        (wrapped(HEAD, MORE, PAYLOAD, b"\1" * 63), "63 bytes"),
        (wrapped(HEAD, MORE, None, SIGNATURE), "four parts"),
        (wrapped(HEAD, MORE, PAYLOAD), "four parts"),
        (wrapped(HEAD, MORE, PAYLOAD, SIGNATURE, b""), "four parts"),
        (wrapped(cbor2.dumps([]), MORE, PAYLOAD, SIGNATURE), "isn't a map"),
        (wrapped(b"", MORE, PAYLOAD, SIGNATURE), "the protected header isn't CBOR"),
        (wrapped(TWICE, MORE, PAYLOAD, SIGNATURE), "the protected header isn't CBOR"),
        (wrapped(HEAD + b"\x01", MORE, PAYLOAD, SIGNATURE), "more follows"),
        (wrapped(b"\xbf\x01\x26\xff", MORE, PAYLOAD, SIGNATURE), "isn't CBOR"),
        (wrapped(HEAD, {**MORE, 1: -7}, PAYLOAD, SIGNATURE), "both protected and not"),
        (wrapped(cbor2.dumps({b"1": 2}), MORE, PAYLOAD, SIGNATURE), "neither a number nor a text"),
        (MADE + b"\x00", "more follows"),
        (MADE[1:], "with its tag"),
        (b"\xd8\x12" + MADE[1:], "with its tag"),
        (b"\xd2" * 9 + MADE, "isn't CBOR"),
        (b"\xd2" + b"\x81" * 400 + b"\x01", "isn't CBOR"),
        (b"\xd2" + b"\x81" * 4000 + b"\x01", "more than 1,024 items"),
        (wrapped(HEAD, {**MORE, 34: list(range(1024))}, PAYLOAD, SIGNATURE), "the envelope has more than 1,024 items"),
        (wrapped(cbor2.dumps({1: -7, 34: [b""] * 1024}), MORE, PAYLOAD, SIGNATURE), "header has more than 1,024 items"),
        (cose(LEAF, MIDDLE, ROOT, unprotected={33: []}), "0 certificates"),
        (cose(LEAF, MIDDLE, ROOT, unprotected={33: MORE[33] * 4}), "12 certificates"),
        (cose(LEAF, MIDDLE, ROOT, unprotected={33: [b"AAAA"]}), "can't be read"),
        (cose(LEAF, MIDDLE, ROOT, unprotected={33: MORE[33][0]}), "without a list of certificates"),
        (cose(LEAF, MIDDLE, ROOT, unprotected={33: [MORE[33][1], *MORE[33][1:]]}), "certificate"),
        (cose(LEAF, MIDDLE, ROOT, protected={1: 5}), "'5'"),
        (cose(LEAF, MIDDLE, ROOT, protected={1: -35}), "'ES384'"),
        (cose(LEAF, MIDDLE, ROOT, protected={1: "ES256K"}), "'ES256K'"),
        (cose(LEAF, MIDDLE, ROOT, without=[1]), "'None'"),
        (cose(LEAF, MIDDLE, ROOT, protected={3: "text/plain"}), "text/plain"),
        (cose(LEAF, MIDDLE, ROOT, protected={258: -16}, without=[3]), "the hash of a payload"),
        (cose(LEAF, MIDDLE, ROOT, without=[2]), "what is critical"),
        (cose(LEAF, MIDDLE, ROOT, protected={2: []}), "scheme"),
        (cose(LEAF, MIDDLE, ROOT, protected={2: ["io.cncf.notary.signingScheme", 15], 15: {}}), "'15'"),
        (cose(LEAF, MIDDLE, ROOT, protected={2: ["io.cncf.notary.signingScheme", [1]]}), "to be understood"),
        (
            cose(LEAF, MIDDLE, ROOT, protected={"io.cncf.notary.signingScheme": "notary.x509.signingAuthority"}),
            "scheme",
        ),
        *[
            (
                cose(LEAF, MIDDLE, ROOT, protected={2: ["io.cncf.notary.signingScheme", EXPIRY], EXPIRY: value}),
                reason,
            )
            for value, reason in (
                (cbor2.CBORTag(1, int(NOW.timestamp())), "expired"),
                (int(NOW.timestamp()) + 60, "no time"),
                ("2027-01-01T00:00:00Z", "no time"),
                (cbor2.CBORTag(1, 1 << 60), "no time"),
                (cbor2.CBORTag(1, float("inf")), "no time"),
                (cbor2.CBORTag(1, "soon"), "isn't CBOR"),
            )
        ],
        (cose(LEAF, MIDDLE, ROOT, protected={EXPIRY: cbor2.CBORTag(1, int(NOW.timestamp()) + 60)}), "expired"),
        (cose(LEAF, MIDDLE), "none of the trusted"),
        (cose(LEAF, ROOT), "hasn't issued"),
        (cose(holder("x", MIDDLE, purposes=[ExtendedKeyUsageOID.SERVER_AUTH]), MIDDLE, ROOT), "signing code"),
        (cose(holder("x", MIDDLE, lasts=timedelta(hours=1)), MIDDLE, ROOT), "valid now"),
    ],
)
def test_a_cose_envelope_that_was_tampered_with(envelope: bytes, reason: str) -> None:
    """What is no such envelope, algorithm, chain, validity, critical headers, image: each is refused by its reason."""
    with pytest.raises(SignatureInvalidError, match=reason):
        check_cose(envelope)


def test_keys_that_hash_alike_are_not_compared() -> None:
    """Hashes of -1 and -2 are the same, and so are those of lists of them: a map of such keys takes minutes to build.

    A part of it in the place of an envelope's certificates, which no signature covers.
    """
    keys = itertools.islice(itertools.product((-1, -2), repeat=16), 3000)
    headers = b"\xb9" + (3000).to_bytes(2, "big") + b"".join(cbor2.dumps(list(key)) + b"\x00" for key in keys)
    envelope = b"\xd2\x84" + cbor2.dumps(HEAD) + headers + cbor2.dumps(PAYLOAD) + cbor2.dumps(SIGNATURE)

    with pytest.raises(SignatureInvalidError, match="more than 1,024 items"):
        check_cose(envelope)


@given(st.integers(0, len(MADE) - 1), st.integers(1, 255))
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_no_byte_of_what_is_signed_may_change(position: int, change: int) -> None:
    """Wherever a byte is another one, it is refused in words; or it is one that nobody has signed."""
    changed = bytearray(MADE)
    changed[position] ^= change
    try:
        check_cose(bytes(changed))
    except SignatureInvalidError:
        return
    spans = [(MADE.index(part), len(part)) for part in (HEAD, PAYLOAD, SIGNATURE)]
    assert not any(start <= position < start + length for start, length in spans)


def test_certificates_of_settings() -> None:
    """Several in one file are all trusted; what is none is refused by the setting's name."""
    found = notation.TrustedCertificates.parse(ROOT.pem + STRANGER.pem, "a key")

    assert found.certificates == (ROOT.certificate, STRANGER.certificate)
    with pytest.raises(KeyInvalidError, match="a key: it holds no certificate"):
        notation.TrustedCertificates.parse("nothing", "a key")
