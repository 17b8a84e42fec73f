"""A body on its way to storage: counted, gathered into large pieces, written while the next piece arrives."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

PIECE_BYTES = 1 << 20
"""Bytes handed to one thread call: below this the calls cost more than they carry (decision 0002)."""

Append = Callable[[bytes], Awaitable[None]]


class BodyBrokenError(Exception):
    """The client went away in the middle of a body; `received` bytes had come."""

    def __init__(self, received: int) -> None:
        super().__init__(f"the client closed the connection after {received} bytes of the body")
        self.received = received


class Body(Protocol):
    """A request's body: how long it says it is (None: chunked), and its bytes, once."""

    @property
    def announced(self) -> int | None:
        """Bytes announced by Content-Length."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes as they come; raises BodyBrokenError if the client goes away before the end."""
        ...


class Begun:
    """A body that was begun to be read: the pieces that came, and then the rest if there is one. A `Body` itself."""

    def __init__(
        self,
        announced: int | None,
        pieces: Sequence[bytes] = (),
        rest: AsyncIterator[bytes] | None = None,
        broken: BodyBrokenError | None = None,
    ) -> None:
        self.announced = announced
        self.broken = broken
        self._pieces = pieces
        self._rest = rest

    @property
    def has_ended(self) -> bool:
        """Tell whether everything that will ever come is here, though the end may be `broken`."""
        return self._rest is None

    @property
    def data(self) -> bytes:
        """Return what has come, as one."""
        return _joined(self._pieces)

    def behind(self, data: bytes) -> "Begun":
        """Return this body with other bytes before it."""
        return Begun(self.announced, (data, *self._pieces), self._rest, self.broken) if data else self

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what has come, then what comes."""
        for piece in self._pieces:
            yield piece
        if self._rest is not None:
            async for piece in self._rest:
                yield piece
        if self.broken is not None:
            raise self.broken


async def begin(body: Body, max_bytes: int) -> Begun:
    """Read a body as far as it is short: to its end, or until more than `max_bytes` have come."""
    if body.announced is not None and body.announced > max_bytes:
        return Begun(body.announced, rest=body.chunks())
    pieces: list[bytes] = []
    size = 0
    chunks = body.chunks()
    try:
        async for chunk in chunks:
            pieces.append(chunk)
            size += len(chunk)
            if size > max_bytes:
                return Begun(body.announced, pieces, chunks)
    except BodyBrokenError as error:
        return Begun(body.announced, pieces, broken=error)
    return Begun(body.announced, pieces)


async def pump(body: Body, append: Append, *, piece_bytes: int = PIECE_BYTES) -> int:
    """Move the body into `append` in pieces of at least `piece_bytes`; return its size in bytes.

    Two pieces at the most are in memory: the one being written and the one being gathered, so the network and the
    disk work at the same time and a slow disk holds the client back. What came before a broken body's end is
    appended before the error is raised.
    """
    received = 0
    gathered: list[bytes] = []
    size = 0
    writing: asyncio.Task[None] | None = None
    try:
        try:
            async for chunk in body.chunks():
                received += len(chunk)
                gathered.append(chunk)
                size += len(chunk)
                if size >= piece_bytes:
                    writing = await _write_next(writing, append, _joined(gathered))
                    gathered, size = [], 0
        finally:
            if writing is not None:
                await _settle(writing)
    except BodyBrokenError:
        await _finish(writing, append, _joined(gathered))
        raise
    await _finish(writing, append, _joined(gathered))
    return received


def _joined(chunks: Sequence[bytes]) -> bytes:
    """Return the chunks as one. A server that reads fast delivers whole pieces, which aren't copied."""
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _write_next(writing: asyncio.Task[None] | None, append: Append, piece: bytes) -> asyncio.Task[None]:
    if writing is not None:
        await asyncio.shield(writing)  # else our own cancellation would cancel the write instead of waiting for it
    return asyncio.ensure_future(_appended(append, piece))


async def _appended(append: Append, piece: bytes) -> None:
    await append(piece)


async def _finish(writing: asyncio.Task[None] | None, append: Append, piece: bytes) -> None:
    if writing is not None:
        await writing  # it is done: this raises what it raised
    if piece:
        await append(piece)


async def _settle(writing: asyncio.Task[None]) -> None:
    """Wait for a write that is under way before its file is closed under it; its own error is of no more use."""
    await asyncio.wait([writing])
    if not writing.cancelled():
        writing.exception()
