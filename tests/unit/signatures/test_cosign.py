"""cosign's forms: what is made holds, and what was tampered with doesn't."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.signatures.making import IMAGE, OTHER

from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Algorithm, Digest
from roadstead.oci.strict_json import compact
from roadstead.signatures import cosign, dsse, names
from roadstead.signatures.errors import SignatureInvalidError, SignatureUnsupportedError
from roadstead.signatures.keys import SigningKey

KEY = SigningKey(ec.generate_private_key(ec.SECP256R1()))
STRANGER = SigningKey(ec.generate_private_key(ec.SECP256R1()))
TRUSTED = (KEY.public,)

Tamper = Callable[[dict[str, Any]], object]


def simple(payload: bytes, key: SigningKey = KEY, **annotations: str) -> Descriptor:
    """Return a layer with a payload, signed."""
    signature = base64.b64encode(key.sign(payload)).decode()
    return Descriptor(
        names.SIMPLE_SIGNING, Digest.of(payload), len(payload), annotations={cosign.SIGNED: signature, **annotations}
    )


def payload(**critical: Any) -> bytes:
    """Return a payload about the image."""
    whole = {
        "identity": {"docker-reference": "team/app"},
        "image": {"docker-manifest-digest": str(IMAGE)},
        "type": "cosign container image signature",
        **critical,
    }
    return compact({"critical": whole, "optional": None})


def test_a_payload_holds_for_its_image() -> None:
    """What is made here is what is checked here; it has no time in it, and is the same each time."""
    made = cosign.simple(IMAGE, "team/app", KEY)
    [blob] = made.blobs

    cosign.check_simple(blob.content, blob.descriptor(), IMAGE, TRUSTED)
    assert made.about(blob.descriptor()).raw == cosign.simple(IMAGE, "team/app", KEY).about(blob.descriptor()).raw


@pytest.mark.parametrize(
    ("content", "layer", "reason"),
    [
        (payload(), simple(payload(), STRANGER), "none of the trusted keys"),
        (payload() + b" ", simple(payload()), "none of the trusted keys"),
        (payload(image={"docker-manifest-digest": str(OTHER)}), None, "another image"),
        (payload(image={}), None, "another image"),
        (payload(image={"docker-manifest-digest": [str(IMAGE)]}), None, "another image"),
        (payload(image=str(IMAGE)), None, "as image"),
        (payload(type="atomic container signature"), None, "not an image"),
        (b"[]", None, "expected an object"),
        (b'{"critical":{},"critical":{}}', None, "twice"),
        (b"\xff", None, "UTF-8"),
        (b"{" * 5000, None, "nested"),
        (payload(), Descriptor(names.SIMPLE_SIGNING, Digest.of(b""), 0), "carries no signature"),
        (payload(), Descriptor(names.SIMPLE_SIGNING, Digest.of(b""), 0, annotations={cosign.SIGNED: "?"}), "base64"),
    ],
)
def test_a_payload_that_was_tampered_with(content: bytes, layer: Descriptor | None, reason: str) -> None:
    """Wrong key, wrong image, wrong type, no JSON: each is refused by its reason, signed by a trusted key or not."""
    with pytest.raises(SignatureInvalidError, match=reason):
        cosign.check_simple(content, layer or simple(content), IMAGE, TRUSTED)


def test_a_keyless_payload_is_named() -> None:
    """A certificate of sigstore's vouches for nothing here; a trusted key counts with one beside it, too."""
    certified = {"dev.sigstore.cosign/certificate": "-----BEGIN CERTIFICATE-----"}

    with pytest.raises(SignatureUnsupportedError, match="keyless"):
        cosign.check_simple(payload(), simple(payload(), STRANGER, **certified), IMAGE, TRUSTED)
    cosign.check_simple(payload(), simple(payload(), **certified), IMAGE, TRUSTED)


def bundle(tamper: Tamper = lambda _: None, *, key: SigningKey = KEY, subject: Digest = IMAGE) -> bytes:
    """Return a bundle, tampered with."""
    [blob] = cosign.signed_image(subject, key).blobs
    document = json.loads(blob.content)
    tamper(document)
    return json.dumps(document).encode()


