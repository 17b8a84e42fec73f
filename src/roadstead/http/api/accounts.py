"""Users, robot accounts and their keys: for administrators."""

import asyncio
from datetime import datetime
from typing import Annotated

from litestar import delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import UnsetType

from roadstead.auth.api_keys import DEFAULT_LIFETIME, is_key_id, make_key
from roadstead.auth.caller import RepositoryGlob, Scope
from roadstead.auth.names import parse_account_name
from roadstead.auth.own_keys import WantedKey
from roadstead.auth.passwords import hash_password
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.clock import SystemClock
from roadstead.http.api import wire
from roadstead.http.api.call import Call
from roadstead.http.api.documented import problems
from roadstead.http.api.errors import (
    AccountsNotKeptError,
    AccountTakenError,
    ParametersInvalidError,
    ThingUnknownError,
)
from roadstead.http.api.images import Number
from roadstead.secret import Secret

NamePath = Annotated[str, PathParameter(pattern=wire.NAME, max_length=128, description="The account's name.")]
OwnerQuery = Annotated[
    str | None, QueryParameter(pattern=wire.NAME, max_length=128, description="Of this account alone.", required=False)
]
_BEHIND = "Begin behind this one: `next` of the page before."
LastName = Annotated[str, QueryParameter(pattern=f"^$|{wire.NAME}", max_length=128, description=_BEHIND)]
LastKey = Annotated[str, QueryParameter(pattern=f"^$|{wire.KEY_ID}", max_length=16, description=_BEHIND)]
KeyPath = Annotated[str, PathParameter(pattern=wire.KEY_ID, description="The key's id.")]


@get("/users", tags=["accounts"], summary="List users", responses=problems())
async def users(call: NamedDependency[Call], last: LastName = "", n: Number = 100) -> wire.Users:
    """List users and robot accounts with their groups. Needs `admin`."""
    await call.needs_admin()
    found = await call.administration.accounts.accounts(after=last, limit=n + 1)
    knows_accounts = call.administration.knows_accounts
    shown = [wire.user(account, knows_accounts=knows_accounts) for account in found[:n]]
    return wire.Users(shown, shown[-1].name if len(found) > n else None)


@post("/users", tags=["accounts"], summary="Add or change a user", responses=problems(409, 415))
async def add_user(call: NamedDependency[Call], data: JSONBody[wire.NewUser]) -> wire.User:
    """Add a user or a robot account, or with `replace` give it other groups and another password. Needs `admin`."""
    await call.needs_admin()
    if not call.administration.keeps_accounts:
        raise AccountsNotKeptError
    if data.password is None and not data.robot and not data.replace:
        raise ParametersInvalidError("a user needs a password; a robot may do without")
    kind = PrincipalKind.ROBOT if data.robot else PrincipalKind.USER
    groups = frozenset(parse_account_name(group) for group in data.groups)
    principal = Principal(kind, parse_account_name(data.name), groups)
    hashed = None if data.password is None else Secret(await asyncio.to_thread(hash_password, data.password))
    store = call.administration.accounts
    if not await store.put_account(principal, hashed, replace=data.replace, now=SystemClock().now(), asked=call.asked):
        raise AccountTakenError(data.name)
    account = await store.find_account(data.name)
    if account is None:  # somebody else has just removed it
        raise ThingUnknownError(f"there is no account {data.name} any more")
    return wire.user(account, knows_accounts=call.administration.knows_accounts)


@delete("/users/{name:str}", tags=["accounts"], summary="Remove a user", responses=problems(404))
async def remove_user(call: NamedDependency[Call], name: NamePath) -> None:
    """Remove an account with all its keys; it counts at once. Needs `admin`."""
    await call.needs_admin()
    if not await call.administration.accounts.remove_account(parse_account_name(name), asked=call.asked):
        raise ThingUnknownError(f"there is no account {name}")


