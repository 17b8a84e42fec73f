"""Whose tokens are believed: the keys of certificates and of a JWK set, found by the ids that tokens name them by.

A certificate is a carrier of a key: its own signature and its version don't matter (deployment spec R-1.6), as nobody
looks at them in distribution either. They matter where a token brings a certificate of its own (``chains.py``).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey, import_key

from roadstead.auth.chains import ChainInvalidError, follow, parse_chain
from roadstead.auth.key_ids import (
    GENERATOR_OF_P256,
    PublicKey,
    libtrust_id,
    public_jwk,
    stripped_thumbprint,
    thumbprint,
)
from roadstead.errors import InvalidError

JoseKey = ECKey | RSAKey | OKPKey | OctKey

_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_SYMMETRIC = frozenset({"HS256", "HS384", "HS512"})


class KeysUnreadableError(InvalidError):
    """The keys of those whose tokens are believed can't be read."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what}: {reason}")
        self.what = what
        self.reason = reason


@dataclass(frozen=True)
class TrustedKey:
    """A key, and the algorithms that it can be used with: a public key never serves as a shared secret."""

    key: JoseKey
    algorithms: frozenset[str]
    ids: frozenset[str]

    @classmethod
    def of_public(cls, key: PublicKey, more: Iterable[str] = ()) -> "TrustedKey":
        """Return a public key under every id it may be named by, and those that are told besides."""
        ids = {libtrust_id(key), thumbprint(key), stripped_thumbprint(key), *more}
        match key:
            case ec.EllipticCurvePublicKey():
                curve = public_jwk(key)["crv"]
                if curve == "P-256":
                    ids.add(GENERATOR_OF_P256)
                algorithm = _CURVES.get(curve)
                return cls(ECKey.import_key(key), frozenset({algorithm} if algorithm else ()), frozenset(ids))
            case rsa.RSAPublicKey():
                return cls(RSAKey.import_key(key), _RSA, frozenset(ids))
            case ed25519.Ed25519PublicKey():
                return cls(OKPKey.import_key(key), frozenset({"EdDSA", "Ed25519"}), frozenset(ids))


@dataclass(frozen=True)
class TrustedKeys:
    """Every key that is trusted, and the certificates that a token's own certificate may lead to."""

    keys: tuple[TrustedKey, ...] = ()
    roots: tuple[x509.Certificate, ...] = ()

    @cached_property
    def by_id(self) -> Mapping[str, Sequence[TrustedKey]]:
        """Return the keys by their ids; several may share one."""
        found: dict[str, list[TrustedKey]] = {}
        for key in self.keys:
            for name in key.ids:
                found.setdefault(name, []).append(key)
        return found

    def with_all(self, other: "TrustedKeys") -> "TrustedKeys":
        """Return these and others."""
        return TrustedKeys((*self.keys, *other.keys), (*self.roots, *other.roots))

    def of_jwk(self, members: object) -> Sequence[TrustedKey]:
        """Return the trusted keys that are the one a token carries: its material is compared, not its name.

        What the token says of its key proves nothing; ours is what the signature is checked with (CVE-2025-24976).
        """
        try:
            raw = import_key(members).public_key if isinstance(members, dict) else None
        except (JoseError, ValueError, KeyError, TypeError):
            return ()
        if not isinstance(raw, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
            return ()
        return self.by_id.get(thumbprint(raw), ())

    def of_chain(self, texts: object, now: datetime) -> TrustedKey:
        """Return the key of a token's certificate (RFC 7515 §4.1.6); raises ChainInvalidError."""
        chain = parse_chain(texts)
        follow(chain, self.roots, now)
        try:
            key = chain[0].public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ChainInvalidError("the certificate's key can't be read") from error
        if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
            raise ChainInvalidError("the certificate's key is of a kind that signs no tokens")
        return TrustedKey.of_public(key)


def keys_of_bundle(text: bytes, what: str) -> TrustedKeys:
    """Return the keys of PEM certificates (distribution's ``rootcertbundle``); raises KeysUnreadableError."""
    try:
        certificates = x509.load_pem_x509_certificates(text)
    except ValueError as error:
        raise KeysUnreadableError(what, f"no certificate in PEM ({error})") from error
    keys = []
    for certificate in certificates:
        try:
            key = certificate.public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise KeysUnreadableError(what, f"a certificate's key can't be read ({error})") from error
        if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
            raise KeysUnreadableError(what, "a certificate has a key that is neither RSA, ECDSA nor Ed25519")
        keys.append(TrustedKey.of_public(key))
    return TrustedKeys(tuple(keys), tuple(certificates))


def keys_of_jwks(text: bytes, what: str) -> TrustedKeys:
    """Return the keys of a JWK set (RFC 7517 §5), known by their own ``kid`` too; raises KeysUnreadableError."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise KeysUnreadableError(what, f"not JSON ({error})") from error
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise KeysUnreadableError(what, 'expected {"keys": […]} with one key or more')
    return TrustedKeys(tuple(_of_entry(entry, f"{what}, keys[{at}]") for at, entry in enumerate(entries)))


def _of_entry(entry: object, what: str) -> TrustedKey:
    if not isinstance(entry, dict):
        raise KeysUnreadableError(what, "expected a table")
    named = [entry["kid"]] if isinstance(entry.get("kid"), str) else []
    try:
        key = import_key(entry)
        if isinstance(key, OctKey):
            return TrustedKey(key, _SYMMETRIC, frozenset([*named, key.thumbprint()]))
        raw = key.public_key
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise KeysUnreadableError(what, f"not a key as RFC 7517 has it ({error})") from error
    if not isinstance(raw, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        raise KeysUnreadableError(what, "the key is neither RSA, ECDSA, Ed25519 nor a shared one")
    return TrustedKey.of_public(raw, named)
