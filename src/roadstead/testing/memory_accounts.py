"""Accounts and keys in memory: what `AccountStore` promises but for the audit log, for tests that need no database."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from roadstead.acts import Asked
from roadstead.auth.ports import EVERY, Account, AccountStore, ApiKey
from roadstead.auth.principal import Principal
from roadstead.secret import Secret


class MemoryAccounts:
    """`AccountStore` in dictionaries."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._keys: dict[str, ApiKey] = {}

    async def find_account(self, name: str) -> Account | None:
        """Return the account of that name."""
        return self._accounts.get(name)

    async def put_account(
        self,
        principal: Principal,
        password_hash: Secret | None,
        *,
        replace: bool,
        now: datetime,
        asked: Asked | None = None,
    ) -> bool:
        """Store an account, or its new groups and password."""
        before = self._accounts.get(principal.name)
        if before is None:
            self._accounts[principal.name] = Account(principal, password_hash, now)
        elif replace:
            self._accounts[principal.name] = Account(
                principal, password_hash or before.password_hash, before.created_at
            )
        return before is None or replace

    async def remove_account(self, name: str, *, asked: Asked | None = None) -> bool:
        """Remove an account with its keys."""
        self._keys = {key_id: key for key_id, key in self._keys.items() if key.owner.name != name}
        return self._accounts.pop(name, None) is not None

    async def set_groups(self, name: str, groups: frozenset[str], *, asked: Asked | None = None) -> bool:
        """Put an account into these groups and no others."""
        account = self._accounts.get(name)
        if account is None:
            return False
        self._accounts[name] = replace(account, principal=replace(account.principal, groups=groups))
        return True

    async def set_disabled(self, name: str, *, disabled: bool, now: datetime, asked: Asked | None = None) -> bool:
        """Have an account count no more, or again."""
        account = self._accounts.get(name)
        if account is None:
            return False
        self._accounts[name] = replace(account, disabled=disabled)
        return True

    async def accounts(self, *, after: str = "", limit: int = EVERY) -> Sequence[Account]:
        """Return accounts by name."""
        return [self._accounts[name] for name in sorted(self._accounts) if name > after][:limit]

    async def find_key(self, key_id: str) -> ApiKey | None:
        """Return the key with its owner as that is now."""
        key = self._keys.get(key_id)
        if key is None:
            return None
        owner = self._accounts[key.owner.name]
        return replace(key, owner=owner.principal, disabled=owner.disabled)

    async def put_key(self, key: ApiKey, *, asked: Asked | None = None) -> bool:
        """Store a new key."""
        if key.owner.name not in self._accounts:
            return False
        self._keys[key.key_id] = key
        return True

    async def remove_key(self, key_id: str, *, asked: Asked | None = None) -> bool:
        """Remove a key."""
        return self._keys.pop(key_id, None) is not None

    async def keys(self, owner: str | None = None, *, after: str = "", limit: int = EVERY) -> Sequence[ApiKey]:
        """Return the keys of one account or of all."""
        behind = sorted(key_id for key_id in self._keys if key_id > after)
        found = [key for key_id in behind if (key := await self.find_key(key_id)) is not None]
        return [key for key in found if owner in (None, key.owner.name)][:limit]


_: AccountStore = MemoryAccounts()
