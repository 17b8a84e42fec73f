"""Blobs on their way in (distribution-spec end-4, end-5, end-6, end-13, end-14; design decision 4).

A session's facts live in the database and its bytes in storage, so any worker takes any request. The bytes are
hashed as they pass; at each durable offset the row keeps the hash's state, so that the next request goes on from
there, wherever it is served. As long as they are few the row keeps the bytes themselves, and storage sees them once,
when the blob is complete.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from roadstead.clock import Clock
from roadstead.events.event import UNPROMPTED, Cause
from roadstead.oci.digest import Algorithm, Digest, DigestMismatchError
from roadstead.oci.reference import RepositoryName
from roadstead.registry.errors import SizeMismatchError, UploadBusyError, UploadOffsetError, UploadUnknownError
from roadstead.registry.ports import BlobRecord, BlobStore, UploadRecord, UploadState, UploadStore
from roadstead.registry.pump import Begun, Body, BodyBrokenError, begin, pump
from roadstead.registry.upload_ids import UploadIds, UploadLifetimes
from roadstead.storage import keys
from roadstead.storage.arrivals import Arrival
from roadstead.storage.hashing import HashStateInvalidError, ResumableHasher
from roadstead.storage.ports import (
    Driver,
    Staged,
    StagedBusyError,
    StagedLostError,
    StagedUnreadableError,
    StagingHandle,
    TakesFiles,
)

SMALL_BLOB_BYTES = 64 << 10
"""A blob up to this size that is complete in memory is written in one thread call, without a staging file."""

HELD_BYTES = 32 << 10
"""What a session's row may hold. Configurations and small layers are shorter, and most of what is pushed is of these:
so they cost no file, no flush of their own and no hop to a thread before they are complete."""


class Uploads:
    """Starts, fills, commits and cancels upload sessions."""

    def __init__(
        self,
        sessions: UploadStore,
        blobs: BlobStore,
        driver: Driver,
        ids: UploadIds,
        clock: Clock,
        *,
        lifetimes: UploadLifetimes,
    ) -> None:
        self._sessions = sessions
        self._blobs = blobs
        self._driver = driver
        self._ids = ids
        self._clock = clock
        self._lifetimes = lifetimes

    def start(
        self, repository: RepositoryName, algorithm: Algorithm = Algorithm.SHA256, holder: str = ""
    ) -> UploadRecord:
        """Return a new session of `holder`; nothing is stored before its first byte (upload_ids.py says why)."""
        ticket = self._ids.mint(repository, algorithm, self._clock.now(), holder)
        return UploadRecord(
            upload_id=ticket.upload_id, repository=repository, algorithm=algorithm, started_at=ticket.started_at
        )

    async def get(self, repository: RepositoryName, upload_id: str, holder: str = "") -> UploadRecord:
        """Return an open session of this repository and holder; raises UploadUnknownError."""
        record = await self.get_any(repository, upload_id, holder)
        if record.state is not UploadState.OPEN:
            raise UploadUnknownError(repository)
        return record

    async def get_any(self, repository: RepositoryName, upload_id: str, holder: str = "") -> UploadRecord:
        """Return a session in whatever state, so that a repeated PUT is answered; raises UploadUnknownError."""
        ticket = self._ids.check(repository, upload_id, holder)
        if ticket is None:
            raise UploadUnknownError(repository)
        record = await self._sessions.find(upload_id)
        if record is not None:
            return record
        if self._clock.now() - ticket.started_at > self._lifetimes.unused:
            raise UploadUnknownError(repository)
        return UploadRecord(
            upload_id=upload_id, repository=repository, algorithm=ticket.algorithm, started_at=ticket.started_at
        )

    async def append(self, record: UploadRecord, body: Body, *, start: int | None, size: int | None) -> UploadRecord:
        """Add one chunk and return the session as it is durable now (end-5).

        `start` and `size` come from Content-Range: a chunk that doesn't start where the session stands raises
        UploadOffsetError, one of another length than announced is dropped with SizeMismatchError, and the session
        lives on. A client that goes away leaves what had come, durable and told by `get`.
        """
        _check_chunk(record, body, start=start, size=size)
        if body.announced == 0:  # nothing comes, so nothing moves: a writer beside us isn't disturbed
            return record
        if not record.staged.size:
            begun = await begin(body, HELD_BYTES - len(record.held))
            if begun.has_ended:
                return await self._hold(record, begun, size)
            body = begun.behind(record.held)
        try:
            async with self._driver.stage(record.upload_id, record.staged) as handle:
                return await self._fill(record, handle, body, size)
        except StagedBusyError as error:
            raise UploadBusyError(record.upload_id) from error
        except StagedLostError as error:
            raise await self._lost(record) from error

    async def _hold(self, record: UploadRecord, body: Begun, size: int | None) -> UploadRecord:
        """Keep a short chunk in the session's row."""
        if body.broken is None:
            _check_size(size, len(body.data))
        if body.data:
            record = await self._keep(record, replace(record, held=record.held + body.data))
        if body.broken is not None:
            raise body.broken
        return record

    async def _fill(self, record: UploadRecord, handle: StagingHandle, body: Body, size: int | None) -> UploadRecord:
        hasher = await self._hasher_at(record)
        try:
            received = await pump(body, _into(handle, hasher)) - len(record.held)
        except BodyBrokenError:
            await self._advance(record, handle, hasher)
            raise
        _check_size(size, received)
        return await self._advance(record, handle, hasher) if received else record

    async def _advance(
        self, record: UploadRecord, handle: StagingHandle, hasher: ResumableHasher | None
    ) -> UploadRecord:
        staged = await handle.checkpoint()
        reached = replace(
            record,
            staged=staged,
            held=b"",
            hash_state=hasher.export_state() if hasher else None,
            digest_so_far=hasher.digest().encoded if hasher else "",
        )
        return await self._keep(record, reached)

    async def _keep(self, record: UploadRecord, reached: UploadRecord) -> UploadRecord:
        """Store how far the session is, unless another request was quicker."""
        if not await self._sessions.advance(reached, now=self._clock.now()):
            current = await self._sessions.find(record.upload_id)
            if current is None or current.state is not UploadState.OPEN:
                raise UploadUnknownError(record.repository)
            raise UploadOffsetError(record.upload_id, record.repository, current.size, record.size)
        return replace(reached, version=record.version + 1)

    async def commit(
        self,
        record: UploadRecord,
        body: Body,
        expected: Digest,
        *,
        start: int | None,
        size: int | None,
        cause: Cause = UNPROMPTED,
    ) -> BlobRecord:
        """Finish a session with its last chunk, if there is one, and make the blob (end-6).

        A repeated commit of the same digest answers the same again. A digest that the bytes don't have raises
        DigestMismatchError and ends the session.
        """
        if record.state is UploadState.COMMITTED and record.committed == expected:
            return await self._committed_before(record, expected)
        if record.state is not UploadState.OPEN:
            raise UploadUnknownError(record.repository)
        _check_chunk(record, body, start=start, size=size)
        try:
            return await self._finish(replace(record, cause=cause), body, expected, start=start, size=size)
        except StagedBusyError as error:
            raise UploadBusyError(record.upload_id) from error
        except StagedLostError as error:
            raise await self._lost(record) from error

    async def _finish(
        self, record: UploadRecord, body: Body, expected: Digest, *, start: int | None, size: int | None
    ) -> BlobRecord:
        if record.staged.size == 0:
            return await self._commit_whole(replace(record, algorithm=expected.algorithm), body, expected, size)
        if body.announced != 0:
            record = await self.append(record, body, start=start, size=size)
        return await self._publish(record, expected, await self._digest_of(record, expected.algorithm))

    async def _committed_before(self, record: UploadRecord, expected: Digest) -> BlobRecord:
        blob = await self._blobs.find(record.repository, expected)
        if blob is None:  # it was deleted since
            raise UploadUnknownError(record.repository)
        return blob

    async def push(
        self, repository: RepositoryName, body: Body, expected: Digest, *, cause: Cause = UNPROMPTED
    ) -> BlobRecord:
        """Store a blob that comes whole in one request (end-4b); a broken body leaves nothing."""
        record = replace(self.start(repository, expected.algorithm), cause=cause)
        try:
            return await self._commit_whole(record, body, expected, None)
        except BodyBrokenError:
            await self.cancel(await self.get(repository, record.upload_id))
            raise

    async def take(self, repository: RepositoryName, path: Path, verified: Digest, *, size: int) -> BlobRecord | None:
        """Store a file as it lies there, of which the digest and the size were verified as it was written.

        It has to be one that nobody writes to any more. Its name there stays, for the caller to remove. None where
        storage can't have it so.
        """
        if not isinstance(self._driver, TakesFiles) or size <= SMALL_BLOB_BYTES:
            return None
        record = self.start(repository, verified.algorithm)
        arrival = await self._blobs.expect(verified, now=self._clock.now())
        key = keys.blob(verified)
        if not await self._driver.take_file(path, key, size=size):
            return None
        return await self._commit(record, BlobRecord(verified, size, key), arrival)

    async def _commit_whole(self, record: UploadRecord, body: Body, expected: Digest, size: int | None) -> BlobRecord:
        """Take a blob in one request: its row is written once, at the end."""
        begun = await begin(body, SMALL_BLOB_BYTES - len(record.held))
        if begun.broken is not None:
            raise begun.broken
        if begun.has_ended:
            _check_size(size, len(begun.data))
            return await self._commit_small(record, record.held + begun.data, expected)
        hasher = ResumableHasher(record.algorithm)
        try:
            async with self._driver.stage(record.upload_id, record.staged) as handle:
                staged = await self._fill_whole(record, handle, hasher, begun, size)
        except StagedBusyError as error:
            raise UploadBusyError(record.upload_id) from error
        return await self._publish(replace(record, staged=staged, held=b""), expected, hasher.digest())

    async def _fill_whole(
        self, record: UploadRecord, handle: StagingHandle, hasher: ResumableHasher, body: Begun, size: int | None
    ) -> Staged:
        try:
            received = await pump(body.behind(record.held), _into(handle, hasher))
        except BodyBrokenError:
            if handle.size > len(record.held):
                await self._advance(record, handle, hasher)
            raise
        _check_size(size, received - len(record.held))
        return await handle.checkpoint()

    async def _commit_small(self, record: UploadRecord, data: bytes, expected: Digest) -> BlobRecord:
        actual = Digest.of(data, expected.algorithm)
        if actual != expected:
            await self._sessions.cancel(record, now=self._clock.now())
            raise DigestMismatchError(expected, actual)
        arrival = await self._blobs.expect(expected, now=self._clock.now())
        key = keys.blob(expected)
        await self._driver.put([(key, data)])
        return await self._commit(replace(record, held=b""), BlobRecord(expected, len(data), key), arrival)

    async def _publish(self, record: UploadRecord, expected: Digest, actual: Digest) -> BlobRecord:
        """Make the staged bytes the blob: verified, renamed, then the row. The order is the promise."""
        if actual != expected:
            await self.cancel(record)
            raise DigestMismatchError(expected, actual)
        arrival = await self._blobs.expect(expected, now=self._clock.now())
        key = await self._driver.publish(record.upload_id, record.staged, keys.blob(expected))
        return await self._commit(record, BlobRecord(expected, record.staged.size, key), arrival)

    async def _commit(self, record: UploadRecord, blob: BlobRecord, arrival: Arrival) -> BlobRecord:
        """Make the row of published bytes."""
        own_key = blob.key != keys.blob(blob.digest)  # an object store left them where they came in
        stored = await self._blobs.commit(
            record.repository,
            blob,
            upload=record,
            now=self._clock.now(),
            arrival=None if own_key else arrival,
            cause=record.cause,
        )
        if stored.key != blob.key:  # the digest was stored before, elsewhere: one copy is enough
            await self._driver.delete(blob.key)
        return stored

    async def cancel(self, record: UploadRecord) -> None:
        """End a session and drop its bytes (end-14); raises UploadUnknownError if it was ended before."""
        if not await self._sessions.cancel(record, now=self._clock.now()):
            raise UploadUnknownError(record.repository)
        await self._driver.discard(record.upload_id, record.staged)

    async def purge(self, *, batch: int = 100) -> int:
        """Cancel sessions past their lifetime and forget closed ones; return how many were cancelled."""
        now = self._clock.now()
        cancelled = 0
        while abandoned := await self._sessions.abandoned(started_before=now - self._lifetimes.open, limit=batch):
            for record in abandoned:
                if await self._sessions.cancel(record, now=now):
                    await self._driver.discard(record.upload_id, record.staged)
                    cancelled += 1
        await self._sessions.forget_closed(touched_before=now - self._lifetimes.closed)
        return cancelled

    async def _lost(self, record: UploadRecord) -> UploadUnknownError:
        """Close a session whose bytes are gone: it was published by a commit that didn't live to say so."""
        await self._sessions.cancel(record, now=self._clock.now())
        return UploadUnknownError(record.repository)

    async def _hasher_at(self, record: UploadRecord) -> ResumableHasher | None:
        """Return a hasher standing at the session's durable offset; None where only the end can tell.

        From the exported state where there is one, else by reading again; an object store can't read parts of an
        upload back, so there the whole is read at the commit.
        """
        if record.staged.size == 0:
            return ResumableHasher(record.algorithm)
        if record.hash_state is not None:
            # A state of another libcrypto (a replica of another release) is no state for us.
            with suppress(HashStateInvalidError):
                return ResumableHasher(record.algorithm, record.hash_state, size=record.staged.size)
        try:
            return await self._reread(record, record.algorithm)
        except StagedUnreadableError:
            return None

    async def _digest_of(self, record: UploadRecord, algorithm: Algorithm) -> Digest:
        """Return the staged bytes' digest under `algorithm`, without reading them where the row knows it."""
        if algorithm is record.algorithm and record.digest_so_far:
            return Digest(algorithm, record.digest_so_far)
        try:
            return (await self._reread(record, algorithm)).digest()
        except StagedUnreadableError:
            return await self._digest_published(record, algorithm)

    async def _digest_published(self, record: UploadRecord, algorithm: Algorithm) -> Digest:
        """Read the bytes where a publication leaves them, nobody knowing their key yet (object stores)."""
        key = await self._driver.publish(record.upload_id, record.staged, keys.staged(record.upload_id))
        return (await _hashed(self._driver.read(key), algorithm)).digest()

    async def _reread(self, record: UploadRecord, algorithm: Algorithm) -> ResumableHasher:
        return await _hashed(self._driver.read_staged(record.upload_id, record.staged), algorithm)


async def _hashed(pieces: AsyncIterator[bytes], algorithm: Algorithm) -> ResumableHasher:
    hasher = ResumableHasher(algorithm)
    async for piece in pieces:
        await asyncio.to_thread(hasher.update, piece)
    return hasher


def _into(handle: StagingHandle, hasher: ResumableHasher | None) -> Callable[[bytes], Awaitable[None]]:
    async def append(piece: bytes) -> None:
        await handle.append(piece, hasher)

    return append


def _check_chunk(record: UploadRecord, body: Body, *, start: int | None, size: int | None) -> None:
    if size is not None and body.announced is not None and body.announced != size:
        raise SizeMismatchError(size, body.announced)
    if start is not None and start != record.size:
        raise UploadOffsetError(record.upload_id, record.repository, record.size, start)


def _check_size(announced: int | None, received: int) -> None:
    if announced is not None and received != announced:
        raise SizeMismatchError(announced, received)
