"""Our own users, robot accounts and API keys: read from the database with the request (design decision 3)."""

import hmac
import secrets
from functools import cache, partial
from typing import TYPE_CHECKING

from roadstead.auth.api_keys import hashed, parse_key
from roadstead.auth.caller import Caller
from roadstead.auth.credentials import Bearer, Credentials, Password
from roadstead.auth.passwords import Passwords, hash_password
from roadstead.auth.ports import NOT_MINE, AccountStore, ApiKey, Authenticator, Judges, TakesItsTime, Verdict
from roadstead.clock import Clock


class ApiKeys:
    """`Authenticator` of API keys: as a password beside the owner's name, or as a Bearer token."""

    def __init__(self, store: AccountStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return the key's owner, limited to what the key is good for."""
        return (await self.judge(credentials)).caller

    async def judge(self, credentials: Credentials) -> Verdict:
        """Return the key's owner, and that it goes by the key's row with its owner's."""
        text = (credentials.token if isinstance(credentials, Bearer) else credentials.password).reveal()
        parts = parse_key(text)
        if parts is None:
            return NOT_MINE
        read = partial(self._good, parts[0])
        key = await read()
        if key is None or not hmac.compare_digest(key.secret_hash, hashed(parts[1])):
            return Verdict(None, read, key)
        if isinstance(credentials, Password) and credentials.username != key.owner.name:
            return Verdict(None, read, key)  # the log must not tell of somebody else than policies decided on
        caller = Caller(key.owner, scope=key.scope, via=f"key {key.key_id}", expires_at=key.expires_at)
        return Verdict(caller, read, key)

    async def _good(self, key_id: str) -> ApiKey | None:
        """Return the key of that id, unless it has ended."""
        key = await self._store.find_key(key_id)
        if key is not None and key.expires_at is not None and key.expires_at <= self._clock.now():
            return None
        return key


class Accounts:
    """`Authenticator` of users and robot accounts with a password."""

    def __init__(self, store: AccountStore, passwords: Passwords) -> None:
        self._store = store
        self._passwords = passwords

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return who it is, in the groups they are in now."""
        return (await self.judge(credentials)).caller

    async def judge(self, credentials: Credentials) -> Verdict:
        """Return who it is, and that it goes by the account's row."""
        if not isinstance(credentials, Password):
            return NOT_MINE
        read = partial(self._store.find_account, credentials.username)
        account = await read()
        if account is None or account.password_hash is None:
            return Verdict(None, read, account)
        if not await self._passwords.matches(account.password_hash.reveal(), credentials):
            return Verdict(None, read, account)
        return Verdict(Caller(account.principal, via="account"), read, account)

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
    ____: tuple[type[Judges], type[Judges]] = (Accounts, ApiKeys)
