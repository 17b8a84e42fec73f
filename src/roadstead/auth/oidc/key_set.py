"""The keys that an issuer publishes (RFC 7517): what of them can have signed an ID token."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import import_key

from roadstead.auth.trusted_keys import TrustedKey
from roadstead.errors import InvalidError

_MOST = 100
_SHORTEST_RSA = 2048  # bits, RFC 7518 §3.3


class KeySetInvalidError(InvalidError):
    """What an issuer publishes is no set of keys."""


@dataclass(frozen=True)
class IssuerKey:
    """A public key, by the name that the issuer has for it."""

    kid: str | None
    key: TrustedKey


@dataclass(frozen=True)
class KeySet:
    """An issuer's keys."""

    keys: tuple[IssuerKey, ...] = ()

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read a set; keys that can't sign ID tokens (for encryption, of other kinds, shared or short) are left out.

        Raises KeySetInvalidError.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise KeySetInvalidError("its keys aren't JSON") from error
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list) or len(entries) > _MOST:
            raise KeySetInvalidError("its keys aren't a set of keys (RFC 7517)")
        return cls(tuple(key for entry in entries if (key := _key(entry)) is not None))

    def candidates(self, kid: object, algorithm: str) -> Sequence[IssuerKey]:
        """Return the keys that a token which names its key so may be signed with, by that algorithm.

        A token that names none is taken where there is only one that fits (OpenID Connect Core §10.1).
        """
        fitting = [key for key in self.keys if algorithm in key.key.algorithms]
        if kid is None:
            return fitting if len(fitting) == 1 else ()
        return [key for key in fitting if key.kid == kid]


def _key(entry: object) -> IssuerKey | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or entry.get("kty") == "oct":
        return None
    operations = entry.get("key_ops")
    if operations is not None and (not isinstance(operations, list) or "verify" not in operations):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # of keys that are too short, which are left out below
            raw = import_key({name: entry[name] for name in _PUBLIC if name in entry}).public_key
    except (JoseError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(raw, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        return None
    if isinstance(raw, rsa.RSAPublicKey) and raw.key_size < _SHORTEST_RSA:
        return None
    kid, said = entry.get("kid"), entry.get("alg")
    key = TrustedKey.of_public(raw)
    if said is not None:  # the issuer says what it is for
        key = TrustedKey(key.key, key.algorithms & {said} if isinstance(said, str) else frozenset(), key.ids)
    return IssuerKey(kid if isinstance(kid, str) else None, key)


_PUBLIC = ("kty", "n", "e", "crv", "x", "y")
"""Members of public keys: what else a set tells of one is of no use here, its private half least of all."""
