"""htpasswd: a file of names and hashes, as Apache's ``htpasswd`` and ``openssl passwd`` write it.

Distribution reads bcrypt alone; stacks are also made with ``openssl passwd -apr1``, so that is read as well, and so are
``{SHA}`` and SHA-crypt. The file is read again when it has changed, which each request looks at.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, TypeAlias

import structlog

from roadstead.auth.caller import Caller
from roadstead.auth.credentials import Credentials, Password
from roadstead.auth.errors import SourceUnreadableError
from roadstead.auth.passwords import Passwords, objection
from roadstead.auth.ports import NOT_MINE, Authenticator, Judges, TakesItsTime, Verdict
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.auth.proof import Proof, ProofKind

_log = structlog.get_logger()

_FALLBACK = "$2b$10$9FZ6Jr0u3kV4NHG7p1RjTeTqEKGhFX2bnXYyuO/6YQS5QWkK/vGnO"
"""What an unknown name is checked against where the file has no hash at all."""

Edition: TypeAlias = tuple[int, int, int, int]

GRAIN_NS = 20_000_000
"""A file that has just changed may change again and say the same time: kernels take it from a clock that ticks."""

_BCRYPT_COST = re.compile(r"\$2.\$(\d\d)\$")


@dataclass(frozen=True, slots=True)
class LineFinding:
    """What is wrong with a line; the line itself isn't told, as a password may stand in it."""

    number: int
    message: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.message}"


@dataclass(frozen=True, slots=True)
class HtpasswdEntries:
    """What a file says: a hash for each name, and what is wrong in it."""

    hashes: Mapping[str, str]
    findings: Sequence[LineFinding]

    @property
    def costliest(self) -> str:
        """Return the hash that takes longest to check: what every failure takes at the least."""
        return max(self.hashes.values(), key=_cost, default=_FALLBACK)


def parse_htpasswd(text: str) -> HtpasswdEntries:
    """Read a file's lines. What can't be read is a finding, and the other lines hold. Pure."""
    hashes: dict[str, str] = {}
    findings: list[LineFinding] = []
    # Editors put a mark before UTF-8: it would be the beginning of the first name.
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, colon, rest = line.partition(":")
        hashed = rest.partition(":")[0]  # as Apache does: what follows is a remark
        wrong = _objection(name, colon, hashed, hashes)
        if wrong is None:
            hashes[name] = hashed
        else:
            findings.append(LineFinding(number, wrong))
    return HtpasswdEntries(hashes, findings)


def read_htpasswd(path: Path) -> HtpasswdEntries:
    """Read a file; raises OSError where it can't be read."""
    return parse_htpasswd(path.read_text(encoding="utf-8", errors="replace"))


def _objection(name: str, colon: str, hashed: str, known: Mapping[str, str]) -> str | None:
    if not colon or not name:
        return "expected NAME:HASH"
    if name in known:
        return f"{name!r} has a line already, and the first counts"
    return objection(hashed)


def _unreadable(error: OSError) -> SourceUnreadableError:
    return SourceUnreadableError(f"the file of passwords can't be read: {error.strerror}")


def _cost(hashed: str) -> int:
    """Return how long a check takes, to be compared: each step of bcrypt's cost doubles it."""
    cost = _BCRYPT_COST.match(hashed)
    return 1 << int(cost[1]) if cost is not None else 1


class HtpasswdFile:
    """`Authenticator` over an htpasswd file."""

    def __init__(self, path: Path, passwords: Passwords) -> None:
        self._path = path
        self._name = os.fspath(path)
        self._passwords = passwords
        self._seen: Edition | None = None
        self._entries = HtpasswdEntries({}, ())
        self._told: HtpasswdEntries | None = None

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return who it is; a file that isn't there lets nobody in (SourceUnreadableError)."""
        return (await self.judge(credentials)).caller

    async def judge(self, credentials: Credentials) -> Verdict:
        """Return who it is, and that it goes by what hash the file has for the name."""
        if not isinstance(credentials, Password):
            return NOT_MINE
        read = partial(self._hash_of, credentials.username)
        hashed = await read()
        if hashed is None or not await self._passwords.matches(hashed, credentials):
            return Verdict(None, read, hashed)
        principal = Principal(PrincipalKind.USER, credentials.username)
        return Verdict(Caller(principal, via="htpasswd", proof=Proof(ProofKind.LINE, hashed)), read, hashed)

    async def _hash_of(self, name: str) -> str | None:
        return self.read().hashes.get(name)

    async def waste(self, credentials: Credentials) -> None:
        """Take as long as the costliest hash of the file at the least: a quick "no" would tell which names it has."""
        if not isinstance(credentials, Password):
            return
        entries = self.read()
        hashed = entries.hashes.get(credentials.username)
        costliest = entries.costliest
        if hashed is None or _cost(hashed) < _cost(costliest):
            await self._passwords.waste(costliest, credentials)

    def edition(self) -> Edition | None:
        """Return what tells the file as it is now from any other: inode, times of change in nanoseconds, bytes.

        None where it has changed so lately that it can't be told. Raises SourceUnreadableError.
        """
        try:
            status = os.stat(self._name)  # noqa: PTH116 -- Path takes as long again, and each request looks
        except OSError as error:
            self._seen = None
            raise _unreadable(error) from error
        if time_ns() - status.st_ctime_ns < GRAIN_NS:
            return None
        # Copies and editors set the one time to what it was before; nobody sets the other.
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size

    def read(self) -> HtpasswdEntries:
        """Return what the file says now; it is read if it isn't the one that was read last."""
        seen = self.edition()
        try:
            if seen is None or seen != self._seen:
                self._entries = read_htpasswd(self._path)
                self._seen = seen
                self._tell()
        except OSError as error:
            self._seen = None
            raise _unreadable(error) from error
        return self._entries

    def _tell(self) -> None:
        if self._entries == self._told:  # it may be read often within a moment
            return
        self._told = self._entries
        for finding in self._entries.findings:
            _log.warning("a line of htpasswd isn't used", path=str(self._path), line=finding.number,
                         reason=finding.message)  # fmt: skip
        _log.info("htpasswd is read", path=str(self._path), users=len(self._entries.hashes))


if TYPE_CHECKING:
    _: type[Authenticator] = HtpasswdFile
    __: type[TakesItsTime] = HtpasswdFile
    ___: type[Judges] = HtpasswdFile
