"""The names that token servers and registries give a public key (deployment spec §4.1).

Registries of version 2 know a key by its libtrust id, those of version 3 by the thumbprint of RFC 7638. Both forms come
in tokens, whatever the registry: a token server isn't changed with it.
"""

import hashlib
import json
from base64 import b32encode, urlsafe_b64encode

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
"""The kinds of keys that sign tokens."""

GENERATOR_OF_P256 = "xx0BcA-wMohw8atYDJOe6peGModklG2wRHBlXHMvl0M"
"""What distribution 3.0.0 takes for the id of every key with curve P-256: it hashes the curve's generator."""

_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_LIBTRUST_BYTES = 30  # 240 bits
_GROUP = 4


def libtrust_id(key: PublicKey) -> str:
    """Return twelve groups of four characters: base32 of the SHA-256 of the key's DER, cut to 240 bits."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    text = b32encode(hashlib.sha256(der).digest()[:_LIBTRUST_BYTES]).decode()
    return ":".join(text[at : at + _GROUP] for at in range(0, len(text), _GROUP))


def thumbprint(key: PublicKey) -> str:
    """Return the JWK thumbprint with SHA-256 (RFC 7638 §3), 43 characters."""
    return _hashed(public_jwk(key))


def stripped_thumbprint(key: PublicKey) -> str:
    """Return the thumbprint as distribution computes it: coordinates without their leading zero bytes.

    It is the same as `thumbprint` but for one key of a curve in 128.
    """
    return _hashed(public_jwk(key, padded=False))


def public_jwk(key: PublicKey, *, padded: bool = True) -> dict[str, str]:
    """Return the members of the key's JWK that its thumbprint covers (RFC 7518 §6, RFC 8037 §2)."""
    match key:
        case ec.EllipticCurvePublicKey():
            numbers, size = key.public_numbers(), (key.curve.key_size + 7) // 8 if padded else 0
            return {
                "crv": _CURVES.get(key.curve.name, key.curve.name),
                "kty": "EC",
                "x": _number(numbers.x, size),
                "y": _number(numbers.y, size),
            }
        case rsa.RSAPublicKey():
            modulus = key.public_numbers()
            return {"e": _number(modulus.e), "kty": "RSA", "n": _number(modulus.n)}
        case ed25519.Ed25519PublicKey():
            return {"crv": "Ed25519", "kty": "OKP", "x": _encoded(key.public_bytes(Encoding.Raw, PublicFormat.Raw))}


def _hashed(members: dict[str, str]) -> str:
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return _encoded(hashlib.sha256(canonical.encode()).digest())


def _number(value: int, size: int = 0) -> str:
    return _encoded(value.to_bytes(max(size, (value.bit_length() + 7) // 8), "big"))


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
