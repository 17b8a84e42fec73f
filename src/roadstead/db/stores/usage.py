"""How much repositories hold (``registry.quotas.UsageStore``)."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, func, select

from roadstead.db.access import Access, Query
from roadstead.db.moments import to_micros
from roadstead.db.schema import blobs, repositories, repository_blobs, uploads
from roadstead.oci.reference import RepositoryName
from roadstead.registry.ports import UploadState
from roadstead.registry.quotas import OpenUpload, UsageStore

_BEHIND = "\x7f"  # sorts behind whatever a name is made of

BYTES = Query(
    select(repositories.c.name, func.sum(blobs.c.size))
    .join(repository_blobs, repository_blobs.c.repository_id == repositories.c.id)
    .join(blobs, blobs.c.digest == repository_blobs.c.digest)
    .where(repositories.c.name >= bindparam("first"), repositories.c.name < bindparam("behind"))
    .group_by(repositories.c.name),
    "first",
    "behind",
)
BYTES_OF = Query(
    select(func.coalesce(func.sum(blobs.c.size), 0))
    .select_from(repositories)
    .join(repository_blobs, repository_blobs.c.repository_id == repositories.c.id)
    .join(blobs, blobs.c.digest == repository_blobs.c.digest)
    .where(repositories.c.name == bindparam("name")),
    "name",
)
OPEN_UPLOADS = Query(
    select(uploads.c.upload_id, uploads.c.repository, uploads.c.staged_size).where(
        uploads.c.state == UploadState.OPEN.value,
        uploads.c.touched_at >= bindparam("since"),
        uploads.c.repository >= bindparam("first"),
        uploads.c.repository < bindparam("behind"),
    ),
    "since",
    "first",
    "behind",
)


class DatabaseUsage:
    """`UsageStore` on a database."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def bytes_by_repository(self, beginning: str) -> Sequence[tuple[RepositoryName, int]]:
        """Return the bytes of the blobs of each repository whose name begins so."""
        rows = await self._access.rows(BYTES, beginning, beginning + _BEHIND)
        return [(RepositoryName.parse(name), int(size)) for name, size in rows]

    async def bytes_of(self, repository: RepositoryName) -> int:
        """Return the bytes of the repository's blobs."""
        row = await self._access.row(BYTES_OF, repository.value)
        return 0 if row is None else int(row[0])

    async def open_uploads(self, beginning: str, since: datetime) -> Sequence[OpenUpload]:
        """Return the open sessions of repositories whose name begins so that have taken something in since."""
        rows = await self._access.rows(OPEN_UPLOADS, to_micros(since), beginning, beginning + _BEHIND)
        return [OpenUpload(upload_id, RepositoryName.parse(name), int(size)) for upload_id, name, size in rows]


if TYPE_CHECKING:
    _: type[UsageStore] = DatabaseUsage
