"""What token servers and registries call a key, against values that others computed (deployment spec §4.1)."""

from base64 import urlsafe_b64decode

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc.jwk import ECKey, OKPKey, RSAKey

from roadstead.auth.key_ids import GENERATOR_OF_P256, libtrust_id, public_jwk, stripped_thumbprint, thumbprint


def point(x: str, y: str) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicNumbers(number(x), number(y), ec.SECP256R1()).public_key()


def number(text: str) -> int:
    return int.from_bytes(urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")


DOCUMENTED = point("m7zUpx3b-zmVE5cymSs64POG9QcyEpJaYCD82-549_Q", "dU3biz8sZ_8GPB-odm8Wxz3lNDr1xcAQQPQaOcr1fmc")


def test_a_documented_key() -> None:
    """The libtrust id and the thumbprint of a key that others have published both for."""
    assert libtrust_id(DOCUMENTED) == "PYYO:TEWU:V7JH:26JV:AQTZ:LJC3:SXVJ:XGHA:34F2:2LAQ:ZRMK:Z7Q6"
    assert thumbprint(DOCUMENTED) == "8qjioA3ZA7ti2JIE7c-U8smBFuZolQZvhSHDPU3hhB8"
    assert stripped_thumbprint(DOCUMENTED) == thumbprint(DOCUMENTED)


def test_the_key_of_rfc_7638() -> None:
    """The example of RFC 7638 §3.1."""
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknj"
        "hMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQ"
        "vRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzK"
        "nqDKgw"
    )
    key = rsa.RSAPublicNumbers(65537, number(modulus)).public_key()

    assert thumbprint(key) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_the_generator_of_the_curve() -> None:
    """distribution 3.0.0 hashes the curve's generator for every key; so computed it is the constant."""
    generator = point("axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY", "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU")

    assert thumbprint(generator) == GENERATOR_OF_P256


def test_leading_zeros() -> None:
    """Of a key whose coordinate begins with a zero byte the two thumbprints differ; RFC 7518 §6.2.1.2 keeps it."""
    short = next(
        key
        for secret in range(1, 5000)
        if (key := ec.derive_private_key(secret, ec.SECP256R1()).public_key()).public_numbers().x < 1 << 248
    )

    assert len(public_jwk(short)["x"]) == 43
    assert len(public_jwk(short, padded=False)["x"]) < 43
    assert thumbprint(short) != stripped_thumbprint(short)
    assert thumbprint(short) == ECKey.import_key(short).thumbprint()


@pytest.mark.parametrize(
    ("key", "other"),
    [
        (rsa.generate_private_key(65537, 2048).public_key(), RSAKey),
        (ec.generate_private_key(ec.SECP384R1()).public_key(), ECKey),
        (ec.generate_private_key(ec.SECP521R1()).public_key(), ECKey),
        (ed25519.Ed25519PrivateKey.generate().public_key(), OKPKey),
    ],
)
def test_as_another_library_computes_it(key: ec.EllipticCurvePublicKey, other: type[ECKey]) -> None:
    """The thumbprint is that of joserfc, for every kind of key."""
    assert thumbprint(key) == other.import_key(key).thumbprint()
