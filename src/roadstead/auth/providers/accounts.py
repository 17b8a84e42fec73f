"""Our own users, robot accounts and API keys: read from the database with the request (design decision 3)."""

import hashlib
import hmac
import re
import secrets
from base64 import b32encode
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

from roadstead.auth.caller import Caller, Scope
from roadstead.auth.credentials import Bearer, Credentials, Password
from roadstead.auth.passwords import Passwords, hash_password
from roadstead.auth.ports import AccountStore, ApiKey, Authenticator, TakesItsTime
from roadstead.auth.principal import Principal
from roadstead.clock import Clock
from roadstead.secret import Secret

KEY_PREFIX = "rs_"
"""How a key begins: people and secret scanners know it by that."""

_ID_BYTES = 10
_SECRET_BYTES = 20  # 160 bits
_KEY = re.compile(r"rs_([a-z2-7]{16})_([a-z2-7]{32})")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made; ``text`` is shown once and kept nowhere."""

    text: Secret
    row: ApiKey


def make_key(
    owner: Principal, scope: Scope, *, now: datetime, expires_at: datetime | None, description: str = ""
) -> NewKey:
    """Return a new random key."""
    key_id, secret = _random(_ID_BYTES), _random(_SECRET_BYTES)
    row = ApiKey(
        key_id=key_id,
        owner=owner,
        scope=scope,
        secret_hash=_hashed(secret),
        created_at=now,
        expires_at=expires_at,
        description=description,
    )
    return NewKey(Secret(f"{KEY_PREFIX}{key_id}_{secret}"), row)


def _random(size: int) -> str:
    return b32encode(secrets.token_bytes(size)).decode().rstrip("=").lower()


def _hashed(secret: str) -> str:
    """Return the SHA-256: of 160 random bits nobody finds the other half, so nothing slower is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


class ApiKeys:
    """`Authenticator` of API keys: as a password beside the owner's name, or as a Bearer token."""

    def __init__(self, store: AccountStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return the key's owner, limited to what the key is good for."""
        text = (credentials.token if isinstance(credentials, Bearer) else credentials.password).reveal()
        parts = _KEY.fullmatch(text)
        if parts is None:
            return None
        key = await self._store.find_key(parts[1])
        if key is None or not hmac.compare_digest(key.secret_hash, _hashed(parts[2])):
            return None
        if key.expires_at is not None and key.expires_at <= self._clock.now():
            return None
        if isinstance(credentials, Password) and credentials.username != key.owner.name:
            return None  # the log must not tell of somebody else than policies decided on
        return Caller(key.owner, scope=key.scope, via=f"key {key.key_id}", expires_at=key.expires_at)


class Accounts:
    """`Authenticator` of users and robot accounts with a password."""

    def __init__(self, store: AccountStore, passwords: Passwords) -> None:
        self._store = store
        self._passwords = passwords

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return who it is, in the groups they are in now."""
        if not isinstance(credentials, Password):
            return None
        account = await self._store.find_account(credentials.username)
        if account is None or account.password_hash is None:
            return None
        if await self._passwords.matches(account.password_hash.reveal(), credentials):
            return Caller(account.principal, via="account")
        return None

    async def waste(self, credentials: Credentials) -> None:
        """Take as long as a wrong password does for a name that has none here."""
        if not isinstance(credentials, Password):
            return
        account = await self._store.find_account(credentials.username)
        if account is None or account.password_hash is None:
            await self._passwords.waste(_nobodys_hash(), credentials)


@cache
def _nobodys_hash() -> str:
    """Return a hash that takes as long as everybody's; made when it is first needed."""
    return hash_password(secrets.token_urlsafe())


if TYPE_CHECKING:
    _: type[Authenticator] = Accounts
    __: type[Authenticator] = ApiKeys
    ___: type[TakesItsTime] = Accounts
