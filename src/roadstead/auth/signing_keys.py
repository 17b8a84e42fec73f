"""The keys that sign our own tokens: made when they are needed, changed now and then, known before they are used.

A new key is published some minutes before the first token names it, and an old one until the last token that it signed
has ended, so that nobody who asks for the keys now and then meets a token whose key it doesn't know.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from cryptography.x509.oid import NameOID
from joserfc.jwk import ECKey, OKPKey, RSAKey

from roadstead.auth.key_ids import libtrust_id, public_jwk, thumbprint
from roadstead.auth.ports import SealedKey, SigningKeyStore
from roadstead.auth.sealing import Sealer
from roadstead.auth.trusted_keys import TrustedKey, TrustedKeys
from roadstead.clock import Clock
from roadstead.errors import UnavailableError

PUBLISHED_BEFORE = timedelta(minutes=10)
READ_EVERY = timedelta(seconds=30)
CERTIFICATE_LASTS = timedelta(days=3650)

_RSA_BITS = 2048
_log = structlog.get_logger()

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class SigningKey:
    """A key with its private half."""

    private: PrivateKey
    algorithm: str  # ES256, RS256 or EdDSA
    certificate: str
    created_at: datetime
    signs_from: datetime

    @cached_property
    def kid(self) -> str:
        """Its thumbprint (RFC 7638)."""
        return thumbprint(self.private.public_key())

    @cached_property
    def libtrust_kid(self) -> str:
        """What registries of version 2 call it."""
        return libtrust_id(self.private.public_key())

    @cached_property
    def jose(self) -> ECKey | RSAKey | OKPKey:
        """It as the library that signs takes it."""
        match self.private:
            case ec.EllipticCurvePrivateKey():
                return ECKey.import_key(self.private)
            case rsa.RSAPrivateKey():
                return RSAKey.import_key(self.private)
            case ed25519.Ed25519PrivateKey():
                return OKPKey.import_key(self.private)

    @cached_property
    def trusted(self) -> TrustedKey:
        """Its public half as tokens are checked with it: asked for with every request."""
        return TrustedKey.of_public(self.private.public_key())

    @property
    def public(self) -> dict[str, str]:
        """Its public half as an entry of a JWK set (RFC 7517)."""
        return {**public_jwk(self.private.public_key()), "kid": self.kid, "use": "sig", "alg": self.algorithm}


def make_signing_key(algorithm: str, *, issuer: str, now: datetime, signs_from: datetime) -> SigningKey:
    """Return a new random key."""
    private: PrivateKey
    match algorithm:
        case "ES256":
            private = ec.generate_private_key(ec.SECP256R1())
        case "RS256":
            private = rsa.generate_private_key(65537, _RSA_BITS)
        case "EdDSA":
            private = ed25519.Ed25519PrivateKey.generate()
        case _:
            raise ValueError(f"no keys are made for {algorithm}")
    return SigningKey(private, algorithm, _certificate(private, issuer, now), now, signs_from)


class SigningKeys:
    """The keys of this installation, over all its processes."""

    def __init__(
        self,
        store: SigningKeyStore,
        sealer: Sealer,
        clock: Clock,
        *,
        issuer: str,
        algorithm: str,
        rotate_every: timedelta,
        tokens_last: timedelta,
    ) -> None:
        """`tokens_last` is how long a token is good at the longest: so long a key is known after its last one."""
        self._store = store
        self._sealer = sealer
        self._clock = clock
        self._issuer = issuer
        self._algorithm = algorithm
        self._rotate_every = rotate_every
        self._tokens_last = tokens_last
        self._known: tuple[SigningKey, ...] = ()
        self._read_at: datetime | None = None

    async def signing(self) -> SigningKey:
        """Return the key that signs now. Makes the first one, and the next one when it is time."""
        now = self._clock.now()
        keys = await self.published()
        signing = [key for key in keys if key.signs_from <= now]
        if not signing:
            await self._make(now, signs_from=now)
            keys = await self._read(now)
            signing = [key for key in keys if key.signs_from <= now]
        elif keys[-1].algorithm != self._algorithm or now - keys[-1].signs_from >= self._rotate_every:
            await self._make(now, signs_from=now + PUBLISHED_BEFORE)
            await self._read(now)
        if not signing:
            raise UnavailableError("there is no key yet to sign tokens with")
        return signing[-1]

    async def published(self) -> Sequence[SigningKey]:
        """Return every key that tokens may name, the one that signs last behind the others."""
        now = self._clock.now()
        return self.known(now) or await self._read(now)

    def known(self, now: datetime) -> Sequence[SigningKey]:
        """Return the same without a look at the database; nothing where it is time for one."""
        if self._read_at is None or now - self._read_at >= READ_EVERY:
            return ()
        return self._known

    async def trusted(self, kid: str) -> TrustedKeys:
        """Return the keys to check a token with that names this one; another process may have made it just now."""
        keys = await self.published()
        now = self._clock.now()
        if not any(key.kid == kid or key.libtrust_kid == kid for key in keys) and self._may_read_again(now):
            keys = await self._read(now)
        return TrustedKeys(tuple(key.trusted for key in keys))

    def _may_read_again(self, now: datetime) -> bool:
        # Tokens with invented names of keys must not have the database asked for each.
        return self._read_at is None or now - self._read_at >= timedelta(seconds=1)

    async def _read(self, now: datetime) -> Sequence[SigningKey]:
        rows = await self._store.signing_keys()
        opened = {key.kid: key for key in self._known}
        keys = [opened.get(row.kid) or self._open(row) for row in rows]
        self._known, self._read_at = tuple(keys), now
        await self._remove_old(now)
        return self._known

    async def _remove_old(self, now: datetime) -> None:
        """Remove the keys whose last token has ended: another one signs since longer than tokens last."""
        enough = self._tokens_last + 2 * PUBLISHED_BEFORE  # clocks differ, and others look up keys now and then
        since = [key for key in self._known if key.signs_from + enough <= now]
        for key in since[:-1]:
            if await self._store.remove_signing_key(key.kid):
                _log.info("signing key removed", kid=key.kid)
        self._known = tuple(key for key in self._known if key not in since[:-1])

    async def _make(self, now: datetime, *, signs_from: datetime) -> None:
        key = make_signing_key(self._algorithm, issuer=self._issuer, now=now, signs_from=signs_from)
        der = key.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        sealed = self._sealer.seal(der, _purpose(key.kid))
        await self._store.add_signing_key(
            SealedKey(key.kid, key.algorithm, sealed, key.certificate, key.created_at, key.signs_from)
        )
        _log.info("signing key made", kid=key.kid, algorithm=key.algorithm, signs_from=signs_from.isoformat())

    def _open(self, row: SealedKey) -> SigningKey:
        private = load_der_private_key(self._sealer.open(row.sealed, _purpose(row.kid)), None)
        if not isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
            raise UnavailableError(f"the signing key {row.kid} is of a kind that signs no tokens")
        return SigningKey(private, row.algorithm, row.certificate, row.created_at, row.signs_from)


def _purpose(kid: str) -> str:
    return f"signing key {kid}"


def _certificate(key: PrivateKey, issuer: str, now: datetime) -> str:
    """Return a certificate that carries the public key to registries which take nothing else (rootcertbundle)."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer[:64])])
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + CERTIFICATE_LASTS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, algorithm)
    )
    return made.public_bytes(Encoding.PEM).decode()