def envelope(statement: object, key: SigningKey = KEY, **replaced: Any) -> Tamper:
    """Put another statement into a bundle, signed."""
    sealed = {**dsse.sealed(json.dumps(statement).encode(), key), **replaced}
    return lambda document: document.__setitem__("dsseEnvelope", sealed)


STATEMENT: dict[str, Any] = {
    "_type": dsse.STATEMENT,
    "subject": [{"digest": {"sha256": IMAGE.encoded}}],
    "predicateType": names.SIGN_PREDICATE,
    "predicate": {},
}


def test_a_bundle_holds_for_its_image() -> None:
    """What is made here is what is checked here, in older versions of the format, too."""
    cosign.check_bundle(bundle(), IMAGE, TRUSTED)
    for media_type in (
        "application/vnd.dev.sigstore.bundle+json;version=0.2",
        "application/vnd.dev.sigstore.bundle.v0.3+json",
    ):
        cosign.check_bundle(bundle(lambda one, of=media_type: one.update(mediaType=of)), IMAGE, TRUSTED)


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (envelope(STATEMENT, STRANGER), "none of the trusted keys"),
        (envelope({**STATEMENT, "subject": [{"digest": {"sha256": OTHER.encoded}}]}), "another image"),
        (envelope({**STATEMENT, "subject": [{"digest": {"sha512": IMAGE.encoded}}]}), "another image"),
        (envelope({**STATEMENT, "subject": []}), "another image"),
        (envelope({**STATEMENT, "subject": {"digest": {"sha256": IMAGE.encoded}}}), "as subject"),
        (envelope({**STATEMENT, "predicateType": "https://slsa.dev/provenance/v1"}), "no signature but a statement"),
        (envelope({**STATEMENT, "_type": "other"}), "not a statement"),
        (envelope([]), "expected an object"),
        (envelope(STATEMENT, payloadType="text/plain"), "text/plain"),
        (envelope(STATEMENT, payloadType="application/vnd.in-toto+json "), "not a statement of in-toto"),
        (envelope(STATEMENT, signatures=[]), "0 signatures"),
        (envelope(STATEMENT, signatures=[{}] * 17), "17 signatures"),
        (envelope(STATEMENT, signatures=[None]), "not base64"),
        (envelope(STATEMENT, payload="e30="), "none of the trusted keys"),
        (lambda one: one.pop("dsseEnvelope"), "holds no statement"),
        (lambda one: one.update(mediaType="application/json"), "no bundle"),
        (lambda one: one.pop("verificationMaterial"), "verificationMaterial"),
        (lambda one: one["verificationMaterial"].update(certificate={"rawBytes": ""}), "keyless"),
        (lambda one: one["verificationMaterial"].update(x509CertificateChain={}), "keyless"),
    ],
)
def test_a_bundle_that_was_tampered_with(tamper: Tamper, reason: str) -> None:
    """Each part that is changed is refused by its reason."""
    with pytest.raises(SignatureInvalidError, match=reason):
        cosign.check_bundle(bundle(tamper), IMAGE, TRUSTED)


def test_a_signed_length_is_part_of_what_is_signed() -> None:
    """Type and payload can't be shifted into each other (DSSE, pre-authentication encoding)."""
    assert dsse.authenticated("a", b"b c") == b"DSSEv1 1 a 3 b c"
    assert dsse.authenticated("a 3 b", b"c") != dsse.authenticated("a", b"3 b c")


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_are_refused_in_words(raw: bytes) -> None:
    """Whatever comes, the answer is that it doesn't hold."""
    for check in (
        lambda: cosign.check_bundle(raw, IMAGE, TRUSTED),
        lambda: cosign.check_simple(raw, simple(raw), IMAGE, TRUSTED),
    ):
        with pytest.raises(SignatureInvalidError):
            check()


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_tags_of_signatures(algorithm: Algorithm) -> None:
    """The tag of a digest's signatures names that digest, and nothing else does."""
    digest = Digest.of(b"x", algorithm)

    assert names.tagged_subject(names.signature_tag(digest)) == digest
    assert names.tagged_subject(f"{algorithm.value}-{digest.encoded}.att") is None
    assert names.tagged_subject(f"{algorithm.value}-{digest.encoded[:-2]}.sig") is None
    assert names.tagged_subject("latest") is None
