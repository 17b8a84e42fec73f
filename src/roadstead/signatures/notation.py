"""Signatures of the Notary Project, as `notation sign` makes them (notaryproject/specifications).

A manifest refers to the image; its one blob is an envelope with the signer's certificates: a JWS (RFC 7515) in JSON, or
a COSE_Sign1 (RFC 9052). It counts if its chain of certificates ends at one that we trust, and if it is about this
image. Plugins, revocation lists and time stamps aren't read: a certificate has to be valid now.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID

from roadstead.oci.digest import Digest
from roadstead.signatures.encoded import base64_bytes, base64url_bytes, document, member
from roadstead.signatures.errors import KeyInvalidError, SignatureInvalidError, SignatureUnsupportedError
from roadstead.signatures.keys import LEAST_RSA_BITS, MAX_PEM

SIGNATURE = "application/vnd.cncf.notary.signature"
JWS = "application/jose+json"
COSE = "application/cose"
MAX_CHAIN = 10

_PAYLOAD = "application/vnd.cncf.notary.payload.v1+json"
_SCHEME = "io.cncf.notary.signingScheme"
_EXPIRY = "io.cncf.notary.expiry"
_X509 = "notary.x509"
_UNDERSTOOD = frozenset({_SCHEME, _EXPIRY})
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9:.]+(?:[Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII)

# signature-specification.md, Algorithm Selection: the key decides, and the header may only repeat it.
_RSA = {2048: ("PS256", hashes.SHA256()), 3072: ("PS384", hashes.SHA384()), 4096: ("PS512", hashes.SHA512())}
_EC = {
    "secp256r1": ("ES256", hashes.SHA256()),
    "secp384r1": ("ES384", hashes.SHA384()),
    "secp521r1": ("ES512", hashes.SHA512()),
}
_BROKEN = (x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


Extension = TypeVar("Extension", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class TrustedCertificates:
    """Certificates that chains may end at: roots as a rule, or a self-signed one that signs itself."""

    certificates: tuple[x509.Certificate, ...]

    @classmethod
    def parse(cls, pem: str, where: str) -> "TrustedCertificates":
        """Read certificates in PEM; `where` is what errors call them. Raises KeyInvalidError."""
        if len(pem) > MAX_PEM:
            raise KeyInvalidError(where, f"longer than {MAX_PEM} bytes")
        try:
            found = x509.load_pem_x509_certificates(pem.encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise KeyInvalidError(
                where, "it holds no certificate in PEM", "it begins with -----BEGIN CERTIFICATE-----"
            ) from error
        return cls(tuple(found))


def check_envelope(
    raw: bytes, media_type: str, subject: Digest, trusted: Sequence[x509.Certificate], now: datetime
) -> None:
    """Return if an envelope is a signature of this image by somebody who is trusted. Raises SignatureInvalidError."""
    if media_type == JWS:
        envelope = _jws(raw)
    elif media_type == COSE:
        envelope = _cose(raw)
    else:
        raise SignatureInvalidError(f"its envelope is of the unknown type {media_type[:80]!r}")
    _check_signature(envelope.chain[0], envelope.algorithm, envelope.signature, envelope.signed)
    _check_header(envelope, now)
    _check_chain(envelope.chain, trusted, now)
    payload = document(envelope.payload, "the payload")
    if member(payload, "targetArtifact", dict, "the payload").get("digest") != str(subject):
        raise SignatureInvalidError(f"it signs another image than {subject}")


@dataclass(frozen=True, slots=True)
class _Envelope:
    """An envelope of either form, taken apart; nothing of it was checked yet."""

    chain: Sequence[x509.Certificate]
    algorithm: object
    signature: bytes
    signed: bytes
    content_type: object
    critical: Sequence[object]
    named: Mapping[Any, Any]  # the protected header
    expiry: Callable[[object], datetime]  # reads the time in it
    payload: bytes


def _jws(raw: bytes) -> _Envelope:
    """Read a JWS in its JSON form (signature-envelope-jws.md)."""
    envelope = document(raw, "the envelope")
    protected_text, payload_text = (member(envelope, name, str, "the envelope") for name in ("protected", "payload"))
    protected = document(base64url_bytes(protected_text, "the protected header"), "the protected header")
    entries = member(member(envelope, "header", dict, "the envelope"), "x5c", list, "the header")  # RFC 7515 §4.1.6
    return _Envelope(
        chain=_chain([base64_bytes(one, "a certificate") for one in entries[: MAX_CHAIN + 1]], len(entries)),
        algorithm=protected.get("alg"),
        signature=base64url_bytes(envelope.get("signature"), "the signature"),
        signed=f"{protected_text}.{payload_text}".encode("ascii"),
        content_type=protected.get("cty"),
        critical=member(protected, "crit", list, "the protected header"),
        named=protected,
        expiry=_moment,
        payload=base64url_bytes(payload_text, "the payload"),
    )


def _cose(raw: bytes) -> _Envelope:
    """Read a COSE_Sign1 (signature-envelope-cose.md)."""
    # Who gets no such envelope needs no reader of CBOR.
    from roadstead.signatures import cose

    envelope = cose.Sign1.parse(raw)
    protected = envelope.protected
    if cose.HASHED in protected:
        raise SignatureUnsupportedError("it signs the hash of a payload that isn't in it, which is not checked here")
    entries, critical = envelope.unprotected.get(cose.CHAIN), protected.get(cose.CRITICAL)
    if not isinstance(entries, list) or not all(isinstance(one, bytes) for one in entries):
        raise SignatureInvalidError("it comes without a list of certificates")
    if not isinstance(critical, list):
        raise SignatureInvalidError("its protected header doesn't say what is critical")
    algorithm = protected.get(cose.ALGORITHM)

    def moment(value: object) -> datetime:
        try:
            if isinstance(value, cose.Time):
                return datetime.fromtimestamp(value.seconds, UTC)
        except (ValueError, OverflowError, OSError):
            pass
        raise SignatureInvalidError(f"{str(value)[:40]!r} is no time")

    return _Envelope(
        chain=_chain(entries, len(entries)),
        algorithm=cose.ALGORITHMS.get(algorithm, algorithm) if type(algorithm) is int else algorithm,
        signature=envelope.signature,
        signed=envelope.signed,
        content_type=protected.get(cose.CONTENT_TYPE),
        critical=critical,
        named=protected,
        expiry=moment,
        payload=envelope.payload,
    )


def _chain(entries: Sequence[bytes], count: int) -> list[x509.Certificate]:
    """Return the signer's certificates, its own first."""
    if not 0 < count <= MAX_CHAIN:
        raise SignatureInvalidError(f"it comes with {count} certificates")
    return [_certificate(one) for one in entries]


