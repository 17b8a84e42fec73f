"""Blobs on their way from an upstream: one download, however many wait for it, in whichever process of this machine.

What arrives is written to a file that has the digest in its name and is locked while it grows. Whoever wants the same
blob meanwhile reads that file behind the writer; other processes look at its size. The file's mode says whether it is
whole: length and digest were right. Before that nobody gets the last byte of what they asked for, the blob or a part of
it. Once whole the store takes it: as it lies there where it can, else as a copy that is verified anew. Then its name
here goes.

A process that is killed leaves a file without a lock; the background process removes it (``locks.remove_abandoned``).
docs/decisions/0027-pull-through.md tells what else was weighed.
"""

import asyncio
import os
import stat
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import structlog

from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.proxy.errors import FillBrokenError, SpoolFailedError
from roadstead.proxy.locks import PAUSE_S, claim, disown, is_abandoned
from roadstead.registry.ports import BlobRecord
from roadstead.registry.pump import PIECE_BYTES

_log = structlog.get_logger()

Download = Callable[[], AsyncGenerator[bytes, None]]
Store = Callable[["Spooled"], Awaitable[BlobRecord]]
Find = Callable[[], Awaitable[BlobRecord | None]]

_ARRIVING, _WHOLE = 0o700, 0o600
"""The file's modes. Nobody runs it: the bit is one that a stored blob never has."""

_PIECE = 256 << 10
_SMALLEST_PIECE = 32 << 10
_PIECES = 1 << 20
"""Bytes that all readers of a process hold, about: each reads smaller pieces where there are many of them."""


