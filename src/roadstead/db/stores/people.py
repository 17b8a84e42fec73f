"""People who sign in with a browser, and their sessions (``auth.ports.PeopleStore``)."""

import json
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from roadstead.acts import ActKind, Asked
from roadstead.auth.errors import AccountDisabledError, NameTakenError, SignInSpentError
from roadstead.auth.ports import Account, Arrival, PeopleStore, WebSession
from roadstead.auth.principal import PrincipalKind
from roadstead.db.access import Access, Query, Upsert
from roadstead.db.moments import from_micros, to_micros
from roadstead.db.schema import accounts, spent_sign_ins, web_sessions
from roadstead.db.stores.accounts import ACCOUNT, account_of
from roadstead.db.stores.acts import write_act

_SESSION = (web_sessions.c.created_at, web_sessions.c.seen_at, web_sessions.c.expires_at)
FIND_SESSION = Query(
    select(*_SESSION, *ACCOUNT)
    .join(accounts, accounts.c.name == web_sessions.c.owner)
    .where(web_sessions.c.session_hash == bindparam("session_hash")),
    "session_hash",
)

_REMOVE_SPENT = delete(spent_sign_ins).where(spent_sign_ins.c.expires_at <= bindparam("now"))
_REMOVE_ENDED = delete(web_sessions).where(web_sessions.c.expires_at <= bindparam("now"))
_SPEND = Upsert(
    spent_sign_ins,
    lambda insert: insert.on_conflict_do_nothing(index_elements=["attempt_hash"]).returning(
        spent_sign_ins.c.attempt_hash
    ),
)
_MAKE = Upsert(accounts, lambda insert: insert.on_conflict_do_nothing().returning(accounts.c.name))
_KNOWN = (
    select(*ACCOUNT)
    .where(accounts.c.issuer == bindparam("issuer"), accounts.c.subject == bindparam("subject"))
    .with_for_update()
)
# The names differ from the columns': SQLAlchemy keeps those of an UPDATE for itself.
_CHANGE = (
    update(accounts)
    .where(accounts.c.name == bindparam("of"))
    .values(member_of=bindparam("new_groups"), signed_in_at=bindparam("new_moment"))
)
_TOUCH = (
    update(web_sessions).where(web_sessions.c.session_hash == bindparam("of")).values(seen_at=bindparam("new_moment"))
)
_END = delete(web_sessions).where(web_sessions.c.session_hash == bindparam("of")).returning(web_sessions.c.owner)


class DatabasePeople:
    """`PeopleStore` on a database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def sign_in(self, arrival: Arrival, *, now: datetime, client: str = "") -> Account:
        """Begin a session."""
        return await self._access.write(_sign_in, arrival, now, client)

    async def find_session(self, session_hash: str) -> WebSession | None:
        """Return a session."""
        row = await self._access.row(FIND_SESSION, session_hash)
        if row is None:
            return None
        created, seen, expires, *account = row
        return WebSession(
            session_hash, account_of(account), from_micros(created), from_micros(seen), from_micros(expires)
        )

    async def touch_session(self, session_hash: str, now: datetime) -> None:
        """Take note that it was used."""
        await self._access.write(_touch, session_hash, now)

    async def end_session(self, session_hash: str, *, asked: Asked | None = None) -> bool:
        """End a session."""
        return await self._access.write(_end, session_hash, asked)


def _sign_in(connection: Connection, arrival: Arrival, now: datetime, client: str) -> Account:
    moment = to_micros(now)
    connection.execute(_REMOVE_SPENT, {"now": moment})
    connection.execute(_REMOVE_ENDED, {"now": moment})
    spent = {"attempt_hash": arrival.attempt_hash, "expires_at": to_micros(arrival.attempt_ends_at)}
    if connection.execute(_SPEND.on(connection), spent).first() is None:
        raise SignInSpentError
    account = _of(connection, arrival, moment, client)
    if account.disabled:
        raise AccountDisabledError(account.principal.name)
    asked = Asked(str(account.principal), now, client)
    groups = ", ".join(sorted(arrival.groups)) or "none"
    write_act(connection, asked, ActKind.SIGN_IN, str(account.principal), f"at {arrival.issuer}; groups: {groups}")
    connection.execute(
        insert(web_sessions),
        {
            "session_hash": arrival.session_hash,
            "owner": account.principal.name,
            "created_at": moment,
            "seen_at": moment,
            "expires_at": to_micros(arrival.session_ends_at),
        },
    )
    return account


def _of(connection: Connection, arrival: Arrival, moment: int, client: str) -> Account:
    """Return the account of whoever arrives, as it is from now on; made where they come for the first time."""
    groups = json.dumps(sorted(arrival.groups))
    made = connection.execute(
        _MAKE.on(connection),
        {
            "name": arrival.name,
            "kind": PrincipalKind.USER.value,
            "password_hash": None,
            "member_of": groups,
            "created_at": moment,
            "issuer": arrival.issuer,
            "subject": arrival.subject,
            "signed_in_at": moment,
            "disabled_at": None,
        },
    ).first()
    whose = {"issuer": arrival.issuer, "subject": arrival.subject}
    row = connection.execute(_KNOWN, whose).first()
    if row is None:  # so it was the name that stood in the way
        raise NameTakenError(arrival.name)
    before = account_of(row)
    if made is not None:
        told = f"first signed in at {arrival.issuer}, where they are {arrival.subject}"
        asked = Asked(str(before.principal), from_micros(moment), client)
        write_act(connection, asked, ActKind.USER_ADD, str(before.principal), told)
        return before
    connection.execute(_CHANGE, {"of": before.principal.name, "new_groups": groups, "new_moment": moment})
    found = connection.execute(_KNOWN, whose).one()
    return account_of(found)


def _touch(connection: Connection, session_hash: str, now: datetime) -> None:
    connection.execute(_TOUCH, {"of": session_hash, "new_moment": to_micros(now)})


def _end(connection: Connection, session_hash: str, asked: Asked | None) -> bool:
    owner = connection.execute(_END, {"of": session_hash}).scalar()
    if owner is None:
        return False
    write_act(connection, asked, ActKind.SIGN_OUT, f"user:{owner}")
    return True


if TYPE_CHECKING:
    _: type[PeopleStore] = DatabasePeople
