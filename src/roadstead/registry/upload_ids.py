"""Names of upload sessions: unguessable, bound to one repository and to whoever began them, valid without a row.

A client starts many more sessions than it uses: kaniko and ko start one to see whether they may push, every failed
mount leaves one, a monolithic push needs it for one request (registry spec §2.1, §2.4). So starting one writes
nothing: the id carries its own facts under a MAC, and a row appears with the first byte or the cancellation.
"""

import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from roadstead.oci.digest import Algorithm
from roadstead.oci.reference import RepositoryName

_NONCE_BYTES = 12
_TIME_BYTES = 5  # seconds since 1970: enough for 34,000 years
_MAC_BYTES = 16
_ALGORITHMS = (Algorithm.SHA256, Algorithm.SHA512)
_ID_BYTES = _NONCE_BYTES + _TIME_BYTES + 1 + _MAC_BYTES
_ID_LENGTH = -(-_ID_BYTES * 4 // 3)  # base64 without padding


@dataclass(frozen=True, slots=True)
class UploadTicket:
    """What an upload id says once its MAC was checked."""

    upload_id: str
    started_at: datetime
    algorithm: Algorithm


class UploadIds:
    """Makes and checks upload ids under one secret that all workers and replicas share."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def mint(self, repository: RepositoryName, algorithm: Algorithm, now: datetime, holder: str = "") -> UploadTicket:
        """Return a new id for a session of `holder` in this repository; `now` is kept to the second."""
        seconds = int(now.timestamp())
        nonce = bytearray(secrets.token_bytes(_NONCE_BYTES))
        nonce[0] &= 0x7F  # the id begins with a letter: it is also a key in storage
        facts = bytes(nonce) + seconds.to_bytes(_TIME_BYTES) + bytes([_ALGORITHMS.index(algorithm)])
        text = urlsafe_b64encode(facts + self._mac(repository, holder, facts)).rstrip(b"=").decode()
        return UploadTicket(text, datetime.fromtimestamp(seconds, UTC), algorithm)

    def check(self, repository: RepositoryName, upload_id: str, holder: str = "") -> UploadTicket | None:
        """Return what the id says, or None if it isn't ours, or is another repository's or another holder's."""
        raw = _decode(upload_id)
        if raw is None:
            return None
        facts, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(repository, holder, facts)):
            return None
        seconds = int.from_bytes(facts[_NONCE_BYTES : _NONCE_BYTES + _TIME_BYTES])
        return UploadTicket(upload_id, datetime.fromtimestamp(seconds, UTC), _ALGORITHMS[facts[-1]])

    def _mac(self, repository: RepositoryName, holder: str, facts: bytes) -> bytes:
        # No repository has a NUL in its name. Without a holder it isn't there: ids of earlier releases stay valid.
        bound = f"{repository}\0{holder}" if holder else str(repository)
        return hmac.digest(self._secret, facts + bound.encode(), "sha256")[:_MAC_BYTES]


def _decode(upload_id: str) -> bytes | None:
    """Return the id's bytes, or None unless it is exactly what `mint` could have written."""
    if len(upload_id) != _ID_LENGTH or not upload_id.isascii():
        return None
    try:
        raw = urlsafe_b64decode(upload_id + "=" * (-len(upload_id) % 4))
    except (Base64Error, ValueError):
        return None
    # One spelling only: base64 would otherwise take stray characters and unused bits, two names for one session.
    return raw if urlsafe_b64encode(raw).rstrip(b"=").decode() == upload_id else None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadLifetimes:
    """How long sessions live.

    ``unused``: a session without a byte (it has no row; clients use one within seconds). ``open``: one with bytes,
    distribution's 168 h. ``closed``: how long a finished session's row answers a repeated PUT or DELETE; never
    shorter than ``unused``, or a finished id would look fresh again.
    """

    unused: timedelta = timedelta(hours=1)
    open: timedelta = timedelta(hours=168)
    closed: timedelta = timedelta(hours=2)

    def __post_init__(self) -> None:
        if self.closed < self.unused:
            raise ValueError("closed sessions must be remembered for as long as unused ones are valid")

    @classmethod
    def with_open(cls, lifetime: timedelta) -> Self:
        """Return the defaults with another lifetime for sessions that hold bytes."""
        return cls(open=lifetime)
