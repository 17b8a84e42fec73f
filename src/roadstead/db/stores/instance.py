"""What is made once for the whole installation (``registry.ports.InstanceStore``)."""

import secrets
from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, select

from roadstead.db.access import Access, Query, Upsert
from roadstead.db.schema import instance
from roadstead.registry.ports import InstanceStore

_SECRET_SIZE = 32

VALUE = Query(select(instance.c.value).where(instance.c.name == bindparam("name")), "name")

_MAKE = Upsert(instance, lambda insert: insert.on_conflict_do_nothing(index_elements=["name"]))


class DatabaseInstance:
    """`InstanceStore` on a database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def secret(self, name: str) -> bytes:
        """Return 32 random bytes, the same for every process."""
        row = await self._access.row(VALUE, name)
        if row is None:
            return await self._access.write(_make, name)
        return bytes(row[0])


def _make(connection: Connection, name: str) -> bytes:
    connection.execute(_MAKE.on(connection), {"name": name, "value": secrets.token_bytes(_SECRET_SIZE)})
    # Another process may have come first.
    return bytes(connection.execute(VALUE.statement, {"name": name}).scalar_one())


if TYPE_CHECKING:
    _: type[InstanceStore] = DatabaseInstance
