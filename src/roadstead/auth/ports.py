"""What access control needs from elsewhere: ways of signing in, stores, and how clients are asked to sign in."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from roadstead.auth.caller import Caller, Scope
from roadstead.auth.credentials import Credentials
from roadstead.auth.principal import Grant, Principal
from roadstead.secret import Secret


class Authenticator(Protocol):
    """One way of signing in."""

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return who it is; None where these credentials are of another kind, or aren't right.

        It reads what it knows with every call, so that what is revoked is revoked at once. Raises
        AttemptsTooManyError and UnavailableError; never guesses.
        """
        ...


@runtime_checkable
class TakesItsTime(Protocol):
    """A way of signing in where a name that it knows is told by the time that an answer takes."""

    async def waste(self, credentials: Credentials) -> None:
        """Take the time that `authenticate` would have taken if it had known the name; nothing if it has.

        Asked once every way of signing in has failed: whoever is known to one of them needn't wait for the others.
        """
        ...


class Challenges(Protocol):
    """How a client is told to sign in here: the values of WWW-Authenticate, the one to be tried first first.

    ``asks_everybody``: `/v2/` asks also those who may do something without signing in, since clients only sign in
    where they are asked there, and have a way of signing in as nobody (Bearer). With Basic alone they haven't.
    """

    asks_everybody: bool

    def values(self, wanted: Sequence[Grant], *, host: str, error: str | None = None) -> Sequence[str]:
        """Return a value for each scheme. `wanted` is what a token would have to grant, `host` the request's Host
        header, `error` why a token that came isn't enough (RFC 6750 §3.1)."""
        ...


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody in our own database, and the hash of their password (None: signs in with keys only)."""

    principal: Principal
    password_hash: Secret | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without the secret itself: ``secret_hash`` is its SHA-256."""

    key_id: str
    owner: Principal
    scope: Scope
    secret_hash: str
    created_at: datetime
    expires_at: datetime | None
    description: str = ""


class AccountStore(Protocol):
    """Users and robot accounts, and their keys. Every write is one transaction, every read sees the last one."""

    async def find_account(self, name: str) -> Account | None:
        """Return the account of that name, with the groups it is in now."""
        ...

    async def put_account(
        self, principal: Principal, password_hash: Secret | None, *, replace: bool, now: datetime
    ) -> bool:
        """Store an account; False where the name is taken and `replace` isn't set.

        Replacing keeps the keys, and takes the new groups for the old ones. Without a hash the password stays.
        """
        ...

    async def remove_account(self, name: str) -> bool:
        """Remove an account with its keys; False where there is none."""
        ...

    async def accounts(self) -> Sequence[Account]:
        """Return all accounts by name."""
        ...

    async def find_key(self, key_id: str) -> ApiKey | None:
        """Return the key with its owner as that is now."""
        ...

    async def put_key(self, key: ApiKey) -> bool:
        """Store a new key; False where its owner has no account (any more)."""
        ...

    async def remove_key(self, key_id: str) -> bool:
        """Remove a key; False where there is none."""
        ...

    async def keys(self, owner: str | None = None) -> Sequence[ApiKey]:
        """Return the keys of one account or of all, the oldest first."""
        ...
