"""Keys, certificates and envelopes for the tests of signatures, made with ``cryptography``."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from roadstead.oci.digest import Digest

NOW = datetime(2026, 5, 1, tzinfo=UTC)
IMAGE = Digest.of(b"an image")
OTHER = Digest.of(b"another image")

AnyKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_PS = {2048: ("PS256", hashes.SHA256()), 3072: ("PS384", hashes.SHA384()), 4096: ("PS512", hashes.SHA512())}
_ES = {
    "secp256r1": ("ES256", hashes.SHA256()),
    "secp384r1": ("ES384", hashes.SHA384()),
    "secp521r1": ("ES512", hashes.SHA512()),
}
_COSE = {"ES256": -7, "ES384": -35, "ES512": -36, "PS256": -37, "PS384": -38, "PS512": -39}


def pem(key: Any) -> str:
    """Return a public key in PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(key: Any, password: bytes | None = None) -> str:
    """Return a private key in PEM."""
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how).decode()


def base64url(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Holder:
    """A key with its certificate."""

    key: AnyKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()


def holder(
    name: str,
    issuer: Holder | None = None,
    *,
    key: AnyKey | None = None,
    ca: bool = False,
    path_length: int | None = None,
    signs: bool = True,
    purposes: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.CODE_SIGNING,),
    lasts: timedelta = timedelta(days=30),
    since: datetime = NOW - timedelta(days=1),
) -> Holder:
    """Make a certificate, by itself or by an issuer."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(since + lasts)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=signs and not ca,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=ca,
                crl_sign=ca,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if purposes and not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return Holder(key, builder.sign((issuer.key if issuer else key), hashes.SHA256()))


def jws(
    signer: Holder,
    *chain: Holder,
    subject: Digest = IMAGE,
    protected: Mapping[str, Any] | None = None,
    without: Sequence[str] = (),
) -> dict[str, Any]:
    """Return an envelope as `notation sign` writes it; `protected` replaces members of its header."""
    name, digest = _algorithm(signer.key)
    header = {
        "alg": name,
        "cty": "application/vnd.cncf.notary.payload.v1+json",
        "crit": ["io.cncf.notary.signingScheme"],
        "io.cncf.notary.signingScheme": "notary.x509",
        "io.cncf.notary.signingTime": "2026-04-30T12:00:00Z",
        **(protected or {}),
    }
    header = {member: value for member, value in header.items() if member not in without}
    payload = base64url(_payload(subject))
    text = base64url(json.dumps(header).encode())
    signature = _signature(signer.key, f"{text}.{payload}".encode(), digest)
    certificates = [
        base64.b64encode(one.certificate.public_bytes(serialization.Encoding.DER)).decode() for one in (signer, *chain)
    ]
    return {
        "payload": payload,
        "protected": text,
        "header": {"x5c": certificates, "io.cncf.notary.signingAgent": "notation-go/1.3.0"},
        "signature": base64url(signature),
    }


def cose(
    signer: Holder,
    *chain: Holder,
    subject: Digest = IMAGE,
    protected: Mapping[Any, Any] | None = None,
    unprotected: Mapping[Any, Any] | None = None,
    without: Sequence[Any] = (),
) -> bytes:
    """Return an envelope as `notation sign --signature-format cose` writes it; the maps replace headers."""
    name, digest = _algorithm(signer.key)
    header = {
        1: _COSE[name],
        2: ["io.cncf.notary.signingScheme"],
        3: "application/vnd.cncf.notary.payload.v1+json",
        "io.cncf.notary.signingScheme": "notary.x509",
        "io.cncf.notary.signingTime": cbor2.CBORTag(1, 1777550400),
        **(protected or {}),
    }
    head = cbor2.dumps({label: value for label, value in header.items() if label not in without})
    payload = _payload(subject)
    signature = _signature(signer.key, cbor2.dumps(["Signature1", head, b"", payload]), digest)
    certificates = [one.certificate.public_bytes(serialization.Encoding.DER) for one in (signer, *chain)]
    more = {33: certificates, "io.cncf.notary.signingAgent": "notation-go/1.3.0", **(unprotected or {})}
    return cbor2.dumps(cbor2.CBORTag(18, [head, more, payload, signature]))


def _payload(subject: Digest) -> bytes:
    artifact = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": str(subject), "size": 8}
    return json.dumps({"targetArtifact": artifact}).encode()


def _algorithm(key: AnyKey) -> tuple[str, hashes.HashAlgorithm]:
    return _PS[key.key_size] if isinstance(key, rsa.RSAPrivateKey) else _ES[key.curve.name]


def _signature(key: AnyKey, signed: bytes, digest: hashes.HashAlgorithm) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(signed, padding.PSS(padding.MGF1(digest), salt_length=digest.digest_size), digest)
    size = (key.curve.key_size + 7) // 8
    numbers = decode_dss_signature(key.sign(signed, ec.ECDSA(digest)))
    return b"".join(number.to_bytes(size, "big") for number in numbers)
