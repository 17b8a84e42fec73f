"""The certificate of ``serve``: loaded at the start, and again when it changes.

Loading takes place in a process of its own (apart.py), so that the supervisor stays as small as it is.
"""

import socket
from datetime import datetime, timedelta
from functools import partial
from urllib.parse import urlsplit

import structlog

from roadstead.cli.apart import Apart, PreparationError
from roadstead.clock import Clock
from roadstead.settings.model import Settings, StorageDriver
from roadstead.tls.material import ClientCertificates, MinimumVersion, TlsMaterial, TlsPlan
from roadstead.tls.watched import WatchedFiles

LOOK_EVERY_S = 1.0
MADE_ANEW_BEFORE = timedelta(days=30)
WARNED_BEFORE = timedelta(days=14)
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")

_log = structlog.get_logger()


class TlsFromSettings:
    """The material that settings name; ``look`` takes up what has changed."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Load it; raises PreparationError."""
        self._clock = clock
        self._plan = tls_plan(settings)
        self._files = WatchedFiles(self._plan.files)
        self._again_at: datetime | None = None  # when what the files hold begins to be valid
        self.material = self._loaded()

    def look(self, asked: bool) -> bool:
        """Say whether there is something new, and have it; what can't be used is told, and what was goes on."""
        changed, now = self._files.changed(), self._clock.now()
        if not (changed or asked or self._must_be_made_anew(now) or self._begins(now)):
            return False
        self._again_at = None
        try:
            found = self._loaded()
        except PreparationError as error:
            _log.error(
                "the new certificate can't be used, the last one goes on", error=str(error), advice=error.advice()
            )
            return False
        if self.material.is_valid(now) and not found.is_valid(now):
            # Nobody would take it, and everybody takes the last one.
            self._again_at = found.begins_at if found.begins_at > now else None
            _log.error("the new certificate isn't valid now, the last one goes on", fingerprint=found.fingerprint)
            return False
        last, self.material = self.material, found
        return (found.certificate, found.client_authorities) != (last.certificate, last.client_authorities)

    def _must_be_made_anew(self, now: datetime) -> bool:
        return self._plan.certificate is None and self.material.expires_at - now <= MADE_ANEW_BEFORE

    def _begins(self, now: datetime) -> bool:
        return self._again_at is not None and self._again_at <= now

    def _loaded(self) -> TlsMaterial:
        now = self._clock.now()
        material = TlsMaterial.parse(Apart(partial(_load, self._plan, now)).result())
        left = material.expires_at - now
        tell = _log.warning if left < WARNED_BEFORE or material.begins_at > now else _log.info
        tell(
            "certificate",
            names=list(material.names),
            begins_at=material.begins_at.isoformat(),
            expires_at=material.expires_at.isoformat(),
            days_left=left.days,
            fingerprint=material.fingerprint,
        )
        return material


def tls_plan(settings: Settings) -> TlsPlan:
    """Return where the certificate comes from, as settings say."""
    tls, storage = settings.tls, settings.storage
    durable = storage.driver is StorageDriver.FILESYSTEM
    return TlsPlan(
        certificate=tls.certificate,
        key=tls.key,
        names=_names(settings),
        kept_in=storage.path / "tls" if tls.self_signed and durable else None,
        client_ca=tls.client_ca,
        client_certificates=ClientCertificates(tls.client_certificates.value),
        minimum_version=MinimumVersion(tls.minimum_version.value),
    )


def _names(settings: Settings) -> tuple[str, ...]:
    """Return the hosts that a certificate made here is for, each once, the one that clients use first."""
    host = settings.server.listen.host
    own = (socket.gethostname(), *_THIS_MACHINE) if host in _EVERYWHERE else (host, *_THIS_MACHINE)
    public = urlsplit(settings.server.public_url or "").hostname
    return tuple(dict.fromkeys([*([public] if public else []), *settings.tls.names, *own]))


async def _load(plan: TlsPlan, now: datetime) -> str:
    # In a process of its own (apart.py): what it imports is gone with it.
    from roadstead.tls.source import load_material

    return load_material(plan, now).as_json()
