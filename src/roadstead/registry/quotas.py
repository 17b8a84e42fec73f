"""How much repositories may hold: limits on bytes, seen to while uploads come in (``[[registry.quotas]]``).

What repositories hold is a sum over their blobs, so it isn't asked for with every request: a sum is good for a while,
and what this process has let in since is added to it. Nobody is refused on an old sum, since something may have been
deleted; a few uploads at once in several processes may go a little beyond.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from roadstead.errors import DeniedError
from roadstead.oci.pattern import Pattern
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.pump import Body

GOOD_FOR_S = 30.0
"""How long a sum is relied on for letting uploads in."""

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


class UsageStore(Protocol):
    """Knows how much repositories hold."""

    async def bytes_by_repository(self, beginning: str) -> Sequence[tuple[RepositoryName, int]]:
        """Return the bytes of the blobs of each repository that has some and whose name begins so."""
        ...

    async def bytes_of(self, repository: RepositoryName) -> int:
        """Return the bytes of one repository's blobs; 0 for one that has none, or that isn't there."""
        ...


@dataclass(slots=True)
class _Sum:
    """What the repositories of a quota held at a moment, and what came in since."""

    used: int = 0
    at: float = float("-inf")
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Quotas:
    """Watches over uploads of one process."""

    def __init__(self, quotas: Sequence[Quota], store: UsageStore) -> None:
        self._sums = [(quota, _Sum()) for quota in quotas]
        self._store = store

    async def admit(self, repository: RepositoryName, body: Body, *, before: int = 0) -> Body:
        """Return the body, counted against every limit that covers the repository.

        `before` bytes of the same blob came earlier. Raises QuotaExceededError at once where the announced size is
        too much, else from `chunks` when too much has come.
        """
        sums = [(quota, held) for quota, held in self._sums if quota.covers(repository)]
        for quota, held in sums:
            await self._check(quota, held, before + (body.announced or 0))
        return _CountedBody(body, self, sums, before) if sums else body

    async def check_room(self, repository: RepositoryName) -> None:
        """Raise QuotaExceededError where there is no room for even a byte: a client hears it before it sends."""
        for quota, held in self._sums:
            if quota.covers(repository):
                await self._check(quota, held, 1)

    async def check_more(self, sums: Sequence[tuple[Quota, _Sum]], size: int) -> None:
        """Raise QuotaExceededError if so many bytes more don't fit."""
        for quota, held in sums:
            await self._check(quota, held, size)

    async def _check(self, quota: Quota, held: _Sum, more: int) -> None:
        if monotonic() - held.at > GOOD_FOR_S or held.used + more > quota.max_bytes:
            await self._ask(quota, held)
        if held.used + more > quota.max_bytes:
            raise QuotaExceededError(quota, held.used)

    async def _ask(self, quota: Quota, held: _Sum) -> None:
        async with held.asking:
            beginning = str(quota.repositories).partition("*")[0]
            found = await self._store.bytes_by_repository(beginning)
            held.used = sum(size for repository, size in found if quota.covers(repository))
            held.at = monotonic()


class _CountedBody:
    """A body that ends with an error when it has become too much."""

    def __init__(self, body: Body, quotas: Quotas, sums: Sequence[tuple[Quota, _Sum]], before: int) -> None:
        self._body = body
        self._quotas = quotas
        self._sums = sums
        self._before = before

    @property
    def announced(self) -> int | None:
        """Bytes announced by Content-Length."""
        return self._body.announced

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes as they come."""
        return self._counted()

    async def _counted(self) -> AsyncGenerator[bytes, None]:
        received = 0
        async for piece in self._body.chunks():
            received += len(piece)
            if self._body.announced is None:  # else it was seen to before the first byte
                await self._quotas.check_more(self._sums, self._before + received)
            yield piece
        for _, held in self._sums:
            held.used += received
