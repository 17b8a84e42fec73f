"""Our own users, robot accounts and API keys: read from the database with the request (design decision 3)."""

import hmac
import secrets
from functools import cache, partial
from typing import TYPE_CHECKING

from roadstead.auth.api_keys import hashed as hash_of
from roadstead.auth.api_keys import parse_key
from roadstead.auth.caller import Caller
from roadstead.auth.credentials import Bearer, Credentials, Password
from roadstead.auth.errors import CredentialsWrongError
from roadstead.auth.passwords import Passwords, hash_password
from roadstead.auth.ports import NOT_MINE, AccountStore, ApiKey, Authenticator, Judges, TakesItsTime, Verdict
from roadstead.auth.proof import Proof, ProofKind
from roadstead.auth.standing import Standing
from roadstead.clock import Clock


class OwnerOutError(CredentialsWrongError):
    """A key is right, and its owner doesn't count now."""


class ApiKeys:
    """`Authenticator` of API keys: as a password beside the owner's name, or as a Bearer token."""

    def __init__(self, store: AccountStore, clock: Clock, standing: Standing | None = None) -> None:
        self._store = store
        self._clock = clock
        self._standing = standing or Standing(clock)

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return the key's owner, limited to what the key is good for; OwnerOutError where they don't count now."""
        return (await self.judge(credentials)).caller

    async def judge(self, credentials: Credentials) -> Verdict:
        """Return the key's owner, and that it goes by the key's row with its owner's, and by their standing."""
        text = (credentials.token if isinstance(credentials, Bearer) else credentials.password).reveal()
        parts = parse_key(text)
        if parts is None:
            return NOT_MINE
        read = partial(self.good, parts[0])
        key = await self._lasting(parts[0])
        if key is None or not hmac.compare_digest(key.secret_hash, hash_of(parts[1])):
            # By its id a key that has leaked is found, and the machine that still comes with one that was revoked.
            return Verdict(None, read, key, because=f"the key {parts[0]} is not good here (any more)")
        if isinstance(credentials, Password) and credentials.username != key.owner.name:
            # The log must not tell of somebody else than policies decided on.
            return Verdict(None, read, key, because=f"the key {key.key_id} belongs to somebody else")
        if (reason := self._standing.objection(key)) is not None:
            # Whoever has the key may know.
            raise OwnerOutError(reason, because=f"{reason}, who the key {key.key_id} belongs to")
        proof = Proof(ProofKind.KEY, key.key_id)
        caller = Caller(key.owner, scope=key.scope, via=f"key {key.key_id}", expires_at=key.expires_at, proof=proof)
        return Verdict(caller, read, key)

    async def _lasting(self, key_id: str) -> ApiKey | None:
        """Return the key of that id, unless it has ended."""
        key = await self._store.find_key(key_id)
        return None if key is None or key.has_ended(self._clock.now()) else key

    async def good(self, key_id: str) -> ApiKey | None:
        """Return the key of that id, unless it has ended or its owner doesn't count now."""
        key = await self._lasting(key_id)
        return None if key is None or self._standing.objection(key) is not None else key


class Accounts:
    """`Authenticator` of users and robot accounts with a password."""

    def __init__(self, store: AccountStore, passwords: Passwords) -> None:
        self._store = store
        self._passwords = passwords

    async def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return who it is, in the groups they are in now."""
        return (await self.judge(credentials)).caller

    async def judge(self, credentials: Credentials) -> Verdict:
        """Return who it is, and that it goes by the account's row. One that is disabled bars its name."""
        if not isinstance(credentials, Password):
            return NOT_MINE
        read = partial(self._store.find_account, credentials.username)
        account = await read()
        if account is not None and account.disabled:
            if account.password_hash is not None:
                # As long as with a wrong password, and the same answer: this one hasn't proved who they are.
                await self._passwords.waste(account.password_hash.reveal(), credentials)
            because = f"the account {account.principal.name} is disabled"
            return Verdict(None, read, account, bars=True, because=because)
        if account is None or account.password_hash is None:
            return Verdict(None, read, account)
        hashed = account.password_hash.reveal()
        if not await self._passwords.matches(hashed, credentials):
            return Verdict(None, read, account)
        proof = Proof(ProofKind.ACCOUNT, hashed)
        return Verdict(Caller(account.principal, via="account", proof=proof), read, account)

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
