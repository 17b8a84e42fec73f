"""Users, robot accounts and their keys (``auth.ports.AccountStore``)."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import Connection, Integer, bindparam, delete, select, update

from roadstead.acts import ActKind, Asked
from roadstead.auth.caller import Action, RepositoryGlob, Scope
from roadstead.auth.errors import AccountVouchedError
from roadstead.auth.ports import EVERY, Account, AccountStore, ApiKey, Vouched
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.db.access import Access, Query, Row, Upsert
from roadstead.db.moments import from_micros, to_micros
from roadstead.db.schema import accounts, api_keys, container_tokens, refresh_tokens, web_sessions
from roadstead.db.stores.acts import write_act
from roadstead.secret import Secret

_STANDING = (accounts.c.issuer, accounts.c.subject, accounts.c.signed_in_at, accounts.c.disabled_at)
ACCOUNT = (
    accounts.c.name,
    accounts.c.kind,
    accounts.c.member_of,
    accounts.c.password_hash,
    accounts.c.created_at,
    *_STANDING,
)
_KEY = (
    accounts.c.name,
    accounts.c.kind,
    accounts.c.member_of,
    api_keys.c.key_id,
    api_keys.c.secret_hash,
    api_keys.c.repositories,
    api_keys.c.actions,
    api_keys.c.description,
    api_keys.c.created_at,
    api_keys.c.expires_at,
    *_STANDING,
)
_KEYS = select(*_KEY).join(accounts, accounts.c.name == api_keys.c.owner)
_KEYS_BEHIND = (
    _KEYS.where(api_keys.c.key_id > bindparam("after"))
    .order_by(api_keys.c.key_id)
    .limit(bindparam("limit", type_=Integer))
)

FIND_ACCOUNT = Query(select(*ACCOUNT).where(accounts.c.name == bindparam("name")), "name", hot=True)
ACCOUNTS = Query(
    select(*ACCOUNT)
    .where(accounts.c.name > bindparam("after"))
    .order_by(accounts.c.name)
    .limit(bindparam("limit", type_=Integer)),
    "after",
    "limit",
)
FIND_KEY = Query(_KEYS.where(api_keys.c.key_id == bindparam("key_id")), "key_id", hot=True)
KEYS_OF = Query(_KEYS_BEHIND.where(api_keys.c.owner == bindparam("owner")), "owner", "after", "limit")
ALL_KEYS = Query(_KEYS_BEHIND, "after", "limit")

_MAKE = Upsert(
    accounts, lambda insert: insert.on_conflict_do_nothing(index_elements=["name"]).returning(accounts.c.name)
)
# The names differ from the columns': SQLAlchemy keeps those of an UPDATE for itself.
_CHANGE = (
    update(accounts)
    .where(accounts.c.name == bindparam("of"))
    .values(kind=bindparam("new_kind"), member_of=bindparam("new_groups"))
)
_CHANGE_GROUPS = (
    update(accounts)
    .where(accounts.c.name == bindparam("of"))
    .values(member_of=bindparam("new_groups"))
    .returning(accounts.c.kind)
)
_CHANGE_PASSWORD = (
    update(accounts).where(accounts.c.name == bindparam("of")).values(password_hash=bindparam("new_hash"))
)
_REMOVE = delete(accounts).where(accounts.c.name == bindparam("of")).returning(accounts.c.kind)
# What was given to somebody of that name isn't the next one's who gets it.
_END_REFRESHING = delete(refresh_tokens).where(refresh_tokens.c.name == bindparam("of"))
_END_CONTAINERS = delete(container_tokens).where(
    container_tokens.c.creator_name == bindparam("of"), container_tokens.c.creator_kind == bindparam("of_kind")
)
_VOUCHED = select(accounts.c.issuer).where(accounts.c.name == bindparam("of"))
_DISABLE = (
    update(accounts)
    .where(accounts.c.name == bindparam("of"))
    .values(disabled_at=bindparam("new_moment"))
    .returning(accounts.c.kind)
)
_END_SESSIONS = delete(web_sessions).where(web_sessions.c.owner == bindparam("of"))
_OWNER = select(accounts.c.name).where(accounts.c.name == bindparam("owner")).with_for_update(read=True)
_REMOVE_KEY = delete(api_keys).where(api_keys.c.key_id == bindparam("of")).returning(api_keys.c.owner)


class DatabaseAccounts:
    """`AccountStore` on a database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def find_account(self, name: str) -> Account | None:
        """Return the account of that name."""
        row = await self._access.row(FIND_ACCOUNT, name)
        return None if row is None else account_of(row)

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
        return await self._access.write(_put, principal, password_hash, now, asked, replace=replace)

    async def remove_account(self, name: str, *, asked: Asked | None = None) -> bool:
        """Remove an account with its keys."""
        return await self._access.write(_remove, name, asked)

    async def set_groups(self, name: str, groups: frozenset[str], *, asked: Asked | None = None) -> bool:
        """Put an account into these groups and no others."""
        return await self._access.write(_set_groups, name, groups, asked)

    async def set_disabled(self, name: str, *, disabled: bool, now: datetime, asked: Asked | None = None) -> bool:
        """Have an account count no more, or again."""
        return await self._access.write(_set_disabled, name, now if disabled else None, asked)

    async def accounts(self, *, after: str = "", limit: int = EVERY) -> Sequence[Account]:
        """Return accounts by name."""
        return [account_of(row) for row in await self._access.rows(ACCOUNTS, after, limit)]

    async def find_key(self, key_id: str) -> ApiKey | None:
        """Return the key with its owner."""
        row = await self._access.row(FIND_KEY, key_id)
        return None if row is None else _key(row)

    async def put_key(self, key: ApiKey, *, asked: Asked | None = None) -> bool:
        """Store a new key."""
        return await self._access.write(_put_key, key, asked)

    async def remove_key(self, key_id: str, *, asked: Asked | None = None) -> bool:
        """Remove a key."""
        return await self._access.write(_remove_key, key_id, asked)

    async def keys(self, owner: str | None = None, *, after: str = "", limit: int = EVERY) -> Sequence[ApiKey]:
        """Return the keys of one account or of all."""
        query, whose = (ALL_KEYS, ()) if owner is None else (KEYS_OF, (owner,))
        return [_key(row) for row in await self._access.rows(query, *whose, after, limit)]


