"""Certificates and keys from files: what can be used, and what is told of what can't."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from tests.certificates import Authority, PrivateKey, key_pem, pem

from roadstead.clock import SystemClock
from roadstead.tls.material import TlsInvalidError, TlsMaterial, TlsPlan
from roadstead.tls.reading import read_authorities, read_material
from roadstead.tls.source import load_material

AUTHORITY = Authority.make()

# X.509 version 1, made with openssl for 99 years: nothing of ours makes such a one.
VERSION_1 = """\
-----BEGIN CERTIFICATE-----
MIIBJDCBywIUNgSW3xDSenyLFyAB+if0XuD/XQwwCgYIKoZIzj0EAwIwFDESMBAG
A1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMjEwMjk1MVoYDzIxMjUxMDI5MTAyOTUx
WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AATzOwdKBQZecYC6OYJhpgOMosPFrOS552haHHTwQdXXq8EVUFsggKQ4TTBuaZyE
PG9gq5ibux5+87+9M1Y9V1s3MAoGCCqGSM49BAMCA0gAMEUCIQCYFNvv6+W3GSxk
pCY0kRYlvIsA3b3bm/Q/tI/dWuaq5AIgf7m8hlSF3s3SJSOicYYr1XAbMNMDm9mV
r9JeqYAg3es=
-----END CERTIFICATE-----
"""
VERSION_1_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgGD/andx7gn0eWlfR
0J+H/XytAn2t0VJ4DiW6mqRIy5+hRANCAATzOwdKBQZecYC6OYJhpgOMosPFrOS5
52haHHTwQdXXq8EVUFsggKQ4TTBuaZyEPG9gq5ibux5+87+9M1Y9V1s3
-----END PRIVATE KEY-----
"""


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def curve(kind: type[ec.EllipticCurve]) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(kind())


def p256() -> ec.EllipticCurvePrivateKey:
    return curve(ec.SECP256R1)


def write(directory: Path, certificate: str, key: str) -> tuple[Path, Path]:
    (directory / "c.pem").write_text(certificate)
    (directory / "k.pem").write_text(key)
    return directory / "c.pem", directory / "k.pem"


@pytest.mark.parametrize(
    ("make", "form"),
    [
        (rsa_key, PrivateFormat.PKCS8),
        (rsa_key, PrivateFormat.TraditionalOpenSSL),  # PKCS#1
        (p256, PrivateFormat.PKCS8),
        (p256, PrivateFormat.TraditionalOpenSSL),  # SEC1
        (lambda: curve(ec.SECP384R1), PrivateFormat.TraditionalOpenSSL),
        (ed25519.Ed25519PrivateKey.generate, PrivateFormat.PKCS8),
    ],
)
def test_keys_in_every_form_are_taken(make: Callable[[], PrivateKey], form: PrivateFormat, tmp_path: Path) -> None:
    """RSA, ECDSA and Ed25519, in PKCS#8, PKCS#1 or SEC1, end as PKCS#8; the names and the end are told."""
    key = make()
    certificate = AUTHORITY.issue(key, "quay", ("registry.test", "127.0.0.1"))

    material = read_material(*write(tmp_path, pem(certificate) + pem(AUTHORITY.certificate), key_pem(key, form)))

    assert material.names == ("registry.test", "127.0.0.1")
    assert material.expires_at == certificate.not_valid_after_utc
    assert material.certificate.count("BEGIN CERTIFICATE") == 2
    assert "BEGIN PRIVATE KEY" in material.key.reveal()
    assert key_pem(load_pem_private_key(material.key.reveal().encode(), None)) == key_pem(key)  # type: ignore[arg-type]


def test_it_travels_as_json(tmp_path: Path) -> None:
    """Material goes to another process whole, and isn't shown by chance."""
    key = p256()
    material = read_material(*write(tmp_path, pem(AUTHORITY.issue(key, "quay")), key_pem(key)))

    again = TlsMaterial.parse(material.as_json())

    assert again.as_json() == material.as_json()
    assert "PRIVATE" not in repr(material)


def locked(key: PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")).decode()


@pytest.mark.parametrize(
    ("certificate", "key", "part", "reason"),
    [
        ("", "", "tls.certificate", "has no certificate in PEM"),
        (None, "", "tls.key", "has no private key in PEM"),
        (None, key_pem(p256()), "tls.key", "belongs to another certificate"),
        (None, locked(p256()), "tls.key", "is encrypted"),
        (None, key_pem(rsa_key(1024)), "tls.key", "RSA key of 1024 bits"),
        (None, key_pem(curve(ec.SECP521R1)), "tls.key", "the curve secp521r1"),
        (VERSION_1, VERSION_1_KEY, "tls.certificate", "X.509 certificate of version 1"),
    ],
)
def test_what_cannot_be_used_is_named(
    certificate: str | None, key: str, part: str, reason: str, tmp_path: Path
) -> None:
    """The error says which file is wrong and why, before a server would fall over it."""
    own = pem(AUTHORITY.issue(p256(), "quay")) if certificate is None else certificate

    with pytest.raises(TlsInvalidError, match=reason) as caught:
        read_material(*write(tmp_path, own, key))

    assert caught.value.part == part


def test_missing_files_are_named(tmp_path: Path) -> None:
    """A file that isn't there is an error that names it."""
    with pytest.raises(TlsInvalidError, match=r"nowhere\.pem cannot be read"):
        read_material(tmp_path / "nowhere.pem", tmp_path / "key.pem")
    with pytest.raises(TlsInvalidError, match=r"tls\.client_ca"):
        read_authorities([tmp_path / "nowhere.pem"])


def test_authorities_of_several_files_are_joined(tmp_path: Path) -> None:
    """Every file of `client_ca` counts."""
    paths = [Authority.make(name).write(tmp_path / f"{name}.pem") for name in ("a", "b")]

    plan = TlsPlan(names=("localhost",), client_ca=tuple(paths))

    assert load_material(plan, SystemClock().now()).client_authorities.count("BEGIN CERTIFICATE") == 2
