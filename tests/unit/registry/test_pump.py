"""A body on its way to storage: large pieces, two in memory at the most, nothing lost."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.registry.pump import BodyBrokenError, begin, pump


class Chunks:
    """A body of given chunks; broken after them if asked."""

    def __init__(self, chunks: Sequence[bytes], *, broken: bool = False) -> None:
        self.announced: int | None = None
        self.taken = 0
        self._chunks = chunks
        self._broken = broken

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            self.taken += len(chunk)
            yield chunk
        if self._broken:
            raise BodyBrokenError(self.taken)


@given(st.lists(st.binary(max_size=20), max_size=30), st.integers(1, 50), st.booleans())
def test_every_byte_arrives_in_order(chunks: list[bytes], piece_bytes: int, broken: bool) -> None:
    """Whatever the chunks and the pieces: the bytes are the same, also of a body that breaks."""
    got: list[bytes] = []

    async def append(piece: bytes) -> None:
        await asyncio.sleep(0)
        got.append(bytes(piece))

    async def run() -> None:
        body = Chunks(chunks, broken=broken)
        if broken:
            with pytest.raises(BodyBrokenError):
                await pump(body, append, piece_bytes=piece_bytes)
        else:
            assert await pump(body, append, piece_bytes=piece_bytes) == len(b"".join(chunks))

    asyncio.run(run())

    assert b"".join(got) == b"".join(chunks)
    assert all(len(piece) >= piece_bytes for piece in got[:-1])


async def test_a_slow_store_holds_the_client_back() -> None:
    """While a piece is being written one more is gathered, and then nothing is taken from the network."""
    body = Chunks([b"x" * 10] * 100)
    gate = asyncio.Event()

    async def append(piece: bytes) -> None:
        await gate.wait()

    task = asyncio.ensure_future(pump(body, append, piece_bytes=10))
    for _ in range(50):
        await asyncio.sleep(0)

    assert body.taken <= 20
    gate.set()
    assert await task == 1000


async def test_an_error_of_the_store_ends_it() -> None:
    """What the store raises comes out, wherever in the body it happens."""

    async def append(piece: bytes) -> None:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        await pump(Chunks([b"x" * 10] * 5), append, piece_bytes=10)


async def test_cancelled_while_writing_waits_for_the_write() -> None:
    """A file isn't closed under a thread that writes to it."""
    gate, written = asyncio.Event(), []

    async def append(piece: bytes) -> None:
        await gate.wait()
        written.append(len(piece))

    task = asyncio.ensure_future(pump(Chunks([b"x" * 10] * 5), append, piece_bytes=10))
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()
    gate.set()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert written == [10]


@given(st.lists(st.binary(max_size=20), max_size=30), st.integers(0, 100), st.booleans())
def test_a_body_begun_is_the_same_body(chunks: list[bytes], max_bytes: int, broken: bool) -> None:
    """Short ones are read to their end, of others little more than asked for; every byte and the break come through."""
    whole = b"".join(chunks)

    async def run() -> None:
        body = Chunks(chunks, broken=broken)
        begun = await begin(body, max_bytes)
        assert begun.has_ended == (len(whole) <= max_bytes)
        assert (begun.broken is not None) == (begun.has_ended and broken)
        assert body.taken <= max_bytes + 20

        got: list[bytes] = []
        with pytest.raises(BodyBrokenError) if broken else nullcontext():
            async for piece in begun.behind(b"before").chunks():
                got += [piece]
        assert b"".join(got) == b"before" + whole

    asyncio.run(run())


async def test_a_body_that_is_announced_long_is_not_begun() -> None:
    """Nothing is gathered that would have to be written anyway."""
    body = Chunks([b"x" * 10] * 10)
    body.announced = 100

    begun = await begin(body, 99)

    assert (begun.has_ended, body.taken) == (False, 0)
    assert b"".join([piece async for piece in begun.chunks()]) == b"x" * 100
