"""Container tokens: short-lived names that mean "this image, with that plan" (Wave's API; design decisions 6 and 9).

A token is a secret: whoever has it may pull the image that it names, as its creator may, for as long as both last.
So it is random, only its SHA-256 is kept, and what is derived for it lies in a *space* of its own: a repository below
``wt/``, which no path of the registry's API leads to but those that begin with a token. Tokens for one repository with
one plan share a space, for all that is in it follows from these two.
"""

import hashlib
import re
import secrets
from base64 import b32encode
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from roadstead.augment.plan import Plan
from roadstead.auth.principal import Principal
from roadstead.errors import InvalidError, NotFoundError
from roadstead.oci.digest import Digest
from roadstead.oci.reference import CONTAINER_TOKENS, RepositoryName, Tag

_BYTES = 20  # 160 bits: nobody guesses one
_TOKEN = re.compile(r"[0-9a-z]{1,64}")


class ContainerTokenUnknownError(NotFoundError):
    """No token has this text (MANIFEST_UNKNOWN)."""

    def __init__(self) -> None:
        super().__init__("this container token is unknown: it was never issued here, or ended long ago")

    def advice(self) -> str:
        """Say where a token comes from."""
        return "Ask for a new one: POST /container-token."


class ContainerTokenEndedError(NotFoundError):
    """The token was good once (MANIFEST_UNKNOWN)."""

    def __init__(self, ended_at: datetime) -> None:
        super().__init__(f"this container token ended at {ended_at:%Y-%m-%dT%H:%M:%SZ}")
        self.ended_at = ended_at

    def advice(self) -> str:
        """Say how to get another."""
        return "Ask for a new one with the same request: POST /container-token."


class ContainerTokenStoppedError(NotFoundError):
    """Whoever made the token may no longer do what it needs (MANIFEST_UNKNOWN)."""

    def __init__(self) -> None:
        super().__init__("this container token has stopped: who made it may not pull or augment this image any more")


class ContainerPathError(InvalidError):
    """The name below a token isn't the one that the token is for."""

    def __init__(self, asked: str, path: str) -> None:
        super().__init__(f"this container token is for {path}, not for {asked[:255]!r}")


def new_token() -> str:
    """Return a random token: 32 of ``a-z2-7``."""
    return b32encode(secrets.token_bytes(_BYTES)).decode().lower()


def is_token(text: str) -> bool:
    """Say whether a text could be a token, of this service or of the one that it replaces."""
    return _TOKEN.fullmatch(text) is not None


def token_hash(text: str) -> str:
    """Return what is kept of a token; of so many random bits nobody finds the other half."""
    return hashlib.sha256(text.encode()).hexdigest()


def space_of(repository: RepositoryName, plan: Plan) -> RepositoryName:
    """Return the space of what is derived from a repository's images under a plan. Pure."""
    named = f"{repository} {plan.digest}"
    return RepositoryName(f"{CONTAINER_TOKENS}/{hashlib.sha256(named.encode()).hexdigest()}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerToken:
    """What a token means. ``token_hash`` is its SHA-256; the text itself is kept nowhere.

    ``repository`` holds the image, under the name that it has here; ``path`` is its name below the token, without the
    host of another registry. Without a plan the image is served as it is. ``described`` is the request as JSON, for
    those who ask what they have; it holds no layers' bytes and no credentials.
    """

    token_hash: str
    creator: Principal
    key_id: str | None  # the API key that the creator came with: the token ends with it
    repository: RepositoryName
    path: str
    reference: Tag | Digest
    plan: Plan | None
    described: str
    created_at: datetime
    expires_at: datetime

    @property
    def space(self) -> RepositoryName | None:
        """Return where what is derived for it lies."""
        return None if self.plan is None else space_of(self.repository, self.plan)


class ContainerTokenStore(Protocol):
    """Tokens by their hash. Every write is one transaction, every read sees the last one."""

    async def put(self, token: ContainerToken) -> None:
        """Store a new token."""
        ...

    async def find(self, token_hash: str) -> ContainerToken | None:
        """Return the token with that hash, ended or not."""
        ...

    async def end(self, token_hash: str, *, now: datetime) -> bool:
        """End a token; False where there is none that hasn't ended."""
        ...

    async def purge(self, *, now: datetime, forget_before: datetime) -> int:
        """Remove what was derived for tokens that have all ended, and tokens that ended before; return how many."""
        ...
