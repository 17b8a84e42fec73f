"""Certificates made here: for which names, for how long, and when another one is made."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from roadstead.tls.material import TlsInvalidError
from roadstead.tls.self_signed import kept_self_signed, self_signed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("registry.test", "127.0.0.1", "::1")


def test_what_it_is() -> None:
    """Version 3, ECDSA with P-256, the names as names and addresses, 397 days, a long serial, no authority."""
    material = self_signed(NAMES, NOW)

    certificate = x509.load_pem_x509_certificate(material.certificate.encode())
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert certificate.version is x509.Version.v3
    assert material.names == NAMES
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == timedelta(days=397)
    assert certificate.serial_number.bit_length() > 64
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False


@pytest.mark.parametrize(
    ("names", "later", "same"),
    [
        (NAMES, timedelta(days=300), True),
        (NAMES[:1], timedelta(), True),  # a name more than is wanted does no harm
        (NAMES, timedelta(days=370), False),
        ((*NAMES, "other.test"), timedelta(), False),
    ],
)
def test_it_is_kept_as_long_as_it_serves(names: tuple[str, ...], later: timedelta, same: bool, tmp_path: Path) -> None:
    """The one in the directory is taken again unless it lacks a name or ends within a month."""
    first = kept_self_signed(tmp_path / "tls", NAMES, NOW)

    second = kept_self_signed(tmp_path / "tls", names, NOW + later)

    assert (second.fingerprint == first.fingerprint) is same
    assert (tmp_path / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in (tmp_path / "tls").iterdir()) == ["certificate.pem", "key.pem"]


def test_directories_are_made_private(tmp_path: Path) -> None:
    """The data directory may be made here first: it is nobody else's to read."""
    kept_self_signed(tmp_path / "data" / "tls", NAMES, NOW)

    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("data", "data/tls")] == [0o700, 0o700]


def test_a_broken_one_is_made_anew(tmp_path: Path) -> None:
    """What a crash or a hand has spoiled doesn't keep the server from starting."""
    kept_self_signed(tmp_path, NAMES, NOW)
    (tmp_path / "key.pem").write_text("nothing")

    made = kept_self_signed(tmp_path, NAMES, NOW)

    assert kept_self_signed(tmp_path, NAMES, NOW).fingerprint == made.fingerprint


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Where the certificate can't be kept the error says where."""
    (tmp_path / "file").touch()

    with pytest.raises(TlsInvalidError, match="can't be written"):
        kept_self_signed(tmp_path / "file" / "tls", NAMES, NOW)
