"""What a server speaks TLS with: a certificate, its key, and what it asks of clients. Values only.

Reading them from files is ``reading.py``'s work, making them is ``self_signed.py``'s, ``source.py`` chooses; all three
need a library that a server without TLS never loads.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Self

from roadstead.errors import InvalidError
from roadstead.secret import Secret


class MinimumVersion(StrEnum):
    """The oldest version of TLS that clients may speak."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


class ClientCertificates(StrEnum):
    """What becomes of a client that shows no certificate, where authorities for them are named."""

    REQUIRED = "required"
    OPTIONAL = "optional"


class TlsInvalidError(InvalidError):
    """A certificate, a key or what belongs to them can't be used; ``part`` is the setting it is about."""

    def __init__(self, part: str, reason: str, advice: str | None = None) -> None:
        super().__init__(f"{part}: {reason}")
        self.part = part
        self.reason = reason
        self._advice = advice

    def advice(self) -> str | None:
        """Return what was given to try next."""
        return self._advice


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPlan:
    """Where the material comes from and how it is used.

    Without ``certificate`` and ``key`` it is a certificate that vouches for itself, for ``names``, kept in the
    directory ``kept_in`` or, where that is None, in memory.
    """

    certificate: Path | None = None
    key: Path | None = None
    names: tuple[str, ...] = ()
    kept_in: Path | None = None
    client_ca: tuple[Path, ...] = ()
    client_certificates: ClientCertificates = ClientCertificates.REQUIRED
    minimum_version: MinimumVersion = MinimumVersion.TLS_1_2

    @property
    def files(self) -> tuple[Path, ...]:
        """Return every file that others write and that counts."""
        own = [path for path in (self.certificate, self.key) if path is not None]
        return (*own, *self.client_ca)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsMaterial:
    """Everything one TLS server needs, as PEM; it was checked to fit together.

    ``certificate`` is the server's own with the intermediate ones behind it, ``key`` PKCS#8 without a password,
    ``client_authorities`` the certificates that clients' ones are checked against, empty where none are asked for.
    """

    certificate: str
    key: Secret
    client_authorities: str = ""
    client_certificates: ClientCertificates = ClientCertificates.REQUIRED
    minimum_version: MinimumVersion = MinimumVersion.TLS_1_2
    names: tuple[str, ...]
    fingerprint: str
    begins_at: datetime
    expires_at: datetime

    def is_valid(self, now: datetime) -> bool:
        """Tell whether clients with that clock take the certificate."""
        return self.begins_at <= now < self.expires_at

    def as_json(self) -> str:
        """Return all of it as one text, the key revealed: for pipes between our own processes, never for a disk."""
        return json.dumps(
            {
                "certificate": self.certificate,
                "key": self.key.reveal(),
                "client_authorities": self.client_authorities,
                "client_certificates": self.client_certificates,
                "minimum_version": self.minimum_version,
                "names": self.names,
                "fingerprint": self.fingerprint,
                "begins_at": self.begins_at.isoformat(),
                "expires_at": self.expires_at.isoformat(),
            }
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the material that `as_json` wrote."""
        plain = json.loads(text)
        return cls(
            certificate=plain["certificate"],
            key=Secret(plain["key"]),
            client_authorities=plain["client_authorities"],
            client_certificates=ClientCertificates(plain["client_certificates"]),
            minimum_version=MinimumVersion(plain["minimum_version"]),
            names=tuple(plain["names"]),
            fingerprint=plain["fingerprint"],
            begins_at=datetime.fromisoformat(plain["begins_at"]),
            expires_at=datetime.fromisoformat(plain["expires_at"]),
        )
