"""Keys: public ones that are trusted, and the one that signs.

ECDSA on the NIST curves, RSA of 2048 bits and more, and Ed25519. Which algorithm a signature is checked with follows
from the key, never from what comes with the signature: so nobody can choose a weaker one for us.
"""

from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from roadstead.signatures.errors import KeyInvalidError

MAX_PEM = 64 << 10
LEAST_RSA_BITS = 2048
MOST_RSA_BITS = 16384

_PRIVATE = "PRIVATE KEY-----"
_ENCRYPTED_BY_COSIGN = ("ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY")
# cosign signs with SHA-256 whatever the curve is; bundles take the hash that goes with the curve. Both are as strong
# as the signature needs.
_HASHES: dict[str, tuple[hashes.HashAlgorithm, ...]] = {
    "secp256r1": (hashes.SHA256(),),
    "secp384r1": (hashes.SHA256(), hashes.SHA384()),
    "secp521r1": (hashes.SHA256(), hashes.SHA512()),
}

AnyPublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that signatures are checked with."""

    key: AnyPublicKey

    @classmethod
    def parse(cls, pem: str, where: str) -> "PublicKey":
        """Read a key in PEM; `where` is what errors call it. Raises KeyInvalidError."""
        if len(pem) > MAX_PEM:
            raise KeyInvalidError(where, f"longer than {MAX_PEM} bytes; a public key has some hundred")
        if _PRIVATE in pem:
            raise KeyInvalidError(
                where,
                "it is a private key, where a public one is needed",
                "name the public half (cosign.pub), and keep the private one away from here",
            )
        try:
            key = load_pem_public_key(pem.encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise KeyInvalidError(
                where, "it is not a public key in PEM", "it begins with -----BEGIN PUBLIC KEY-----"
            ) from error
        return cls(_accepted(key, where))

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the key (its SubjectPublicKeyInfo), in hex."""
        return sha256(self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()

    @property
    def hint(self) -> str:
        """What bundles call the key: the SHA-256 of its DER form, in base64."""
        return b64encode(bytes.fromhex(self.fingerprint)).decode()

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Say whether the signature is one of this key over the data: ECDSA in DER, RSA in PKCS#1 v1.5."""
        key = self.key
        if isinstance(key, ed25519.Ed25519PublicKey):
            return _holds(lambda: key.verify(signature, data))
        if isinstance(key, rsa.RSAPublicKey):
            return _holds(lambda: key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256()))
        return any(_holds_ec(key, signature, data, one) for one in _HASHES[key.curve.name])


def _accepted(key: object, where: str) -> AnyPublicKey:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, rsa.RSAPublicKey):
        if not LEAST_RSA_BITS <= key.key_size <= MOST_RSA_BITS:
            raise KeyInvalidError(where, f"an RSA key of {key.key_size} bits; {LEAST_RSA_BITS} are the least")
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in _HASHES:
            raise KeyInvalidError(where, f"a key on the curve {key.curve.name}; P-256, P-384 and P-521 are known")
        return key
    raise KeyInvalidError(where, "a key of a kind that signs no images; ECDSA, RSA and Ed25519 do")


def _holds_ec(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes, algorithm: hashes.HashAlgorithm) -> bool:
    return _holds(lambda: key.verify(signature, data, ec.ECDSA(algorithm)))


def _holds(check: Callable[[], None]) -> bool:
    try:
        check()
    except InvalidSignature:
        return False
    return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The key that signs what is made here: ECDSA on P-256, as cosign makes them."""

    key: ec.EllipticCurvePrivateKey

    @classmethod
    def parse(cls, pem: str, where: str) -> "SigningKey":
        """Read a private key in PEM, not encrypted: it comes from a secret. Raises KeyInvalidError."""
        if any(name in pem for name in _ENCRYPTED_BY_COSIGN):
            raise KeyInvalidError(
                where,
                "it is encrypted as cosign does it, which only cosign reads",
                "make one without a password, openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256, keep it "
                "in a secret, and have cosign take it up with cosign import-key-pair where that is needed",
            )
        try:
            key = load_pem_private_key(pem.encode(), None)
        except TypeError as error:
            raise KeyInvalidError(where, "it is encrypted", "name one without a password, in a secret") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            advice = "the text itself is meant, not a path: ${file:signing.key} is what a file holds"
            raise KeyInvalidError(where, "it is not a private key in PEM", advice) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise KeyInvalidError(where, "images are signed with ECDSA on P-256, and it is another kind of key")
        return cls(key)

    @property
    def public(self) -> PublicKey:
        """Its public half."""
        return PublicKey(self.key.public_key())

    def sign(self, data: bytes) -> bytes:
        """Return the signature in DER, the same for the same data each time (RFC 6979), in every process."""
        return self.key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def signer_of(keys: Sequence[PublicKey], signature: bytes, data: bytes) -> PublicKey | None:
    """Return which of the keys has signed the data; None if none has."""
    return next((key for key in keys if key.verifies(signature, data)), None)