def _certificate(der: bytes) -> x509.Certificate:
    """Return a certificate all of which can be read: the library reads parts when they are asked for."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.version, certificate.subject, certificate.issuer, certificate.extensions
    except (ValueError, UnsupportedAlgorithm, *_BROKEN) as error:
        raise SignatureInvalidError("one of its certificates can't be read") from error
    return certificate


def _check_signature(leaf: x509.Certificate, algorithm: object, signature: bytes, signed: bytes) -> None:
    key = _key_of(leaf)
    if isinstance(key, rsa.RSAPublicKey):
        name, digest = _RSA.get(key.key_size, (None, hashes.SHA256()))
        check = _pss(key, signature, signed, digest)
    else:
        name, digest = _EC.get(key.curve.name, (None, hashes.SHA256()))
        check = _ecdsa(key, signature, signed, digest)
    if name is None:
        raise SignatureInvalidError(
            "its key is of a size that signs no images (RSA 2048, 3072, 4096; P-256, -384, -521)"
        )
    if algorithm != name:
        raise SignatureInvalidError(f"it says {str(algorithm)[:20]!r} where its key signs with {name}")
    try:
        check()
    except InvalidSignature as error:
        raise SignatureInvalidError("the signature isn't that of its certificate") from error


def _pss(key: rsa.RSAPublicKey, signature: bytes, signed: bytes, digest: hashes.HashAlgorithm) -> Callable[[], None]:
    return lambda: key.verify(
        signature, signed, padding.PSS(padding.MGF1(digest), salt_length=digest.digest_size), digest
    )


def _ecdsa(
    key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes, digest: hashes.HashAlgorithm
) -> Callable[[], None]:
    size = (key.curve.key_size + 7) // 8
    if len(signature) != 2 * size:
        raise SignatureInvalidError(f"its signature has {len(signature)} bytes, not {2 * size}")
    r, s = (int.from_bytes(part, "big") for part in (signature[:size], signature[size:]))
    return lambda: key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(digest))


def _key_of(certificate: x509.Certificate) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureInvalidError("the key of its certificate can't be read") from error
    if isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        return key
    raise SignatureInvalidError("its certificate's key is of a kind that signs no images")


def _check_header(envelope: _Envelope, now: datetime) -> None:
    """Refuse what we don't understand (RFC 7515 §4.1.11, RFC 9052 §3.1), and what has expired."""
    if envelope.content_type != _PAYLOAD:
        raise SignatureInvalidError(f"what it signs is {str(envelope.content_type)[:80]!r}, not an image")
    critical, protected = envelope.critical, envelope.named
    unknown = [name for name in critical if not isinstance(name, str) or name not in _UNDERSTOOD]
    if unknown:
        raise SignatureUnsupportedError(
            f"it wants {str(unknown[0])[:80]!r} to be understood, which is not checked here"
        )
    if _SCHEME not in critical or any(name not in protected for name in critical):
        raise SignatureInvalidError("its protected header doesn't name its scheme")
    if protected[_SCHEME] != _X509:
        raise SignatureUnsupportedError(f"its scheme is {str(protected[_SCHEME])[:80]!r}; {_X509} is checked here")
    if _EXPIRY in protected and (_EXPIRY not in critical or envelope.expiry(protected[_EXPIRY]) <= now):
        raise SignatureInvalidError(f"it expired, {str(protected[_EXPIRY])[:40]}")


