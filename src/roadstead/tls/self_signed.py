"""A certificate that vouches for itself: enough to encrypt, and to be pinned or trusted by hand.

ECDSA with P-256, X.509 version 3, a random serial, the server's names, at most 397 days (deployment spec R-1.5).
"""

import ipaddress
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from roadstead.tls.material import TlsInvalidError, TlsMaterial
from roadstead.tls.reading import fitted, read_material

LIFETIME = timedelta(days=397)
RENEW_BEFORE = timedelta(days=30)
CLOCKS_DIFFER_BY = timedelta(days=1)
"""A client whose clock is behind takes a certificate that was made just now."""

_LONGEST_NAME = 64  # of a common name (RFC 5280, ub-common-name)


def self_signed(names: Sequence[str], now: datetime) -> TlsMaterial:
    """Return a new certificate for these names and addresses, which nobody else has the key of."""
    key = ec.generate_private_key(ec.SECP256R1())
    return fitted([_certificate(key, names, now)], key)


def kept_self_signed(directory: Path, names: Sequence[str], now: datetime) -> TlsMaterial:
    """Return the certificate that lies in the directory, made anew only if it must be.

    It must where it is missing or unreadable, lacks a name, or ends within a month. The key is readable by us alone.
    Raises TlsInvalidError where the directory can't be written.
    """
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    try:
        found = read_material(certificate, key)
    except TlsInvalidError:
        found = None
    if found is not None and set(names) <= set(found.names) and found.expires_at - now > RENEW_BEFORE:
        return found
    made = self_signed(names, now)
    try:
        # The data directory may not be there yet, and is as private as the storage would make it.
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        _write(key, made.key.reveal(), 0o600)
        _write(certificate, made.certificate, 0o644)
    except OSError as error:
        raise TlsInvalidError("tls.self_signed", f"{directory} can't be written: {error.strerror or error}") from error
    return made


def _certificate(key: PrivateKeyTypes, names: Sequence[str], now: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:_LONGEST_NAME])])
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)  # type: ignore[arg-type]  # not Diffie-Hellman's
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)  # type: ignore[arg-type]  # as above
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_DIFFER_BY)
        .not_valid_after(now - CLOCKS_DIFFER_BY + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_general_name(each) for each in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())  # type: ignore[arg-type]  # as above
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, text: str, mode: int) -> None:
    """Put a file in its place whole; nobody but us can read it before it has its mode."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    draft.replace(path)
