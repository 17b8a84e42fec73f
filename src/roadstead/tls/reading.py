"""A certificate and its key from files, checked to fit each other and the server.

The server (rustls with ring) would end in a panic on what it can't use, so everything is found out here and named:
keys of a kind it doesn't sign with, certificates of version 1, a key that belongs to another certificate.
"""

from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from roadstead.secret import Secret
from roadstead.tls.material import TlsInvalidError, TlsMaterial

CERTIFICATE = "tls.certificate"
KEY = "tls.key"
CLIENT_CA = "tls.client_ca"

_SMALLEST_RSA = 2048
_LARGEST_RSA = 8192
_CURVES = (ec.SECP256R1, ec.SECP384R1)
_NEW_KEY = "Make an ECDSA key with curve P-256 (openssl ecparam -name prime256v1 -genkey), or RSA of 2048 bits or more."


def read_material(certificate: Path, key: Path) -> TlsMaterial:
    """Return what the files hold; raises TlsInvalidError. The key may be PKCS#8, PKCS#1 or SEC1."""
    chain = _certificates(_read(certificate, CERTIFICATE), certificate, CERTIFICATE)
    return fitted(chain, _key(_read(key, KEY), key))


def read_authorities(paths: Sequence[Path]) -> str:
    """Return the certificates that clients' ones are checked against, as PEM; raises TlsInvalidError."""
    found = [each for path in paths for each in _certificates(_read(path, CLIENT_CA), path, CLIENT_CA)]
    for each in found:
        if each.version is not x509.Version.v3:
            raise TlsInvalidError(CLIENT_CA, f"{each.subject.rfc4514_string()} is an X.509 certificate of version 1")
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in found)


def fitted(chain: Sequence[x509.Certificate], key: PrivateKeyTypes) -> TlsMaterial:
    """Return material of parts that fit each other; raises TlsInvalidError."""
    own = chain[0]
    if own.version is not x509.Version.v3:
        raise TlsInvalidError(
            CERTIFICATE,
            "it is an X.509 certificate of version 1, which TLS clients and this server don't take",
            "Make one of version 3 (openssl req -x509 -addext subjectAltName=DNS:HOST), or set tls.self_signed = true.",
        )
    if _public(own.public_key()) != _public(key.public_key()):
        raise TlsInvalidError(
            KEY,
            "it belongs to another certificate than tls.certificate begins with",
            "The server's own certificate comes first in the file, those that issued it behind it.",
        )
    return TlsMaterial(
        certificate="".join(each.public_bytes(Encoding.PEM).decode() for each in chain),
        key=Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()),
        names=names_of(own),
        fingerprint=own.fingerprint(hashes.SHA256()).hex(":").upper(),
        begins_at=own.not_valid_before_utc,
        expires_at=own.not_valid_after_utc,
    )


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the hosts that a certificate is for: names and addresses."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    addresses = [str(address) for address in found.get_values_for_type(x509.IPAddress)]
    return (*found.get_values_for_type(x509.DNSName), *addresses)


def _read(path: Path, part: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsInvalidError(part, f"{path} cannot be read: {error.strerror or error}") from error


def _certificates(text: bytes, path: Path, part: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(text)
    except ValueError as error:
        raise TlsInvalidError(part, f"{path} has no certificate in PEM ({error})") from error


def _key(text: bytes, path: Path) -> PrivateKeyTypes:
    try:
        key = load_pem_private_key(text, password=None)
    except TypeError as error:
        raise TlsInvalidError(
            KEY,
            f"the key in {path} is encrypted",
            f"Take the password off: openssl pkey -in {path.name} -out plain.key, readable by the server alone.",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TlsInvalidError(KEY, f"{path} has no private key in PEM that can be read ({error})") from error
    match key:
        case rsa.RSAPrivateKey() if _SMALLEST_RSA <= key.key_size <= _LARGEST_RSA:
            return key
        case rsa.RSAPrivateKey():
            raise TlsInvalidError(
                KEY, f"an RSA key of {key.key_size} bits; {_SMALLEST_RSA} to {_LARGEST_RSA} can be used", _NEW_KEY
            )
        case ec.EllipticCurvePrivateKey() if isinstance(key.curve, _CURVES):
            return key
        case ec.EllipticCurvePrivateKey():
            raise TlsInvalidError(KEY, f"the curve {key.curve.name} can't be used; P-256 and P-384 can", _NEW_KEY)
        case ed25519.Ed25519PrivateKey():
            return key
        case _:
            raise TlsInvalidError(KEY, f"{path} has a key that is neither RSA, ECDSA nor Ed25519", _NEW_KEY)


def _public(key: object) -> bytes:
    # Every kind of public key has this method; the library's union of them includes some without a common type.
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))  # type: ignore[attr-defined]