@patch("/users/{name:str}", tags=["accounts"], summary="Change a user", responses=problems(404, 409, 415))
async def change_user(call: NamedDependency[Call], name: NamePath, data: JSONBody[wire.ChangedUser]) -> wire.User:
    """Give an account other groups, or have it count no more, with its keys, tokens and sessions, or again.

    It counts at once; password and keys stay. Needs `admin`.
    """
    await call.needs_admin()
    if data.disabled is None and data.groups is None:
        raise ParametersInvalidError("nothing is to change: say disabled, or groups")
    store = call.administration.accounts
    known = parse_account_name(name)
    if data.groups is not None:
        groups = frozenset(parse_account_name(group) for group in data.groups)
        if not await store.set_groups(known, groups, asked=call.asked):
            raise ThingUnknownError(f"there is no account {name}")
    if data.disabled is not None and not await store.set_disabled(
        known, disabled=data.disabled, now=SystemClock().now(), asked=call.asked
    ):
        raise ThingUnknownError(f"there is no account {name}")
    account = await store.find_account(known)
    if account is None:  # somebody else has just removed it
        raise ThingUnknownError(f"there is no account {name} any more")
    return wire.user(account, knows_accounts=call.administration.knows_accounts)


@get("/keys", tags=["accounts"], summary="List keys", responses=problems())
async def keys(call: NamedDependency[Call], owner: OwnerQuery = None, last: LastKey = "", n: Number = 100) -> wire.Keys:
    """List keys and what each is good for, never the keys themselves.

    Whoever has signed in by a browser or a password, and not with a key, is shown their own. Others' needs `admin`.
    """
    caller = await call.in_person()
    if caller is not None and owner in (None, caller.principal.name) and not call.may_administer():
        call.admit_user()
        owner = caller.principal.name
    else:
        await call.needs_admin()
    found = await call.administration.accounts.keys(owner, after=last, limit=n + 1)
    shown = [wire.key(key) for key in found[:n]]
    return wire.Keys(shown, shown[-1].id if len(found) > n else None)


@post("/keys", tags=["accounts"], summary="Create a key", responses=problems(404, 409, 415))
async def create_key(call: NamedDependency[Call], data: JSONBody[wire.NewKey]) -> wire.MadeKey:
    """Make a key and show it, once.

    Whoever has signed in by a browser or a password, and not with a key, makes one for themselves; it is good for no
    more than they may. For others it needs `admin`.
    """
    globs = tuple(RepositoryGlob.parse(text) for text in data.repositories)
    caller = await call.in_person()
    if caller is not None and data.owner in (None, caller.principal.name):
        call.admit_user()
        if data.expires_at is None and not call.may_administer():
            raise ParametersInvalidError("expires_at is null: only an administrator makes keys that never end")
        wanted = WantedKey(globs, frozenset(data.actions), _end_of(data), data.description)
        own = await call.own_keys.make(caller, wanted, call.asked)
        return wire.MadeKey(own.text.reveal(), wire.key(own.row))
    await call.needs_admin()
    if data.owner is None:
        raise ParametersInvalidError("owner is missing: whose key is it to be?")
    store = call.administration.accounts
    account = await store.find_account(data.owner)
    if account is None:
        raise ThingUnknownError(f"there is no account {data.owner}")
    made = make_key(
        account.principal,
        Scope(globs, frozenset(data.actions)),
        now=SystemClock().now(),
        expires_at=_end_of(data),
        description=data.description.replace("\0", ""),
    )
    if not await store.put_key(made.row, asked=call.asked):
        raise ThingUnknownError(f"there is no account {data.owner} any more")
    return wire.MadeKey(made.text.reveal(), wire.key(made.row))


def _end_of(data: wire.NewKey) -> datetime | None:
    """Return when a key is to end: 90 days from now where nothing is said, never where null is."""
    now = SystemClock().now()
    if isinstance(data.expires_at, UnsetType):
        return now + DEFAULT_LIFETIME
    ends = wire.aware(data.expires_at)
    if ends is not None and ends <= now:
        raise ParametersInvalidError(f"expires_at is {ends.isoformat()}, which is over already")
    return ends


@delete("/keys/{key_id:str}", tags=["accounts"], summary="Revoke a key", responses=problems(404))
async def revoke_key(call: NamedDependency[Call], key_id: KeyPath) -> None:
    """Revoke a key; it counts at once, in every worker and replica. One of somebody else needs `admin`."""
    caller = await call.in_person()
    if caller is not None and not call.may_administer():
        call.admit_user()
        await call.own_keys.revoke(caller, key_id, call.asked)
        return
    await call.needs_admin()
    if not is_key_id(key_id) or not await call.administration.accounts.remove_key(key_id, asked=call.asked):
        raise ThingUnknownError(f"there is no key {key_id}")


HANDLERS = (users, add_user, change_user, remove_user, keys, create_key, revoke_key)
