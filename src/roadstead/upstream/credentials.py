"""Who we are at other registries: what was given, Docker's ``config.json``, and its credential helpers."""

import asyncio
import base64
import binascii
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlsplit

from roadstead.secret import Secret
from roadstead.upstream.address import HUB_CREDENTIALS_KEY, RegistryAddress
from roadstead.upstream.errors import CredentialsError

HELPER_TIMEOUT_S = 30.0
HELPER_LIFETIME_S = 300.0
"""How long a helper's word counts; what clouds' helpers hand out lives for hours."""

_MAX_HELPER_ANSWER = 1 << 20  # bytes
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}+")
_TOKEN_USER = "<token>"  # noqa: S105 (what Docker's helpers write where the secret is an identity token)
_HUB_KEYS = frozenset({HUB_CREDENTIALS_KEY, "index.docker.io", "docker.io", "registry-1.docker.io"})


@dataclass(frozen=True, slots=True)
class Password:
    """A user's name and password."""

    username: str
    secret: Secret


@dataclass(frozen=True, slots=True)
class IdentityToken:
    """What ``docker login`` keeps where a registry hands out refresh tokens (Docker's OAuth2 token spec)."""

    secret: Secret


Credentials: TypeAlias = Password | IdentityToken
"""What is exchanged for tokens, or sent as it is."""


@dataclass(frozen=True, slots=True)
class BearerKey:
    """A key that the registry itself takes as a Bearer token, as Roadstead does its API keys: never exchanged."""

    secret: Secret


class CredentialSource(Protocol):
    """Knows who we are at a registry."""

    async def find(self, registry: RegistryAddress, repository: str) -> Credentials | BearerKey | None:
        """Return what to sign in with for a repository there, None to stay anonymous. Raises CredentialsError."""
        ...


@dataclass(frozen=True, slots=True)
class Given:
    """Credentials that somebody gave for the registry at hand; None: anonymous, whatever others know."""

    credentials: Credentials | BearerKey | None = None

    async def find(self, registry: RegistryAddress, repository: str) -> Credentials | BearerKey | None:
        """Return them."""
        return self.credentials


