"""Leases (``lease.LeaseStore``): a row each, moved by compare-and-set."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, or_, update

from roadstead.db.access import Access, Upsert
from roadstead.db.moments import from_micros, to_micros
from roadstead.db.schema import leases
from roadstead.lease import Lease, LeaseStore

_ACQUIRE = Upsert(
    leases,
    lambda insert: insert.on_conflict_do_update(
        index_elements=["name"],
        set_={
            "owner": insert.excluded.owner,
            "token": leases.c.token + 1,
            "expires_at": insert.excluded.expires_at,
        },
        where=or_(leases.c.expires_at <= bindparam("now"), leases.c.owner == insert.excluded.owner),
    ).returning(leases.c.token),
)
_HELD = update(leases).where(
    leases.c.name == bindparam("held"), leases.c.owner == bindparam("holder"), leases.c.token == bindparam("under")
)
_RENEW = _HELD.where(leases.c.expires_at > bindparam("now")).values(expires_at=bindparam("until"))
# The row stays, so that the next token is higher.
_RELEASE = _HELD.values(expires_at=0)


class DatabaseLeases:
    """`LeaseStore` on a database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def acquire(self, name: str, owner: str, lifetime: timedelta, now: datetime) -> Lease | None:
        """Take the lease if it is free, expired or the owner's already."""
        return await self._access.write_cold(_acquire, name, owner, to_micros(now), to_micros(now + lifetime))

    async def renew(self, lease: Lease, lifetime: timedelta, now: datetime) -> Lease | None:
        """Extend the lease; None if it expired or went to another."""
        return await self._access.write_cold(_renew, lease, to_micros(now), to_micros(now + lifetime))

    async def release(self, lease: Lease) -> None:
        """Give the lease back."""
        await self._access.write_cold(_release, lease)


def _acquire(connection: Connection, name: str, owner: str, now: int, until: int) -> Lease | None:
    row = {"name": name, "owner": owner, "token": 1, "expires_at": until, "now": now}
    token = connection.execute(_ACQUIRE.on(connection), row).scalar_one_or_none()
    return None if token is None else Lease(name, owner, token, from_micros(until))


def _renew(connection: Connection, lease: Lease, now: int, until: int) -> Lease | None:
    renewed = connection.execute(_RENEW, _key(lease) | {"now": now, "until": until}).rowcount == 1
    return Lease(lease.name, lease.owner, lease.token, from_micros(until)) if renewed else None


def _release(connection: Connection, lease: Lease) -> None:
    connection.execute(_RELEASE, _key(lease))


def _key(lease: Lease) -> dict[str, str | int]:
    return {"held": lease.name, "holder": lease.owner, "under": lease.token}


if TYPE_CHECKING:
    _: type[LeaseStore] = DatabaseLeases
