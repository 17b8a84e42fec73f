"""Signed statements: in-toto's Statement v1 in a DSSE envelope (in-toto attestation framework; DSSE v1.0.2)."""

from collections.abc import Sequence

from roadstead.oci.digest import Digest
from roadstead.oci.strict_json import JsonObject
from roadstead.signatures.encoded import base64_bytes, base64_text, document, member
from roadstead.signatures.errors import SignatureInvalidError
from roadstead.signatures.keys import PublicKey, SigningKey, signer_of

STATEMENT = "https://in-toto.io/Statement/v1"
STATEMENTS = frozenset({STATEMENT, "https://in-toto.io/Statement/v0.1"})
IN_TOTO = "application/vnd.in-toto+json"
MAX_SIGNATURES = 16


def authenticated(payload_type: str, payload: bytes) -> bytes:
    """Return what is signed: type and payload with their lengths, so that neither can pass for the other (PAE)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sealed(payload: bytes, key: SigningKey) -> JsonObject:
    """Return the envelope of a statement."""
    signature = key.sign(authenticated(IN_TOTO, payload))
    return {
        "payload": base64_text(payload),
        "payloadType": IN_TOTO,
        "signatures": [{"sig": base64_text(signature)}],
    }


def opened(envelope: JsonObject, keys: Sequence[PublicKey]) -> JsonObject:
    """Return the statement of an envelope that one of the keys has signed. Raises SignatureInvalidError."""
    payload_type = member(envelope, "payloadType", str, "the envelope")
    if payload_type != IN_TOTO:
        raise SignatureInvalidError(f"the envelope holds {payload_type[:80]!r}, not a statement of in-toto")
    payload = base64_bytes(envelope.get("payload"), "the payload")
    signatures = member(envelope, "signatures", list, "the envelope")
    if not 0 < len(signatures) <= MAX_SIGNATURES:
        raise SignatureInvalidError(f"the envelope has {len(signatures)} signatures")
    signed = authenticated(payload_type, payload)
    # Which key it was, an entry may say (keyid), but nothing vouches for that: all are tried.
    found = [base64_bytes(one.get("sig") if isinstance(one, dict) else None, "a signature") for one in signatures]
    if not any(signer_of(keys, signature, signed) for signature in found):
        raise SignatureInvalidError("none of the trusted keys has signed it")
    return document(payload, "the statement")


def check_subject(statement: JsonObject, subject: Digest) -> None:
    """Return if a statement is about this digest. Raises SignatureInvalidError."""
    if statement.get("_type") not in STATEMENTS:
        raise SignatureInvalidError("what is signed is not a statement of in-toto")
    for one in member(statement, "subject", list, "the statement"):
        digests = one.get("digest") if isinstance(one, dict) else None
        if isinstance(digests, dict) and digests.get(subject.algorithm.value) == subject.encoded:
            return
    raise SignatureInvalidError(f"it signs another image than {subject}")