def _moment(text: object) -> datetime:
    if not isinstance(text, str) or _MOMENT.fullmatch(text) is None:
        raise SignatureInvalidError(f"{str(text)[:40]!r} is no time")
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise SignatureInvalidError(f"{text!r} is no time") from error


def _check_chain(chain: Sequence[x509.Certificate], trusted: Sequence[x509.Certificate], now: datetime) -> None:
    """Return if each certificate was issued by the next, and one of them is trusted."""
    for certificate in chain:
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise SignatureInvalidError(f"the certificate of {_name(certificate)} isn't valid now")
    _check_leaf(chain[0])
    for position, (certificate, issuer) in enumerate(pairwise(chain)):
        _check_issuer(issuer, position)
        try:
            certificate.verify_directly_issued_by(issuer)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError) as error:
            raise SignatureInvalidError(
                f"{_name(issuer)} hasn't issued the certificate of {_name(certificate)}"
            ) from error
    last = chain[-1]
    if not any(certificate in trusted for certificate in chain):
        raise SignatureInvalidError(f"none of the trusted certificates is in its chain, which ends at {_name(last)}")


def _check_leaf(leaf: x509.Certificate) -> None:
    """certificate-requirements: a signing certificate signs code, and issues nothing."""
    constraints = _extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise SignatureInvalidError(f"the certificate of {_name(leaf)} is one that issues others")
    usage = _extension(leaf, x509.KeyUsage)
    if usage is None or not usage.digital_signature:
        raise SignatureInvalidError(f"the certificate of {_name(leaf)} isn't for signatures")
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    if purposes is not None and ExtendedKeyUsageOID.CODE_SIGNING not in purposes:
        raise SignatureInvalidError(f"the certificate of {_name(leaf)} isn't for signing code")
    key = _key_of(leaf)
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < LEAST_RSA_BITS:
        raise SignatureInvalidError(f"the key of {_name(leaf)} has {key.key_size} bits")


def _check_issuer(issuer: x509.Certificate, below: int) -> None:
    constraints, usage = _extension(issuer, x509.BasicConstraints), _extension(issuer, x509.KeyUsage)
    if constraints is None or not constraints.ca or usage is None or not usage.key_cert_sign:
        raise SignatureInvalidError(f"the certificate of {_name(issuer)} may not issue others")
    if constraints.path_length is not None and constraints.path_length < below:
        raise SignatureInvalidError(f"the chain below {_name(issuer)} is longer than it allows")


def _extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except ValueError as error:
        raise SignatureInvalidError(f"an extension of the certificate of {_name(certificate)} can't be read") from error


def _name(certificate: x509.Certificate) -> str:
    return repr(certificate.subject.rfc4514_string()[:120])
