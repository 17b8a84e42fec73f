"""Keys: which are accepted, and that each checks by its own algorithm alone."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from tests.unit.signatures.making import pem, private_pem

from roadstead.signatures.errors import KeyInvalidError
from roadstead.signatures.keys import MAX_PEM, PublicKey, SigningKey, signer_of

EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
DATA = b"what is signed"


def public(key: object) -> PublicKey:
    """Read a key as settings give it."""
    return PublicKey.parse(pem(key.public_key()), "a key")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("key", "signature"),
    [
        (EC, EC.sign(DATA, ec.ECDSA(hashes.SHA256()))),
        (ED, ED.sign(DATA)),
        (RSA, RSA.sign(DATA, padding.PKCS1v15(), hashes.SHA256())),
    ],
    ids=["ecdsa", "ed25519", "rsa"],
)
def test_a_signature_holds_for_its_data_and_key_alone(key: object, signature: bytes) -> None:
    """Another text, another key, a cut or a longer signature: none holds."""
    one = public(key)

    assert one.verifies(signature, DATA)
    assert not one.verifies(signature, DATA + b"!")
    assert not one.verifies(signature[:-1], DATA)
    assert not one.verifies(signature + b"\0", DATA)
    assert not one.verifies(b"", DATA)
    others = [public(other) for other in (EC, ED, RSA) if other is not key]
    assert signer_of(others, signature, DATA) is None
    assert signer_of([*others, one], signature, DATA) == one


@pytest.mark.parametrize(
    ("signature", "why"),
    [
        (RSA.sign(DATA, padding.PKCS1v15(), hashes.SHA1()), "a weaker hash"),
        (EC.sign(DATA, ec.ECDSA(hashes.SHA1())), "a weaker hash"),
        (EC.sign(DATA, ec.ECDSA(hashes.SHA512())), "another hash"),
    ],
    ids=["rsa sha1", "ecdsa sha1", "ecdsa sha512"],
)
def test_the_key_says_how_it_is_checked(signature: bytes, why: str) -> None:
    """Nobody chooses another algorithm for it."""
    assert signer_of([public(EC), public(RSA)], signature, DATA) is None, why


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=["P-384", "P-521"])
def test_larger_curves_take_cosigns_hash_and_their_own(curve: ec.EllipticCurve) -> None:
    """cosign 2 signs with SHA-256 whatever the curve, bundles with the hash that goes with it."""
    key = ec.generate_private_key(curve)
    own = hashes.SHA384() if curve.key_size == 384 else hashes.SHA512()

    assert all(public(key).verifies(key.sign(DATA, ec.ECDSA(one)), DATA) for one in (hashes.SHA256(), own))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a public key"),
        ("nonsense", "not a public key"),
        (private_pem(EC), "a private key"),
        (pem(ec.generate_private_key(ec.SECP256K1()).public_key()), "secp256k1"),
        (pem(rsa.generate_private_key(65537, 1024).public_key()), "1024 bits"),
        (pem(dsa.generate_private_key(2048).public_key()), "of a kind"),
        ("x" * (MAX_PEM + 1), "longer than"),
    ],
    ids=["empty", "text", "private", "curve", "short RSA", "DSA", "oversize"],
)
def test_a_key_that_is_not_good_enough_is_refused_by_name(text: str, reason: str) -> None:
    """The error names the setting and the reason, and never shows the text."""
    with pytest.raises(KeyInvalidError, match=reason) as caught:
        PublicKey.parse(text, "signatures.policies[0].keys[1]")

    assert str(caught.value).startswith("signatures.policies[0].keys[1]: ")
    assert "BEGIN" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nonsense", "not a private key"),
        (private_pem(RSA), "another kind"),
        (private_pem(ec.generate_private_key(ec.SECP384R1())), "another kind"),
        (private_pem(EC, b"secret"), "encrypted"),
        ("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END…", "encrypted as cosign does it"),
        (pem(EC.public_key()), "not a private key"),
    ],
    ids=["text", "RSA", "P-384", "encrypted", "cosign's", "public"],
)
def test_a_key_that_cannot_sign_is_refused_by_name(text: str, reason: str) -> None:
    """What signs is ECDSA on P-256, without a password."""
    with pytest.raises(KeyInvalidError, match=reason):
        SigningKey.parse(text, "signatures.key")


def test_every_process_signs_alike() -> None:
    """The same data has the same signature each time, and so the same digest everywhere."""
    key = SigningKey.parse(private_pem(EC), "signatures.key")

    assert key.sign(DATA) == SigningKey(EC).sign(DATA)
    assert key.public.verifies(key.sign(DATA), DATA)
