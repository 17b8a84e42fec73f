"""Passwords against their hashes: which kinds we read, how we make our own, and what is remembered of right ones.

Checking a password is meant to be slow (bcrypt, argon2), and clients send it with every request. So what was found
right is remembered in this process, under a keyed MAC of name, password and hash. The hash is read with every request
all the same: a changed one was never remembered, so nothing has to be forgotten.
"""

import asyncio
import hashlib
import hmac
import re
import secrets
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from roadstead.auth.credentials import Password
from roadstead.auth.limiter import FailureLimiter

THREADS = 2
"""Passwords checked at once in one process: guessing must not take all cores from those who are in already."""

REMEMBERED = 1024
REMEMBERED_S = 3600.0

_BCRYPT = re.compile(r"\$2[abxy]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")  # the salt's last two bits
_BCRYPT_MAX_COST = 16  # some 5 s; a hash beyond it would hold up everybody
_APR1 = re.compile(r"\$apr1\$[./A-Za-z0-9]{1,8}\$[./A-Za-z0-9]{22}")
_SHA = re.compile(r"\{SHA\}[A-Za-z0-9+/]{27}=")
_ROUNDS = r"(?:rounds=[1-9]\d{3,6}\$)?"  # fewer than 1,000 there never are
_CRYPT = re.compile(rf"\$(?:5\${_ROUNDS}[./A-Za-z0-9]{{1,16}}\$[./A-Za-z0-9]{{43}}"
                    rf"|6\${_ROUNDS}[./A-Za-z0-9]{{1,16}}\$[./A-Za-z0-9]{{86}})")  # fmt: skip
_ARGON2 = re.compile(r"\$argon2id\$v=19\$m=(\d{1,9}),t=\d{1,2},p=\d{1,2}\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{6,}")
_ARGON2_MAX_MEMORY_KIB = 1 << 20

_ARGON2_MEMORY_KIB = 19 << 10
_ARGON2_PASSES = 2
"""What OWASP's Password Storage Cheat Sheet asks for at the least; more memory would count for every worker."""


def objection(hashed: str) -> str | None:
    """Return why a hash can't be checked here, None if it can."""
    bcrypt = _BCRYPT.fullmatch(hashed)
    if bcrypt is not None:
        cost = int(bcrypt[1])
        return None if 4 <= cost <= _BCRYPT_MAX_COST else f"bcrypt's cost is {cost}, expected 4 to {_BCRYPT_MAX_COST}"
    argon2 = _ARGON2.fullmatch(hashed)
    if argon2 is not None:
        is_taken = int(argon2[1]) <= _ARGON2_MAX_MEMORY_KIB
        return (
            None if is_taken else f"argon2's memory is {argon2[1]} KiB, expected {_ARGON2_MAX_MEMORY_KIB} at the most"
        )
    if any(kind.fullmatch(hashed) for kind in (_APR1, _SHA, _CRYPT)):
        return None
    return "the password is of no kind that is known here: bcrypt (htpasswd -B), apr1, SHA-crypt or {SHA}"


def check(hashed: str, password: str) -> bool:
    """Say whether the password is the one that was hashed; slow where its kind is, and of a kind that is known.

    A hash that only looks like one fits no password, and a password that the kind can't have (apr1 has none with a
    zero character) fits no hash.
    """
    try:
        return _check(hashed, password)
    except ValueError:
        return False


def _check(hashed: str, password: str) -> bool:
    # The libraries are loaded when a hash of theirs comes by: most servers meet one kind.
    match hashed[:4]:
        case "$2a$" | "$2b$" | "$2x$" | "$2y$":
            import bcrypt

            # Bytes beyond 72 don't count: bcrypt never saw them, and its library has come to refuse them.
            return bcrypt.checkpw(password.encode()[:72], hashed.encode())
        case "$apr":
            from passlib.handlers.md5_crypt import apr_md5_crypt

            return bool(apr_md5_crypt.verify(password, hashed))
        case "{SHA":
            digest = b64encode(hashlib.sha1(password.encode(), usedforsecurity=False).digest()).decode()
            return hmac.compare_digest(f"{{SHA}}{digest}", hashed)
        case "$arg":
            return _check_argon2(hashed, password)
    return _check_crypt(hashed, password)


def _check_crypt(hashed: str, password: str) -> bool:
    if _CRYPT.fullmatch(hashed) is None:
        return False
    from passlib.handlers.sha2_crypt import sha256_crypt, sha512_crypt

    return bool((sha256_crypt if hashed.startswith("$5$") else sha512_crypt).verify(password, hashed))


def _check_argon2(hashed: str, password: str) -> bool:
    from argon2 import PasswordHasher
    from argon2.exceptions import VerificationError

    try:
        return PasswordHasher().verify(hashed, password)
    except VerificationError:  # it is another one, or nothing that could be checked
        return False


def hash_password(password: str) -> str:
    """Return a hash of the password for our own database (argon2id); takes a while, on purpose."""
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=_ARGON2_PASSES, memory_cost=_ARGON2_MEMORY_KIB, parallelism=1).hash(password)


class Passwords:
    """Checks passwords off the loop, few at a time, and remembers right ones."""

    def __init__(self, limiter: FailureLimiter, *, clock: Callable[[], float] = monotonic) -> None:
        self._limiter = limiter
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, float] = OrderedDict()  # MAC → until when
        self._under_way: dict[bytes, asyncio.Future[bool]] = {}
        self._threads: ThreadPoolExecutor | None = None
        self.checked = 0
        """How many passwords were checked, not remembered: for tests and numbers."""

    async def matches(self, hashed: str, credentials: Password) -> bool:
        """Say whether the credentials' password is the hashed one; raises AttemptsTooManyError.

        Requests that come with the same credentials at once wait for one check.
        """
        mark = self._mark(hashed, credentials)
        if self._right.get(mark, 0.0) > self._clock():
            return True
        self._limiter.check(credentials.client, credentials.username)
        running = self._under_way.get(mark)
        if running is None:
            running = asyncio.ensure_future(self._check(mark, hashed, credentials.password.reveal()))
            self._under_way[mark] = running
            running.add_done_callback(lambda _: self._under_way.pop(mark, None))
        return await asyncio.shield(running)  # others may wait for it although this client has gone

    async def waste(self, hashed: str, credentials: Password) -> None:
        """Take as long as `matches` does for a wrong password, whatever it is."""
        self._limiter.check(credentials.client, credentials.username)
        await self._run(hashed, credentials.password.reveal())

    async def _check(self, mark: bytes, hashed: str, password: str) -> bool:
        right = await self._run(hashed, password)
        if right:
            self._right[mark] = self._clock() + REMEMBERED_S
            self._right.move_to_end(mark)
            if len(self._right) > REMEMBERED:
                self._right.popitem(last=False)
        return right

    async def _run(self, hashed: str, password: str) -> bool:
        self.checked += 1
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="roadstead-passwords")
        return await asyncio.get_running_loop().run_in_executor(self._threads, check, hashed, password)

    def _mark(self, hashed: str, credentials: Password) -> bytes:
        parts = (credentials.username.encode(), credentials.password.reveal().encode(), hashed.encode())
        # Lengths first, so that no two triples read the same.
        message = b"".join(len(part).to_bytes(4) + part for part in parts)
        return hashlib.blake2b(message, key=self._key, digest_size=32).digest()

    def close(self) -> None:
        """Let go of the threads."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
