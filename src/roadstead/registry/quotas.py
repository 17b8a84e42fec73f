"""How much repositories may hold: limits on bytes, seen to while uploads come in (``[[registry.quotas]]``).

What counts is what repositories hold, what open upload sessions have lately taken in, and what is on its way in: for
that room is kept until it is in its place or has come to nothing. The first two are sums over rows, so they aren't
asked for with every request: a sum is good for a while, less long where little room is left, and what this process has
let in since is added to it. Nobody is refused on an old sum, since something may have been deleted; what several
processes take in at the same time may go a little beyond.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import Final, Protocol

from roadstead.clock import Clock
from roadstead.errors import DeniedError
from roadstead.oci.pattern import Pattern
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.pump import Body

GOOD_FOR_S: Final = 30.0
"""How long a sum is relied on for letting uploads in."""

SOON_OLD_S: Final = 1.0
"""The same where less than a tenth of the limit is left."""

LATELY: Final = timedelta(hours=1)
"""What a session took in counts for so long, or until it ends: clients leave sessions behind when a push breaks off."""

_A_MOMENT_S: Final = 0.05
_TRIES: Final = 5

_ANY_TAG = Tag("x")  # a pattern of repositories has no tag part


class QuotaExceededError(DeniedError):
    """The repositories under a limit would hold more than it allows (DENIED, 403: clients don't try again)."""

    def __init__(self, quota: "Quota", used: int) -> None:
        super().__init__(
            f"repositories {quota.repositories} may hold {quota.max_bytes} bytes and hold {used}: this would be more"
        )
        self.quota = quota
        self.used = used

    def advice(self) -> str:
        """Return what makes room."""
        return "delete tags and manifests, have garbage collected, or raise the limit in registry.quotas"


@dataclass(frozen=True, slots=True)
class Quota:
    """So many bytes for all repositories together that fit a pattern; a blob counts in each that holds it."""

    repositories: Pattern
    max_bytes: int

    def covers(self, repository: RepositoryName) -> bool:
        """Say whether what the repository holds counts."""
        return self.repositories.matches(repository, _ANY_TAG)


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """A session that isn't through, and the bytes that it has."""

    upload_id: str
    repository: RepositoryName
    size: int


class UsageStore(Protocol):
    """Knows how much repositories hold."""

    async def bytes_by_repository(self, beginning: str) -> Sequence[tuple[RepositoryName, int]]:
        """Return the bytes of the blobs of each repository that has some and whose name begins so."""
        ...

    async def bytes_of(self, repository: RepositoryName) -> int:
        """Return the bytes of one repository's blobs; 0 for one that has none, or that isn't there."""
        ...

    async def open_uploads(self, beginning: str, since: datetime) -> Sequence[OpenUpload]:
        """Return the open sessions of repositories whose name begins so that have taken something in since."""
        ...


@dataclass(slots=True)
class _Sum:
    """What counts against a quota: what there was at a moment, with what came in since, and what room is kept for."""

    held: int = 0
    uploads: dict[str, int] = field(default_factory=dict)  # bytes of open sessions, by their ids
    kept: int = 0
    came: int = 0  # bytes that this process has let in
    changes: int = 0
    at: float = float("-inf")
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def without(self, upload_id: str) -> int:
        """Return what counts but for one session."""
        return self.held + sum(self.uploads.values()) - self.uploads.get(upload_id, 0) + self.kept


class Quotas:
    """Watches over uploads of one process."""

    def __init__(self, quotas: Sequence[Quota], store: UsageStore, clock: Clock) -> None:
        self._sums = [(quota, _Sum()) for quota in quotas]
        self._store = store
        self._clock = clock

    def covers(self, repository: RepositoryName) -> bool:
        """Say whether there is a limit on what this repository holds."""
        return any(quota.covers(repository) for quota, _ in self._sums)

    @asynccontextmanager
    async def room(
        self,
        repository: RepositoryName,
        announced: int | None,
        *,
        upload_id: str = "",
        before: int = 0,
        completes: bool = True,
    ) -> AsyncGenerator["Room", None]:
        """Keep room for what comes in, against every limit that covers the repository, until the end of the block.

        `before` bytes came earlier in the session `upload_id`. `completes`: they are the repository's then, else the
        session's still. Raises QuotaExceededError at once where the announced size is too much, else `Room.body` does
        when too much has come.
        """
        room = Room(self, [pair for pair in self._sums if pair[0].covers(repository)], upload_id, before)
        try:
            await room.keep(announced or 0)
            yield room
            room.settle(completes=completes)
        finally:
            room.release()

    async def check_room(self, repository: RepositoryName) -> None:
        """Raise QuotaExceededError where there is no room for even a byte: a client hears it before it sends."""
        for quota, there in self._sums:
            if quota.covers(repository):
                await self.check(quota, there, 1)

    async def check(self, quota: Quota, there: _Sum, more: int, upload_id: str = "") -> None:
        """Raise QuotaExceededError if so many bytes more don't fit; none of the session's own count."""
        limit = quota.max_bytes - more
        good_for_s = GOOD_FOR_S if there.without(upload_id) <= limit - quota.max_bytes // 10 else SOON_OLD_S
        if monotonic() - there.at > good_for_s or there.without(upload_id) > limit:
            await self._ask(quota, there)
        if there.without(upload_id) > limit and there.kept:
            # What has just got to its place may be counted there, and still have room kept for it.
            await asyncio.sleep(_A_MOMENT_S)
            await self._ask(quota, there)
        if there.without(upload_id) > limit:
            raise QuotaExceededError(quota, there.held + sum(there.uploads.values()))

    async def _ask(self, quota: Quota, there: _Sum) -> None:
        begun = monotonic()
        async with there.asking:
            if there.at > begun:
                return  # somebody else has asked meanwhile
            beginning = str(quota.repositories).partition("*")[0]
            for _ in range(_TRIES):
                at, came, changes = monotonic(), there.came, there.changes
                found = await self._store.bytes_by_repository(beginning)
                uploads = await self._store.open_uploads(beginning, self._clock.now() - LATELY)
                if there.changes == changes:
                    break
            # What got to its place while we asked is in the answer, or not: where it won't stop, it counts twice.
            there.held = sum(size for repository, size in found if quota.covers(repository)) + there.came - came
            there.uploads = {upload.upload_id: upload.size for upload in uploads if quota.covers(upload.repository)}
            there.at = at


class Room:
    """Room that is kept for one request."""

    def __init__(self, quotas: Quotas, sums: Sequence[tuple[Quota, _Sum]], upload_id: str, before: int) -> None:
        self.received = 0
        self._quotas = quotas
        self._sums = sums
        self._upload_id = upload_id
        self._before = before
        self._kept = [0] * len(sums)

    async def keep(self, more: int) -> None:
        """Keep room for so many bytes more; raises QuotaExceededError where they don't fit."""
        for at, (quota, there) in enumerate(self._sums):
            await self._quotas.check(quota, there, self._before + more, self._upload_id)
            there.kept += more  # nothing has been waited for since
            self._kept[at] += more

    def body(self, body: Body) -> Body:
        """Return the body, counted; it ends with an error when it has become too much."""
        return _CountedBody(body, self) if self._sums else body

    def settle(self, *, completes: bool) -> None:
        """Count what has come where it is now."""
        size = self._before + self.received
        for _, there in self._sums:
            there.changes += 1
            there.uploads.pop(self._upload_id, None)
            if completes:
                there.held += size
                there.came += size
            elif size:
                there.uploads[self._upload_id] = size

    def release(self) -> None:
        """Keep nothing any more."""
        for kept, (_, there) in zip(self._kept, self._sums, strict=True):
            there.kept -= kept


class _CountedBody:
    """A body that room is kept for as it comes."""

    def __init__(self, body: Body, room: Room) -> None:
        self._body = body
        self._room = room

    @property
    def announced(self) -> int | None:
        """Bytes announced by Content-Length."""
        return self._body.announced

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes as they come."""
        return self._counted()

    async def _counted(self) -> AsyncGenerator[bytes, None]:
        async for piece in self._body.chunks():
            if self._body.announced is None:  # else it was seen to before the first byte
                await self._room.keep(len(piece))
            self._room.received += len(piece)
            yield piece
