"""Certificates for tests: an authority, and what it issues."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

VALID = timedelta(hours=-1), timedelta(days=90)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Authority:
    """Somebody who issues certificates."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, name: str = "harbour office") -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(_signed(name, (), key, name, key, ca=True, valid=VALID), key)

    def issue(
        self,
        key: PrivateKey,
        name: str,
        hosts: Sequence[str] = ("127.0.0.1",),
        *,
        valid: tuple[timedelta, timedelta] | None = None,
    ) -> x509.Certificate:
        """Make a certificate; `valid` says from when and until when, from now."""
        issuer = str(self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
        return _signed(name, hosts, key, issuer, self.key, ca=False, valid=valid or VALID)

    def write(self, path: Path) -> Path:
        path.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        return path

    def write_server(
        self,
        directory: Path,
        name: str,
        key: PrivateKey | None = None,
        hosts: Sequence[str] = ("127.0.0.1",),
        *,
        valid: tuple[timedelta, timedelta] | None = None,
    ) -> None:
        """Put ``certificate.pem`` and ``key.pem`` into a directory, each whole at once."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        replace_text(directory / "certificate.pem", pem(self.issue(key, name, hosts, valid=valid)))
        replace_text(directory / "key.pem", key_pem(key))


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def key_pem(key: PrivateKey, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


def replace_text(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(text)
    draft.replace(path)


def _signed(
    name: str,
    hosts: Sequence[str],
    key: PrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
    valid: tuple[timedelta, timedelta],
) -> x509.Certificate:
    now = datetime.now(UTC)
    names = [_general(host) for host in hosts]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + valid[0])
        .not_valid_after(now + valid[1])
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
