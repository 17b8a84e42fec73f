"""Upload sessions (``registry.ports.UploadStore``)."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Integer, bindparam, delete, select, update

from roadstead.db.access import Access, Query, Row, Step, Upsert
from roadstead.db.moments import from_micros, to_micros
from roadstead.db.schema import uploads
from roadstead.oci.digest import Algorithm, Digest
from roadstead.oci.reference import RepositoryName
from roadstead.registry.errors import UploadBusyError, UploadUnknownError
from roadstead.registry.ports import UploadRecord, UploadState, UploadStore
from roadstead.storage.ports import Staged

_HELD = "held"
"""In place of the driver's words where the row holds the bytes: they are in ``hash_state``, from which, too, a digest
can go on. That column is emptied with the end of the session in any case."""

_COLUMNS = (
    uploads.c.upload_id,
    uploads.c.repository,
    uploads.c.state,
    uploads.c.staged_size,
    uploads.c.staged_state,
    uploads.c.algorithm,
    uploads.c.digest_so_far,
    uploads.c.hash_state,
    uploads.c.committed,
    uploads.c.version,
    uploads.c.started_at,
)

FIND = Query(select(*_COLUMNS).where(uploads.c.upload_id == bindparam("upload_id")), "upload_id")
ABANDONED = Query(
    select(*_COLUMNS)
    .where(uploads.c.state == bindparam("state"), uploads.c.started_at < bindparam("started_before"))
    .order_by(uploads.c.started_at)
    .limit(bindparam("limit", type_=Integer)),
    "state",
    "started_before",
    "limit",
)

_HOLD = select(uploads.c.state, uploads.c.version, uploads.c.committed).where(
    uploads.c.upload_id == bindparam("upload_id")
).with_for_update()  # fmt: skip
_INSERT = Step(
    Upsert(
        uploads, lambda insert: insert.on_conflict_do_nothing(index_elements=["upload_id"]).returning(uploads.c.version)
    )
)
# The names differ from the columns': SQLAlchemy keeps those of an UPDATE for itself.
_UPDATE = Step(
    update(uploads)
    .where(
        uploads.c.upload_id == bindparam("of"),
        uploads.c.version == bindparam("at_version"),
        uploads.c.state == UploadState.OPEN.value,
    )
    .values(version=bindparam("at_version") + 1)
)
_CANCEL = Upsert(
    uploads,
    lambda insert: insert.on_conflict_do_update(
        index_elements=["upload_id"],
        set_={
            "state": UploadState.CANCELLED.value,
            "hash_state": None,
            "version": uploads.c.version + 1,
            "touched_at": insert.excluded.touched_at,
        },
        where=uploads.c.state == UploadState.OPEN.value,
    ).returning(uploads.c.version),
)
_FORGET = delete(uploads).where(
    uploads.c.state.in_([UploadState.COMMITTED.value, UploadState.CANCELLED.value]),
    uploads.c.touched_at < bindparam("touched_before"),
)


class DatabaseUploads:
    """`UploadStore` on a database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def find(self, upload_id: str) -> UploadRecord | None:
        """Return the session's row, in whatever state."""
        row = await self._access.row(FIND, upload_id)
        return None if row is None else _record(row)

    async def advance(self, record: UploadRecord, *, now: datetime) -> bool:
        """Store the session if the row is still open and at ``record.version``."""
        return await self._access.write_cold(_advance, record, to_micros(now))

    async def cancel(self, record: UploadRecord, *, now: datetime) -> bool:
        """Mark the session cancelled; False if it was closed already."""
        return await self._access.write_cold(_cancel, record, to_micros(now))

    async def abandoned(self, *, started_before: datetime, limit: int) -> Sequence[UploadRecord]:
        """Return open sessions started before that moment, oldest first."""
        rows = await self._access.rows(ABANDONED, UploadState.OPEN.value, to_micros(started_before), limit)
        return [_record(row) for row in rows]

    async def forget_closed(self, *, touched_before: datetime) -> int:
        """Remove rows of closed sessions not touched since; return how many."""
        return await self._access.write_cold(_forget, to_micros(touched_before))


def close(connection: Connection, record: UploadRecord, committed: Digest, at: int) -> None:
    """Mark a session committed, in the transaction that makes it true.

    The same commit again changes nothing. Raises UploadUnknownError where the session was cancelled or became
    another blob, UploadBusyError where another request has written to it since.
    """
    values = _values(record, at) | {"state": UploadState.COMMITTED.value, "committed": str(committed)}
    values["hash_state"] = None  # nothing follows any more
    if _store(connection, record, values):
        return
    row = connection.execute(_HOLD, {"upload_id": record.upload_id}).first()
    if row is None or row.state == UploadState.CANCELLED:
        raise UploadUnknownError(record.repository)
    if row.state == UploadState.OPEN:
        raise UploadBusyError(record.upload_id)
    if row.committed != str(committed):
        raise UploadUnknownError(record.repository)


def _advance(connection: Connection, record: UploadRecord, at: int) -> bool:
    return _store(connection, record, _values(record, at))


def _store(connection: Connection, record: UploadRecord, values: dict[str, Any]) -> bool:
    if record.version == 0:
        return _INSERT.first(connection, values | {"version": 1}) is not None
    changed = {name: value for name, value in values.items() if name != "upload_id"}
    arguments = changed | {"of": record.upload_id, "at_version": record.version}
    return _UPDATE.count(connection, arguments) == 1


def _cancel(connection: Connection, record: UploadRecord, at: int) -> bool:
    values = _values(record, at) | {"state": UploadState.CANCELLED.value, "hash_state": None, "version": 1}
    return connection.execute(_CANCEL.on(connection), values).first() is not None


def _forget(connection: Connection, touched_before: int) -> int:
    return connection.execute(_FORGET, {"touched_before": touched_before}).rowcount


def _values(record: UploadRecord, at: int) -> dict[str, Any]:
    return {
        "upload_id": record.upload_id,
        "repository": record.repository.value,
        "state": record.state.value,
        "staged_size": record.size,
        "staged_state": _HELD if record.held else record.staged.state,
        "algorithm": record.algorithm.value,
        "digest_so_far": record.digest_so_far,
        "hash_state": record.held or record.hash_state,
        "committed": None if record.committed is None else str(record.committed),
        "started_at": to_micros(record.started_at),
        "touched_at": at,
    }


def _record(row: Row) -> UploadRecord:
    upload_id, repository, state, size, staged, algorithm, so_far, hash_state, committed, version, started_at = row
    held = bytes(hash_state) if staged == _HELD and hash_state is not None else b""
    return UploadRecord(
        upload_id=upload_id,
        repository=RepositoryName.parse(repository),
        state=UploadState(state),
        staged=Staged() if staged == _HELD else Staged(size, staged),
        held=held,
        algorithm=Algorithm(algorithm),
        digest_so_far=so_far,
        hash_state=None if held else hash_state,
        committed=None if committed is None else Digest.parse(committed),
        version=version,
        started_at=from_micros(started_at),
    )


if TYPE_CHECKING:
    _: type[UploadStore] = DatabaseUploads