def parse_given(text: str) -> Password:
    """Read ``USER:PASSWORD``. Raises CredentialsError, which doesn't repeat it."""
    user, colon, password = text.partition(":")
    if not colon or not user or not password:
        raise CredentialsError("credentials", "expected USER:PASSWORD")
    return Password(user, Secret(password))


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """Files in the form of Docker's ``config.json``, podman's ``auth.json`` too; the first that knows wins.

    They are read again when they change. Files that aren't there know nothing; one that can't be read is an error.
    """

    files: tuple[Path, ...]
    search_path: str | None = None
    """Where ``docker-credential-…`` programs are; None: where the system looks for programs."""

    _read: dict[Path, tuple[object, Mapping[str, Any]]] = field(default_factory=dict, compare=False, repr=False)
    _told: dict[tuple[str, str], tuple[float, Credentials | None]] = field(
        default_factory=dict, compare=False, repr=False
    )  # what helpers told, and until when that counts
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock, compare=False, repr=False)

    async def find(self, registry: RegistryAddress, repository: str) -> Credentials | None:
        """Return the most specific entry's credentials: a helper's for that registry, the store's, the file's own."""
        for file in self.files:
            if found := await self._find_in(file, registry, repository):
                return found
        return None

    async def _find_in(self, file: Path, registry: RegistryAddress, repository: str) -> Credentials | None:
        document = self._document(file)
        helpers = _object(file, document, "credHelpers")
        names = [helpers.get(key) for key in sorted(_HUB_KEYS) if registry.is_hub] or [helpers.get(registry.host)]
        for name in (*names, document.get("credsStore")):
            if name and (found := await self._helper(file, name, registry)):
                return found
        entries = {_entry_key(key): entry for key, entry in _object(file, document, "auths").items()}
        for key in _keys(registry, repository):
            if found := _entry(file, entries.get(key)):
                return found
        return None

    def _document(self, file: Path) -> Mapping[str, Any]:
        try:
            found = file.stat()
            version, known = (found.st_mtime_ns, found.st_size, found.st_ino), self._read.get(file)
            if known is not None and known[0] == version:
                return known[1]
            document = json.loads(file.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise CredentialsError(str(file), f"can't be read: {error}") from error
        if not isinstance(document, dict):
            raise CredentialsError(str(file), "isn't a JSON object")
        self._read[file] = version, document
        return document

    async def _helper(self, file: Path, name: object, registry: RegistryAddress) -> Credentials | None:
        """Return what a helper tells; it may unlock a keychain or ask a cloud, so not for every request."""
        async with self._one_at_a_time:
            key = (str(name), registry.credentials_key)
            until, told = self._told.get(key, (0.0, None))
            if until <= time.monotonic():
                told = await self._ask(file, name, registry)
                self._told[key] = (time.monotonic() + HELPER_LIFETIME_S, told)
            return told

    async def _ask(self, file: Path, name: object, registry: RegistryAddress) -> Credentials | None:
        """Run a helper as Docker does: the key on its standard input, JSON on its standard output."""
        if not isinstance(name, str) or _HELPER_NAME.fullmatch(name) is None:
            raise CredentialsError(str(file), f"{str(name)[:80]!r} isn't a credential helper's name")
        program = shutil.which(f"docker-credential-{name}", path=self.search_path)
        if program is None:
            raise CredentialsError(str(file), f"it names the helper docker-credential-{name}, which isn't on the path")
        process = await asyncio.create_subprocess_exec(
            program,
            "get",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(HELPER_TIMEOUT_S):
                output, _ = await process.communicate(registry.credentials_key.encode())
        except TimeoutError as error:
            raise CredentialsError(program, f"didn't answer within {HELPER_TIMEOUT_S:g} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            if b"credentials not found" in output.lower():
                return None
            raise CredentialsError(program, f"ended with status {process.returncode}")
        return _helped(program, output)


def _helped(program: str, output: bytes) -> Credentials | None:
    try:
        document = json.loads(output[:_MAX_HELPER_ANSWER])
        user, secret = document["Username"], document["Secret"]
    except (ValueError, KeyError, TypeError) as error:
        raise CredentialsError(program, "answered something that isn't credentials") from error
    if not isinstance(user, str) or not isinstance(secret, str):
        raise CredentialsError(program, "answered something that isn't credentials")
    if not secret:
        return None
    return IdentityToken(Secret(secret)) if user == _TOKEN_USER else Password(user, Secret(secret))


def _object(file: Path, document: Mapping[str, Any], member: str) -> dict[str, Any]:
    value = document.get(member) or {}
    if not isinstance(value, dict):
        raise CredentialsError(str(file), f"{member} isn't a JSON object")
    return value


def _entry_key(key: str) -> str:
    """Return the host, and the path below it if that isn't an API's, of what a file has an entry under."""
    if key in _HUB_KEYS:
        return "docker.io"
    parts = urlsplit(key if "://" in key else f"//{key}")
    path = parts.path.strip("/")
    return parts.netloc if path in {"", "v1", "v2"} else f"{parts.netloc}/{path}"


def _keys(registry: RegistryAddress, repository: str) -> Iterator[str]:
    """Yield the keys that fit, the most specific first: podman keeps credentials for ``host/team`` too."""
    path = f"{registry.host}/{repository}" if repository else registry.host
    while path:
        yield path
        path = path.rpartition("/")[0]


def _entry(file: Path, entry: object) -> Credentials | None:
    if not isinstance(entry, dict):
        return None
    if isinstance(token := entry.get("identitytoken"), str) and token:
        return IdentityToken(Secret(token))
    user, password = entry.get("username"), entry.get("password")
    if isinstance(auth := entry.get("auth"), str) and auth:
        try:
            user, _, password = base64.b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise CredentialsError(str(file), "an entry's auth isn't base64 of USER:PASSWORD") from error
        password = password.strip("\0")  # Docker writes one where there was none
    if not isinstance(user, str) or not isinstance(password, str) or not user or not password:
        return None
    return Password(user, Secret(password))


_: CredentialSource = Given()
__: CredentialSource = DockerConfig(())
