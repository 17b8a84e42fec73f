"""Limits on what repositories hold: what is let in by one process, whatever comes at once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.oci.pattern import Pattern
from roadstead.oci.reference import RepositoryName
from roadstead.registry.quotas import OpenUpload, Quota, QuotaExceededError, Quotas
from roadstead.testing.clock import FrozenClock

APP = RepositoryName.parse("team/app")
LIMIT = 100


class Rows:
    """`UsageStore` of one repository, whose answers come a while after they were true."""

    def __init__(self) -> None:
        self.held = 0
        self.uploads: dict[str, int] = {}

    async def bytes_by_repository(self, beginning: str) -> Sequence[tuple[RepositoryName, int]]:
        found = [(APP, self.held)]
        await asyncio.sleep(0)
        return found

    async def bytes_of(self, repository: RepositoryName) -> int:
        return self.held

    async def open_uploads(self, beginning: str, since: datetime) -> Sequence[OpenUpload]:
        found = [OpenUpload(upload_id, APP, size) for upload_id, size in self.uploads.items()]
        await asyncio.sleep(0)
        return found


class Pieces:
    """A body."""

    def __init__(self, sizes: Sequence[int], *, announced: bool) -> None:
        self.announced = sum(sizes) if announced else None
        self._sizes = sizes

    async def chunks(self) -> AsyncIterator[bytes]:
        for size in self._sizes:
            await asyncio.sleep(0)
            yield b"x" * size


def quotas(rows: Rows) -> Quotas:
    return Quotas([Quota(Pattern.parse("team/**"), LIMIT)], rows, FrozenClock(datetime(2026, 3, 1, tzinfo=UTC)))


async def push(watching: Quotas, rows: Rows, body: Pieces) -> bool:
    """Take a whole blob in; say whether there was room."""
    try:
        async with watching.room(APP, body.announced) as room:
            received = 0
            async for piece in room.body(body).chunks():
                received += len(piece)
            await asyncio.sleep(0)
            rows.held += received
    except QuotaExceededError:
        return False
    return True


bodies = st.lists(st.tuples(st.lists(st.integers(1, 60), min_size=1, max_size=3), st.booleans()), max_size=8)


@settings(max_examples=50)  # each refusal waits a moment
@given(st.integers(0, LIMIT), bodies)
async def test_no_more_is_let_in_than_fits(held: int, wanted: list[tuple[list[int], bool]]) -> None:
    """At once, and one after the other until the end; and what fits alone is let in once nothing else comes."""
    rows = Rows()
    rows.held = held
    watching = quotas(rows)

    await asyncio.gather(*(push(watching, rows, Pieces(sizes, announced=said)) for sizes, said in wanted))
    assert rows.held <= LIMIT
    for sizes, said in wanted:
        fits = rows.held + sum(sizes) <= LIMIT
        assert await push(watching, rows, Pieces(sizes, announced=said)) is fits

    rows.held = 0  # everything is deleted
    assert await push(watching, rows, Pieces([LIMIT], announced=True))


async def test_a_session_counts_once() -> None:
    """Its bytes of before are either the rows' or the request's; others' are others'."""
    rows = Rows()
    rows.uploads = {"mine": 40, "theirs": 30}
    watching = quotas(rows)

    async with watching.room(APP, 30, upload_id="mine", before=40, completes=False) as room:
        room.received = 30
    with pytest.raises(QuotaExceededError):
        async with watching.room(APP, 31, upload_id="mine", before=40):
            pass


async def test_other_repositories_are_let_in() -> None:
    """Nobody asks what they hold."""
    async with quotas(Rows()).room(RepositoryName.parse("library/x"), 10 * LIMIT) as room:
        body = Pieces([10 * LIMIT], announced=True)
        assert room.body(body) is body
