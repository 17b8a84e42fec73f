"""The Notary Project's envelopes: what `notation sign` writes holds, and what was tampered with doesn't."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.signatures.making import IMAGE, NOW, OTHER, Holder, base64url, holder, jws

from roadstead.oci.digest import Digest
from roadstead.signatures import notation
from roadstead.signatures.errors import KeyInvalidError, SignatureInvalidError, SignatureUnsupportedError

ROOT = holder("root", ca=True)
MIDDLE = holder("middle", ROOT, ca=True, path_length=0)
LEAF = holder("leaf", MIDDLE)
ALONE = holder("alone")
STRANGER = holder("stranger", ca=True)


def check(envelope: Mapping[str, Any], *trusted: Holder, subject: Digest = IMAGE) -> None:
    """Check an envelope against certificates."""
    certificates = [one.certificate for one in trusted or (ROOT,)]
    notation.check_envelope(json.dumps(envelope).encode(), notation.JWS, subject, certificates, NOW)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["ES256", "ES384", "ES512", "PS256"],
)
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
    """COSE is not read, and the error says what to sign with."""
    with pytest.raises(SignatureUnsupportedError, match="--signature-format jws"):
        notation.check_envelope(b"", notation.COSE, IMAGE, [ROOT.certificate], NOW)
    with pytest.raises(SignatureInvalidError, match="unknown type"):
        notation.check_envelope(b"", "text/plain", IMAGE, [ROOT.certificate], NOW)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_words(raw: bytes) -> None:
    """Whatever comes, the answer is that it doesn't hold."""
    with pytest.raises(SignatureInvalidError):
        notation.check_envelope(raw, notation.JWS, IMAGE, [ROOT.certificate], NOW)


def test_certificates_of_settings() -> None:
    """Several in one file are all trusted; what is none is refused by the setting's name."""
    found = notation.TrustedCertificates.parse(ROOT.pem + STRANGER.pem, "a key")

    assert found.certificates == (ROOT.certificate, STRANGER.certificate)
    with pytest.raises(KeyInvalidError, match="a key: it holds no certificate"):
        notation.TrustedCertificates.parse("nothing", "a key")
