"""Signatures in cosign's forms, checked and made with keys (sigstore/cosign specs/SIGNATURE_SPEC.md, BUNDLE_SPEC.md).

Where they are: under a tag beside the image (``sha256-<hex>.sig``), or as manifests that refer to it. What they are:

    simple signing   a payload that names the image's digest, as a layer; its signature as the layer's annotation
    bundle           a statement of in-toto about the digest, signed in a DSSE envelope, in a document of sigstore's

Both with keys alone. What a certificate of Fulcio's vouches for (keyless signing) needs its roots and a transparency
log; such signatures are named, and don't count.
"""

import re
from collections.abc import Sequence

from roadstead.oci.artifact import Artifact, ArtifactBlob
from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.oci.strict_json import JsonObject, compact
from roadstead.signatures import dsse
from roadstead.signatures.encoded import base64_bytes, base64_text, document, member
from roadstead.signatures.errors import SignatureInvalidError, SignatureUnsupportedError
from roadstead.signatures.keys import PublicKey, SigningKey, signer_of
from roadstead.signatures.names import BUNDLE, SIGN_PREDICATE, SIGNATURE, SIMPLE_SIGNING

KEY = "io.roadstead.key"
"""Annotation of what is signed here: the fingerprint of the key."""

PREDICATE = "dev.sigstore.bundle.predicateType"
"""Annotation of a bundle's manifest: of what type its statement is."""

SIGNED = "dev.cosignproject.cosign/signature"
_CERTIFICATE = "dev.sigstore.cosign/certificate"
_PAYLOAD_TYPE = "cosign container image signature"
_PAYLOAD_TYPES = frozenset({_PAYLOAD_TYPE, SIGN_PREDICATE})
_BUNDLES = re.compile(
    r"application/vnd\.dev\.sigstore\.bundle(?:\.v0\.[0-9]+\+json|\+json; ?version=0\.[0-9]+)", re.ASCII
)
_KEYLESS = (
    "it was made without a key (keyless, by a certificate of sigstore's), which is not checked here: sign with a key, "
    "cosign sign --key"
)


def is_bundle(media_type: str) -> bool:
    """Say whether this is the type of a bundle, of whatever version."""
    return _BUNDLES.fullmatch(media_type) is not None


# Checked


def check_simple(payload: bytes, layer: Descriptor, subject: Digest, keys: Sequence[PublicKey]) -> None:
    """Return if a layer's payload is signed by one of the keys, and about this image. Raises SignatureInvalidError."""
    text = layer.annotations.get(SIGNED)
    if not text:
        raise (
            SignatureUnsupportedError(_KEYLESS)
            if _CERTIFICATE in layer.annotations
            else SignatureInvalidError("its layer carries no signature")
        )
    if signer_of(keys, base64_bytes(text, "the signature"), payload) is None:
        if _CERTIFICATE in layer.annotations:
            raise SignatureUnsupportedError(_KEYLESS)
        raise SignatureInvalidError("none of the trusted keys has signed it")
    _check_payload(payload, subject)


def _check_payload(payload: bytes, subject: Digest) -> None:
    critical = member(document(payload, "the payload"), "critical", dict, "the payload")
    if critical.get("type") not in _PAYLOAD_TYPES:
        raise SignatureInvalidError("what is signed is not an image")
    named = member(critical, "image", dict, "the payload").get("docker-manifest-digest")
    if named != str(subject):
        raise SignatureInvalidError(f"it signs another image than {subject}")


def check_bundle(raw: bytes, subject: Digest, keys: Sequence[PublicKey]) -> None:
    """Return if a bundle is a signature by one of the keys of this image. Raises SignatureInvalidError."""
    bundle = document(raw, "the bundle")
    if not is_bundle(str(bundle.get("mediaType"))):
        raise SignatureInvalidError(f"it is no bundle but {str(bundle.get('mediaType'))[:80]!r}")
    material = member(bundle, "verificationMaterial", dict, "the bundle")
    if "certificate" in material or "x509CertificateChain" in material:
        raise SignatureUnsupportedError(_KEYLESS)
    if "dsseEnvelope" not in bundle:
        raise SignatureUnsupportedError("the bundle holds no statement (dsseEnvelope) that names an image")
    statement = dsse.opened(member(bundle, "dsseEnvelope", dict, "the bundle"), keys)
    dsse.check_subject(statement, subject)
    # By the same key other things may be said of an image: that is no word for it.
    if statement.get("predicateType") != SIGN_PREDICATE:
        raise SignatureInvalidError(
            f"it is no signature but a statement, {str(statement.get('predicateType'))[:120]!r}"
        )


# Made


def simple(subject: Digest, name: str, key: SigningKey) -> Artifact:
    """Return the signature of an image, as `cosign verify` finds it by its tag and among referrers."""
    payload = compact(
        {
            "critical": {
                "identity": {"docker-reference": name},
                "image": {"docker-manifest-digest": str(subject)},
                "type": _PAYLOAD_TYPE,
            },
            "optional": None,
        }
    )
    layer = ArtifactBlob(SIMPLE_SIGNING, payload, {SIGNED: base64_text(key.sign(payload))})
    return Artifact(SIGNATURE, (layer,), {KEY: key.public.fingerprint})


def signed_image(subject: Digest, key: SigningKey) -> Artifact:
    """Return the same as a bundle, as cosign writes them since its version 3."""
    statement: JsonObject = {
        "_type": dsse.STATEMENT,
        "subject": [{"digest": {subject.algorithm.value: subject.encoded}}],
        "predicateType": SIGN_PREDICATE,
        "predicate": {},
    }
    return signed_statement(compact(statement), SIGN_PREDICATE, key)


def signed_statement(statement: bytes, predicate_type: str, key: SigningKey) -> Artifact:
    """Return a bundle with any statement of in-toto, as `cosign verify-attestation --new-bundle-format` reads it."""
    bundle = {
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": key.public.hint}, "tlogEntries": []},
        "dsseEnvelope": dsse.sealed(statement, key),
    }
    annotations = {
        "dev.sigstore.bundle.content": "dsse-envelope",
        PREDICATE: predicate_type,
        KEY: key.public.fingerprint,
    }
    return Artifact(BUNDLE, (ArtifactBlob(BUNDLE, compact(bundle)),), annotations)