def names_in_file(path: Path) -> frozenset[str] | None:
    """Return the names of all accounts in a SQLite file, beside whoever uses it; None where they can't be read.

    Nothing is opened for writing and nothing is migrated: for commands that only look.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            return frozenset(name for (name,) in connection.execute(str(select(accounts.c.name))))
    except sqlite3.Error:
        return None


def _put(
    connection: Connection,
    principal: Principal,
    password_hash: Secret | None,
    now: datetime,
    asked: Asked | None,
    *,
    replace: bool,
) -> bool:
    hashed = None if password_hash is None else password_hash.reveal()
    groups = json.dumps(sorted(principal.groups))
    made = connection.execute(
        _MAKE.on(connection),
        {
            "name": principal.name,
            "kind": principal.kind.value,
            "password_hash": hashed,
            "member_of": groups,
            "created_at": to_micros(now),
        },
    ).first()
    if made is None:
        if not replace:
            return False
        _only_ours(connection, principal.name)
    kind = ActKind.USER_CHANGE if made is None else ActKind.USER_ADD
    write_act(connection, asked, kind, str(principal), _said(principal, has_password=hashed is not None))
    if made is not None:
        return True
    changed: dict[str, Any] = {"of": principal.name, "new_kind": principal.kind.value, "new_groups": groups}
    connection.execute(_CHANGE, changed)
    if hashed is not None:
        connection.execute(_CHANGE_PASSWORD, {"of": principal.name, "new_hash": hashed})
        connection.execute(_END_REFRESHING, {"of": principal.name})
    return True


def _only_ours(connection: Connection, name: str) -> None:
    """Raise AccountVouchedError where an issuer says who that is."""
    issuer = connection.execute(_VOUCHED, {"of": name}).scalar()
    if issuer is not None:
        raise AccountVouchedError(name, issuer)


def _set_groups(connection: Connection, name: str, groups: frozenset[str], asked: Asked | None) -> bool:
    _only_ours(connection, name)
    changed = {"of": name, "new_groups": json.dumps(sorted(groups))}
    kind = connection.execute(_CHANGE_GROUPS, changed).scalar()
    if kind is None:
        return False
    principal = Principal(PrincipalKind(kind), name, groups)
    write_act(connection, asked, ActKind.USER_CHANGE, str(principal), _said(principal, has_password=False))
    return True


def _said(principal: Principal, *, has_password: bool) -> str:
    groups = ", ".join(sorted(principal.groups)) or "none"
    return f"groups: {groups}" + ("; with a password" if has_password else "")


def _remove(connection: Connection, name: str, asked: Asked | None) -> bool:
    kind = connection.execute(_REMOVE, {"of": name}).scalar()
    if kind is None:
        return False
    connection.execute(_END_REFRESHING, {"of": name})
    connection.execute(_END_CONTAINERS, {"of": name, "of_kind": kind})
    write_act(connection, asked, ActKind.USER_REMOVE, f"{kind}:{name}")
    return True


def _set_disabled(connection: Connection, name: str, moment: datetime | None, asked: Asked | None) -> bool:
    new = None if moment is None else to_micros(moment)
    kind = connection.execute(_DISABLE, {"of": name, "new_moment": new}).scalar()
    if kind is None:
        return False
    if moment is not None:
        connection.execute(_END_SESSIONS, {"of": name})
    write_act(connection, asked, ActKind.USER_ENABLE if moment is None else ActKind.USER_DISABLE, f"{kind}:{name}")
    return True


def _put_key(connection: Connection, key: ApiKey, asked: Asked | None) -> bool:
    if connection.execute(_OWNER, {"owner": key.owner.name}).first() is None:
        return False
    good_for = f"{','.join(sorted(key.scope.actions))} on {' '.join(map(str, key.scope.repositories))}"
    until = "for ever" if key.expires_at is None else f"until {key.expires_at:%Y-%m-%d %H:%M}"
    write_act(connection, asked, ActKind.KEY_CREATE, f"{key.key_id} of {key.owner}", f"{good_for}, {until}")
    connection.execute(
        api_keys.insert(),
        {
            "key_id": key.key_id,
            "owner": key.owner.name,
            "secret_hash": key.secret_hash,
            "repositories": json.dumps([str(glob) for glob in key.scope.repositories]),
            "actions": json.dumps(sorted(key.scope.actions)),
            "description": key.description,
            "created_at": to_micros(key.created_at),
            "expires_at": None if key.expires_at is None else to_micros(key.expires_at),
        },
    )
    return True


def _remove_key(connection: Connection, key_id: str, asked: Asked | None) -> bool:
    owner = connection.execute(_REMOVE_KEY, {"of": key_id}).scalar()
    if owner is None:
        return False
    write_act(connection, asked, ActKind.KEY_REVOKE, f"{key_id} of {owner}")
    return True


# The row is read with every request; what follows from it is remembered, being arithmetic (decision 0023). The same row
# gives the same object, by which it is known that nothing has changed (`auth.recognised`).
_REMEMBERED = 4096


@lru_cache(maxsize=1024)
def principal_of(name: str, kind: str, member_of: str) -> Principal:
    return Principal(PrincipalKind(kind), name, frozenset(json.loads(member_of)))


@lru_cache(maxsize=1024)
def _scope(repositories: str, actions: str) -> Scope:
    return Scope(
        tuple(RepositoryGlob(text) for text in json.loads(repositories)),
        frozenset(Action(text) for text in json.loads(actions)),
    )


def account_of(row: Row) -> Account:
    """Return the account of a row of `ACCOUNT`."""
    return _account_of(*row)


@lru_cache(maxsize=_REMEMBERED)
def _account_of(
    name: str,
    kind: str,
    member_of: str,
    hashed: str | None,
    created_at: int,
    *standing: Any,  # the columns of `_STANDING`
) -> Account:
    vouched, disabled = _standing(*standing)
    return Account(principal_of(name, kind, member_of), None if hashed is None else Secret(hashed),
                   from_micros(created_at), vouched, disabled)  # fmt: skip


def _standing(
    issuer: str | None, subject: str | None, signed_in_at: int | None, disabled_at: int | None
) -> tuple[Vouched | None, bool]:
    if issuer is None or subject is None or signed_in_at is None:
        return None, disabled_at is not None
    return Vouched(issuer, subject, from_micros(signed_in_at)), disabled_at is not None


def _key(row: Row) -> ApiKey:
    return _key_of(*row)


@lru_cache(maxsize=_REMEMBERED)
def _key_of(
    name: str,
    kind: str,
    member_of: str,
    key_id: str,
    secret_hash: str,
    repositories: str,
    actions: str,
    description: str,
    created_at: int,
    expires_at: int | None,
    *standing: Any,  # the columns of `_STANDING`
) -> ApiKey:
    vouched, disabled = _standing(*standing)
    return ApiKey(
        key_id=key_id,
        owner=principal_of(name, kind, member_of),
        scope=_scope(repositories, actions),
        secret_hash=secret_hash,
        created_at=from_micros(created_at),
        expires_at=None if expires_at is None else from_micros(expires_at),
        description=description,
        vouched=vouched,
        disabled=disabled,
    )


if TYPE_CHECKING:
    _: type[AccountStore] = DatabaseAccounts