class _Readers:
    """How many read what arrives in this process."""

    def __init__(self) -> None:
        self.count = 0

    def piece(self) -> int:
        """Return how many bytes each may hold."""
        return max(_SMALLEST_PIECE, min(_PIECE, _PIECES // max(1, self.count)))


class Fill(Protocol):
    """A blob that arrives."""

    async def reach(self, position: int) -> None:
        """Return when so many bytes are here; raise when they never will be."""
        ...

    async def stored(self) -> None:
        """Return when the blob is in the store; raise when it won't be."""
        ...

    async def whole(self, size: int) -> None:
        """Return when all of it is here and right; raise when it never will be, or is of another size."""
        ...

    def read(self, *, start: int, size: int, of: int) -> AsyncGenerator[bytes, None]:
        """Yield a part of a blob `of` so many bytes as it arrives, its last byte once all is right; then let go of it.

        Raises when it breaks off.
        """
        ...

    def leave(self) -> None:
        """Let go of it; the download goes on."""
        ...


class _OwnFill:
    """A download of this process. It is over when its task is."""

    def __init__(self, digest: Digest, path: Path, descriptor: int, announced: int | None, reading: _Readers) -> None:
        self.digest = digest
        self._reading = reading
        self.announced = announced
        self.path = path
        self.descriptor = descriptor
        self.size: int | None = None  # known at its end, when all is right
        self.readers = 1  # the task itself, which writes
        self.task: asyncio.Task[None] | None = None
        # A reader whose answer was never begun doesn't let go: then it is closed with the last who knows of it.
        self._close = weakref.finalize(self, os.close, descriptor)
        self._written = 0
        self._latest = b""  # what was written last: whoever is right behind needn't read it
        self._moved = asyncio.Event()

    async def run(self, download: Download, store: Store, find: Find) -> None:
        """Download and store, unless another process has just done so."""
        try:
            if await find() is None:
                await self._download(download)
                await store(Spooled(self))
        finally:
            self._latest = b""
            self._wake()

    async def _download(self, download: Download) -> None:
        async with aclosing(download()) as pieces:
            async for piece in pieces:
                await self._write(piece)
                self._written += len(piece)
                self._latest = piece
                self._wake()
        try:
            os.fchmod(self.descriptor, _WHOLE)
        except OSError as error:
            raise SpoolFailedError(error) from error
        self.size = self._written
        self._wake()

    def at_hand(self, position: int, size: int) -> bytes:
        """Return up to so many bytes from there on, if they are in memory."""
        start = position - (self._written - len(self._latest))
        return self._latest[start : start + size] if start >= 0 else b""

    async def _write(self, piece: bytes) -> None:
        writing = asyncio.ensure_future(asyncio.to_thread(_write, self.descriptor, piece))
        try:
            await asyncio.shield(writing)
        except OSError as error:
            raise SpoolFailedError(error) from error
        finally:
            # Cancelled or not: the file isn't closed under a thread that writes.
            await asyncio.wait([writing])

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Tell whether nothing more happens."""
        return self.task is None or self.task.done()

    async def reach(self, position: int) -> None:
        """Return when so many bytes are here, or it is over and went well."""
        while self._written < position and not self.is_over:
            await self._moves()
        if self._written < position:
            await self.stored()  # raises what the download did

    async def whole(self, size: int) -> None:
        """Return when all of it is here and right."""
        while self.size is None and not self.is_over:
            await self._moves()
        if self.size is None:
            await self.stored()
        if self.size != size:
            raise FillBrokenError(self.digest)

    async def _moves(self) -> None:
        # The task may end without a word: cancelled before it began.
        waiting = asyncio.ensure_future(self._moved.wait())
        try:
            await asyncio.wait([waiting, self._task()], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    async def stored(self) -> None:
        """Return when the blob is in the store."""
        await asyncio.wait([self._task()])
        if self._task().cancelled():
            raise FillBrokenError(self.digest)
        error = self._task().exception()
        if error is not None:
            raise error

    def _task(self) -> "asyncio.Task[None]":
        assert self.task is not None  # noqa: S101 -- started where it is made
        return self.task

    def read(self, *, start: int, size: int, of: int) -> AsyncGenerator[bytes, None]:
        """Yield a part of it as it arrives."""
        return _read(self, self.descriptor, start, start + size, of, self._reading)

    def leave(self) -> None:
        """Let go of it; the last one closes the file."""
        self.readers -= 1
        if self.readers == 0:
            self._close()


class Spooled:
    """A download that is whole, and right: a file that nobody writes to any more, and the body of an upload."""

    def __init__(self, fill: _OwnFill) -> None:
        self.path = fill.path
        self.announced = fill.size
        self._fill = fill

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what was written."""
        position = 0
        while piece := await asyncio.to_thread(os.pread, self._fill.descriptor, PIECE_BYTES, position):
            position += len(piece)
            yield piece


class _ForeignFill:
    """A download of another process of this machine, seen by its file."""

    def __init__(self, digest: Digest, descriptor: int, reading: _Readers) -> None:
        self.digest = digest
        self._reading = reading
        self._descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)

    async def reach(self, position: int) -> None:
        """Return when so many bytes are here."""
        await self._comes(lambda: os.fstat(self._descriptor).st_size >= position)

    async def whole(self, size: int) -> None:
        """Return when all of it is here and right."""
        await self._comes(lambda: stat.S_IMODE(os.fstat(self._descriptor).st_mode) == _WHOLE)
        if os.fstat(self._descriptor).st_size != size:
            raise FillBrokenError(self.digest)

    def at_hand(self, position: int, size: int) -> bytes:
        """Return nothing: what there is lies in another process's memory."""
        return b""

    async def _comes(self, happened: Callable[[], bool]) -> None:
        while not happened():
            over = is_abandoned(self._descriptor)  # asked before the last look, for nothing happens after it
            if happened():
                return
            if over:
                raise FillBrokenError(self.digest)
            await asyncio.sleep(PAUSE_S)

    async def stored(self) -> None:
        """Return when its writer has let go of it: whether it stored it, the database tells."""
        while not is_abandoned(self._descriptor):  # noqa: ASYNC110 -- another process can't set an event of ours
            await asyncio.sleep(PAUSE_S)

    def read(self, *, start: int, size: int, of: int) -> AsyncGenerator[bytes, None]:
        """Yield a part of it as it arrives."""
        return _read(self, self._descriptor, start, start + size, of, self._reading)

    def leave(self) -> None:
        """Let go of the file."""
        self._close()


async def _read(
    fill: _OwnFill | _ForeignFill, descriptor: int, position: int, end: int, size: int, reading: _Readers
) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of a blob of that size from `position` to `end` as they arrive."""
    reading.count += 1
    try:
        while position < end:
            await fill.reach(position + 1)
            wanted = min(reading.piece(), end - position)
            piece = fill.at_hand(position, wanted) or await asyncio.to_thread(os.pread, descriptor, wanted, position)
            if not piece:
                raise FillBrokenError(fill.digest)
            position += len(piece)
            if position == end:
                # Whoever takes a part, or was told a wrong size, would have a whole that nobody has checked: the last
                # byte waits until somebody has. All before it is given, for a small part may be wanted of much.
                if len(piece) > 1:
                    yield piece[:-1]
                await fill.whole(size)
                piece = piece[-1:]
            yield piece
    finally:
        reading.count -= 1
        fill.leave()


class Fills:
    """The downloads of one process; ``aclose`` ends them, and what has arrived of them goes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._own: dict[Path, _OwnFill] = {}
        self._reading = _Readers()

    def announced(self, repository: RepositoryName, digest: Digest) -> int | None:
        """Return the size that was told of a blob whose download is under way in this process; None for others."""
        own = self._own.get(self._path(repository, digest))
        return None if own is None else own.announced

    def _path(self, repository: RepositoryName, digest: Digest) -> Path:
        return self._directory / f"{sha256(f'{repository}@{digest}'.encode()).hexdigest()}.part"

    async def join(
        self,
        repository: RepositoryName,
        digest: Digest,
        download: Download,
        store: Store,
        find: Find,
        *,
        announced: int | None = None,
    ) -> Fill:
        """Return the download of a repository's blob, begun now unless it is under way.

        Whoever joins reads it to the end or leaves it, once. `find` looks whether it is in the store by now;
        `announced` is the size that was told of it. Raises SpoolFailedError.
        """
        path = self._path(repository, digest)
        own = self._own.get(path)
        if own is not None:
            own.readers += 1
            return own
        try:
            descriptor, is_ours = self._claim_or_open(path)
        except OSError as error:
            raise SpoolFailedError(error) from error
        if is_ours:
            return self._begin(_OwnFill(digest, path, descriptor, announced, self._reading), download, store, find)
        return _ForeignFill(digest, descriptor, self._reading)

    def _claim_or_open(self, path: Path) -> tuple[int, bool]:
        """Return a descriptor, and whether it is for us to write."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            descriptor = claim(path, _ARRIVING)
            if descriptor is not None:
                return descriptor, True
            with suppress(FileNotFoundError):  # its writer was done with it in this very moment
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC), False

    def _begin(self, fill: _OwnFill, download: Download, store: Store, find: Find) -> _OwnFill:
        fill.readers += 1
        fill.task = asyncio.create_task(fill.run(download, store, find), name=f"fill {fill.digest}")
        fill.task.add_done_callback(lambda task: self._ended(fill, task))
        self._own[fill.path] = fill
        return fill

    def _ended(self, fill: _OwnFill, task: "asyncio.Task[None]") -> None:
        del self._own[fill.path]
        disown(fill.path, fill.descriptor)  # readers of this process go on with it
        fill.leave()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            # Clients that have their answer's head already can't be told more than that it ends.
            _log.warning("a blob of an upstream was not had", digest=str(fill.digest), error=str(error))

    async def aclose(self) -> None:
        """Cancel what is under way and wait until it has ended."""
        running = [fill.task for fill in self._own.values() if fill.task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _write(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]
