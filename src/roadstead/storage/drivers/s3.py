"""Objects in a bucket of Amazon S3 or of a server that speaks its API (SeaweedFS, Ceph, Garage, MinIO, …).

A staged upload is a multipart upload at the key where it can stay (``roadstead/staged/<upload id>``): publishing it
completes it there, since moving it to its digest's key would copy every byte. What doesn't fill a part yet is kept,
at a checkpoint, in an object of its own below ``roadstead/uploads/<upload id>/``; a short upload is nothing else, and
is copied to its digest's key. Which parts and which such object belong to the upload is in ``Staged.state``, so any
process can go on, and bytes that some other writer stores meanwhile are simply not named there.

Parts are 8 MiB at first and double after every thousand, so that the 10,000 that S3 allows hold more than the 5 TiB
that it allows too. One part fills while two are sent: an upload needs 24 MiB up to 8 GB, 192 MiB from 56 GB on.

Of writers of one key, S3 lets the last to *begin* win where their multipart uploads overlap; bytes are never mixed.
"""

import asyncio
import io
import json
import secrets
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

from roadstead.errors import InvalidError, UnavailableError
from roadstead.secret import Secret
from roadstead.storage import keys
from roadstead.storage.ports import (
    Bytes,
    Driver,
    KeepsNotes,
    Key,
    KeyInfo,
    KeyInvalidError,
    KeyUnknownError,
    Note,
    NoteChangedError,
    PresignsUrl,
    Staged,
    StagedLostError,
    StagedUnreadableError,
    StagingHandle,
    StorageDeniedError,
    StorageFailedError,
    StorageFullError,
    StorageUnavailableError,
    TakesBytes,
    TruncatedError,
    WriteHandle,
)
from roadstead.storage.threads import call_in

try:
    import aiohttp
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
except ImportError as error:  # The extra isn't installed; the driver says so when somebody wants one.
    _MISSING: ImportError | None = error
else:
    _MISSING = None

_PIECE: Final = 1 << 20
_MIN_PART_SIZE: Final = 5 << 20
_PARTS_UNDER_WAY: Final = 2  # More hide more of the store's slowness, and cost a part's memory each.
_PUTS_UNDER_WAY: Final = 8  # Of small objects that are written together.
_PARTS_PER_SIZE: Final = 1000  # After so many parts the next ones are twice as large.
_READ_ATTEMPTS: Final = 5  # How often a reader whose connection broke goes on where it was.
_RETRY_DELAY_S: Final = 0.2  # Before the second attempt; doubles for each further one.
_DELETED_AT_ONCE: Final = 1000  # What one DeleteObjects takes.
_WORTH_A_THREAD: Final = 32 * 1024  # Hashing less takes less time than the hop to a thread and back.

_UNKNOWN: Final = frozenset({"NoSuchKey", "NotFound", "404"})
_FULL: Final = frozenset({"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "EntityTooLarge"})
_DENIED: Final = frozenset(
    {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403", "401"}
)
_CONDITION_FAILED: Final = frozenset({404, 409, 412})  # It is gone; two conditional writes met (Amazon); it changed.
_BUSY: Final = frozenset({"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "OperationAborted"})


class S3ExtraMissingError(UnavailableError):
    """The libraries for S3 aren't installed."""

    def __init__(self) -> None:
        super().__init__("storage on S3 needs libraries that aren't installed")

    def advice(self) -> str | None:
        """Return the command that installs them."""
        return "Run: pip install 'roadstead[s3]'"


class S3PartSizeError(InvalidError):
    """The part size isn't one that S3 takes."""

    def __init__(self, part_size: int) -> None:
        super().__init__(f"parts of {part_size} bytes are too small for S3, which takes {_MIN_PART_SIZE} or more")
        self.part_size = part_size


class _UploadGoneError(StorageFailedError):
    """The multipart upload isn't there any more: completed, aborted or never begun."""


class _StateInvalidError(InvalidError):
    """A staged upload's state isn't one of ours."""


@dataclass(frozen=True, slots=True)
class _State:
    """What ``Staged.state`` says: the multipart upload with its full parts, and the object with the rest."""

    upload: str = ""
    parts: tuple[tuple[str, int], ...] = ()  # entity tag and size, in order
    tail: str = ""  # the last component of the object's key
    old_tails: tuple[str, ...] = ()  # of checkpoints before, which may go once this state is kept

    @property
    def size_of_parts(self) -> int:
        return sum(size for _, size in self.parts)

    @classmethod
    def parse(cls, text: str) -> "_State":
        if not text:
            return cls()
        try:
            found = json.loads(text)
            return cls(
                str(found["upload"]),
                tuple((str(tag), int(size)) for tag, size in found["parts"]),
                str(found["tail"]),
                tuple(str(tail) for tail in found["old_tails"]),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise _StateInvalidError("the state kept of a staged upload isn't one of the S3 driver's") from error

    def __str__(self) -> str:
        facts = {"driver": "s3", "upload": self.upload, "parts": self.parts, "tail": self.tail}
        return json.dumps({**facts, "old_tails": self.old_tails}, separators=(",", ":"))


class S3Driver:
    """Objects below ``prefix`` in ``bucket``.

    ``endpoint`` is the URL of a server other than Amazon's; ``path_style`` puts the bucket into the path rather than
    into the host name, as such servers mostly want it (the default where there is an endpoint). Without keys the
    usual chain of credentials applies: environment, profile, container or instance role. ``encrypt`` asks for
    encryption where the object lies, under ``kms_key`` if there is one. ``presign_endpoint`` is the URL by which others
    reach the server, where it isn't ``endpoint``. ``part_size`` is that of
    the first thousand parts, 5 MiB at least: S3 refuses to complete an upload of smaller ones.
    """

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "",
        region: str | None = None,
        endpoint: str | None = None,
        path_style: bool | None = None,
        access_key: str | None = None,
        secret_key: Secret | None = None,
        session_token: Secret | None = None,
        encrypt: bool = False,
        kms_key: str | None = None,
        storage_class: str | None = None,
        presign_endpoint: str | None = None,
        part_size: int = 8 << 20,
        connections: int = 64,
        connect_timeout: timedelta = timedelta(seconds=5),
        read_timeout: timedelta = timedelta(seconds=60),
        attempts: int = 4,
    ) -> None:
        if _MISSING is not None:
            raise S3ExtraMissingError from _MISSING
        if part_size < _MIN_PART_SIZE:
            raise S3PartSizeError(part_size)
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._part_size = part_size
        self._wishes = _wishes(kms_key, storage_class, encrypt=encrypt)
        self._options: dict[str, Any] = {
            "region_name": region,
            "endpoint_url": endpoint,
            "aws_access_key_id": access_key,
            "aws_secret_access_key": secret_key.reveal() if secret_key is not None else None,
            "aws_session_token": session_token.reveal() if session_token is not None else None,
            "config": AioConfig(
                connect_timeout=connect_timeout.total_seconds(),
                read_timeout=read_timeout.total_seconds(),
                retries={"mode": "standard", "total_max_attempts": attempts},
                max_pool_connections=connections,
                # Newer clients add check sums of their own to every request, which many servers can't take.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                signature_version="s3v4",  # presigned URLs would be of version 2, which some stores refuse
                s3={"addressing_style": _addressing_style(endpoint, path_style=path_style)},
            ),
        }
        self._presigning = {**self._options, "endpoint_url": presign_endpoint} if presign_endpoint else None
        self._client: Any = None
        self._presigner: Any = None
        self._opening = asyncio.Lock()
        self._closing = AsyncExitStack()
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="roadstead-s3")

    # Objects -----------------------------------------------------------------------------------------------------

    def read(self, key: Key, *, start: int = 0, size: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the object's bytes; a connection that breaks is taken up again where it was."""
        return self._read(keys.check_key(key), start, size)

    async def size(self, key: Key) -> int:
        """Return the object's size, from its head."""
        with _translated(keys.check_key(key)):
            client = await self._open()
            head = await client.head_object(Bucket=self._bucket, Key=self._name(key))
            return int(head["ContentLength"])

    @asynccontextmanager
    async def write(self, key: Key) -> AsyncGenerator[WriteHandle, None]:
        """Write an object: in one request if it fits in a part, else as a multipart upload."""
        handle = _Writing(self, keys.check_key(key))
        try:
            yield handle
        finally:
            await handle.leave()

    async def put(self, objects: Sequence[tuple[Key, Bytes]]) -> None:
        """Write each object in one request, some of them at the same time."""
        for key, _ in objects:
            keys.check_key(key)
        gate = asyncio.Semaphore(_PUTS_UNDER_WAY)

        async def put_one(key: Key, data: Bytes) -> None:
            async with gate:
                await self._put(key, io.BytesIO(data))

        results = await asyncio.gather(*(put_one(*one) for one in objects), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def delete(self, key: Key) -> None:
        """Delete the object."""
        await self._delete_all([keys.check_key(key)])

    async def iter_keys(self, prefix: str = "") -> AsyncGenerator[KeyInfo, None]:
        """Yield the objects below the prefix, a thousand a request."""
        keys.check_prefix(prefix)
        async for entry in self._list("list_objects_v2", "Contents", prefix):
            name = str(entry["Key"])[len(self._prefix) :]
            if keys.is_internal(name) and not keys.is_internal(prefix):
                continue
            try:
                key = keys.check_key(name)
            except KeyInvalidError:  # Somebody else's object: no key of ours looks like this.
                continue
            yield KeyInfo(key, int(entry["Size"]), _utc(entry["LastModified"]))

    async def folders(self, prefix: str) -> Sequence[str]:
        """Return the common prefixes that the bucket tells, a thousand a request."""
        start = len(self._name(keys.check_prefix(prefix)))
        found = self._list("list_objects_v2", "CommonPrefixes", prefix, Delimiter="/")
        return sorted([str(entry["Prefix"])[start:-1] async for entry in found])

    # Staged uploads ----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def stage(self, upload_id: str, at: Staged) -> AsyncGenerator[StagingHandle, None]:
        """Continue the upload with the parts and the rest that ``at`` names."""
        state = self._state(upload_id, at)
        await self._check_parts(upload_id, at, state)
        rest = await self._rest(upload_id, at, state)
        await self._delete_all([_tail_key(upload_id, tail) for tail in state.old_tails])
        handle = _Staging(self, upload_id, replace(state, old_tails=()), rest)
        try:
            yield handle
        finally:
            await handle.leave()

    async def read_staged(self, upload_id: str, at: Staged, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield the acknowledged bytes, unless some of them are in parts: S3 doesn't give these back."""
        state = self._state(upload_id, at)
        if start >= at.size:
            return
        if start < state.size_of_parts:
            raise StagedUnreadableError(upload_id)
        rest = await self._rest(upload_id, at, state)
        yield rest[start - state.size_of_parts :]

    async def publish(self, upload_id: str, at: Staged, key: Key) -> Key:
        """Complete the multipart upload where it is, or copy a short upload to the key."""
        keys.check_key(key)
        state = self._state(upload_id, at)
        if state.upload:
            key = keys.staged(upload_id)
            publication = self._complete(upload_id, at, state)
        elif at.size:
            publication = self._copy(_tail_key(upload_id, state.tail), key)
        else:
            publication = self._put(key, io.BytesIO())
        try:
            await publication
        except (_UploadGoneError, KeyUnknownError):
            # Completed or copied before, by a publisher who didn't live to tell; or lost.
            await self._check_published(upload_id, at, key)
        tails = [*state.old_tails, *([state.tail] if state.tail else [])]
        await self._delete_all([_tail_key(upload_id, tail) for tail in tails])
        return key

    async def discard(self, upload_id: str, at: Staged) -> None:
        """Abort every multipart upload of that id and delete every rest, named in ``at`` or not."""
        del at  # A writer that was killed may have begun what no state names.
        key = keys.staged(upload_id)
        async for upload in self._list("list_multipart_uploads", "Uploads", key):
            if upload["Key"] == self._name(key):
                await self._abort(key, str(upload["UploadId"]))
        folder = f"{keys.upload(upload_id)}/"
        await self._delete_all([info.key async for info in self.iter_keys(folder)])

    async def close(self) -> None:
        """Close the connections and let the threads go."""
        self._client = None
        await self._closing.aclose()
        await asyncio.to_thread(self._pool.shutdown)

    # What only a bucket can do -----------------------------------------------------------------------------------

    async def presign(self, key: Key, lifetime: timedelta) -> str:
        """Return a URL that anybody may read the object from for that long."""
        with _translated(keys.check_key(key)):
            client = await (self._open() if self._presigning is None else self._open_presigner(self._presigning))
            parameters = {"Bucket": self._bucket, "Key": self._name(key)}
            url = await client.generate_presigned_url(
                "get_object", Params=parameters, ExpiresIn=int(lifetime.total_seconds())
            )
            return str(url)

    async def purge_temporary(self, older_than: datetime) -> int:
        """Abort and delete what writers left behind that began before ``older_than``; return how many.

        Uploads that are still going on look the same as abandoned ones: choose a moment before which no upload that
        is still known can have begun.
        """
        purged = 0
        async for upload in self._list("list_multipart_uploads", "Uploads", ""):
            if _utc(upload["Initiated"]) < older_than:
                await self._abort(Key(str(upload["Key"])[len(self._prefix) :]), str(upload["UploadId"]))
                purged += 1
        old = [info.key async for info in self.iter_keys(keys.UPLOADS) if info.modified < older_than]
        await self._delete_all(old)
        return purged + len(old)

    async def delete_many(self, gone: Sequence[Key]) -> Mapping[Key, str]:
        """Delete objects, a thousand a request."""
        return await self._delete_many([keys.check_key(key) for key in gone])

    async def read_note(self, key: Key) -> Note | None:
        """Return the object with its entity tag and its age by the store's clock."""
        try:
            with _translated(keys.check_key(key)):
                client = await self._open()
                answer = await client.get_object(Bucket=self._bucket, Key=self._name(key))
                async with answer["Body"] as body:
                    content = await body.read()
        except KeyUnknownError:
            return None
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        return Note(content, str(answer["ETag"]), max(now - _utc(answer["LastModified"]), timedelta(0)))

    async def write_note(self, key: Key, content: bytes, *, replacing: str | None) -> str:
        """Put the object under a condition (``If-Match``, ``If-None-Match``)."""
        condition = {"IfNoneMatch": "*"} if replacing is None else {"IfMatch": replacing}
        with _translated(keys.check_key(key)):
            client = await self._open()
            try:
                answer = await client.put_object(
                    Bucket=self._bucket, Key=self._name(key), Body=content, **condition, **self._wishes
                )
            except ClientError as error:
                if _status(error) in _CONDITION_FAILED:
                    raise NoteChangedError(key) from error
                raise
            return str(answer["ETag"])

    # Requests ----------------------------------------------------------------------------------------------------

    async def _open(self) -> Any:
        """Return the client, which the first request opens."""
        if self._client is None:
            async with self._opening:
                if self._client is None:
                    opened = get_session().create_client("s3", **self._options)
                    self._client = await self._closing.enter_async_context(opened)
        return self._client

    async def _open_presigner(self, options: Mapping[str, Any]) -> Any:
        """Return the client that signs for another address; it never connects to it."""
        if self._presigner is None:
            async with self._opening:
                if self._presigner is None:
                    opened = get_session().create_client("s3", **options)
                    self._presigner = await self._closing.enter_async_context(opened)
        return self._presigner

    def _name(self, key: str) -> str:
        return self._prefix + key

    def _state(self, upload_id: str, at: Staged) -> _State:
        keys.check_upload_id(upload_id)
        try:
            state = _State.parse(at.state)
        except _StateInvalidError as error:
            raise StagedLostError(upload_id, at.size, None) from error
        if at.size < state.size_of_parts or (at.size > state.size_of_parts and not state.tail):
            raise StagedLostError(upload_id, at.size, state.size_of_parts)
        return state

    async def _read(self, key: Key, start: int, size: int | None) -> AsyncGenerator[bytes, None]:
        reading = _Reading(self, key, start, size)
        attempt = 0
        while True:
            position = reading.position
            try:
                with _translated(key):
                    async with aclosing(reading.pieces()) as pieces:
                        async for piece in pieces:
                            yield piece
            except StorageUnavailableError:
                attempt = 1 if reading.position > position else attempt + 1
                if attempt >= _READ_ATTEMPTS:
                    raise
                await asyncio.sleep(_RETRY_DELAY_S * 2**attempt)
            else:
                return

    async def _put(self, key: Key, body: io.BytesIO) -> None:
        with _translated(key):
            client = await self._open()
            await client.put_object(Bucket=self._bucket, Key=self._name(key), Body=body, **self._wishes)

    async def _copy(self, source: Key, target: Key) -> None:
        with _translated(source):
            client = await self._open()
            await client.copy_object(
                Bucket=self._bucket,
                Key=self._name(target),
                CopySource={"Bucket": self._bucket, "Key": self._name(source)},
                **self._wishes,
            )

    async def _delete_all(self, gone: list[Key]) -> None:
        """Delete the objects that there are among these, or raise StorageFailedError."""
        for key, reason in (await self._delete_many(gone)).items():
            raise StorageFailedError(f"{key} can't be deleted: {reason}")

    async def _delete_many(self, gone: Sequence[Key]) -> Mapping[Key, str]:
        kept: dict[Key, str] = {}
        for position in range(0, len(gone), _DELETED_AT_ONCE):
            batch = gone[position : position + _DELETED_AT_ONCE]
            with _translated(batch[0]):
                client = await self._open()
                if len(batch) == 1:
                    await client.delete_object(Bucket=self._bucket, Key=self._name(batch[0]))
                    continue
                objects = [{"Key": self._name(key)} for key in batch]
                answer = await client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
                for failure in answer.get("Errors", ()):
                    kept[Key(str(failure["Key"])[len(self._prefix) :])] = str(failure.get("Code"))
        return kept

    async def _list(
        self, operation: str, field: str, prefix: str, **options: str
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        with _translated(prefix or self._bucket):
            client = await self._open()
            pages: AsyncIterator[Mapping[str, Any]] = (
                client.get_paginator(operation)
                .paginate(Bucket=self._bucket, Prefix=self._name(prefix), **options)
                .__aiter__()
            )
        while True:
            with _translated(prefix or self._bucket):
                page = await anext(pages, None)
            if page is None:
                return
            for entry in page.get(field, ()):
                yield entry

    async def _begin(self, key: Key) -> str:
        with _translated(key):
            client = await self._open()
            begun = await client.create_multipart_upload(Bucket=self._bucket, Key=self._name(key), **self._wishes)
            return str(begun["UploadId"])

    async def _put_part(self, key: Key, upload: str, number: int, body: io.BytesIO) -> str:
        with _translated(key):
            client = await self._open()
            stored = await client.upload_part(
                Bucket=self._bucket, Key=self._name(key), UploadId=upload, PartNumber=number, Body=body
            )
            return str(stored["ETag"]).strip('"')

    async def _finish(self, key: Key, upload: str, tags: list[str]) -> None:
        parts = [{"PartNumber": number, "ETag": f'"{tag}"'} for number, tag in enumerate(tags, 1)]
        with _translated(key):
            client = await self._open()
            await client.complete_multipart_upload(
                Bucket=self._bucket, Key=self._name(key), UploadId=upload, MultipartUpload={"Parts": parts}
            )

    async def _abort(self, key: Key, upload: str) -> None:
        try:
            with _translated(key):
                client = await self._open()
                await client.abort_multipart_upload(Bucket=self._bucket, Key=self._name(key), UploadId=upload)
        except (_UploadGoneError, KeyUnknownError):
            return

    async def _check_parts(self, upload_id: str, at: Staged, state: _State) -> None:
        """Look whether the multipart upload is still there: its parts would go nowhere."""
        if not state.upload:
            return
        key = keys.staged(upload_id)
        try:
            with _translated(key):
                client = await self._open()
                await client.list_parts(Bucket=self._bucket, Key=self._name(key), UploadId=state.upload, MaxParts=1)
        except (_UploadGoneError, KeyUnknownError) as error:
            raise StagedLostError(upload_id, at.size, None) from error

    async def _rest(self, upload_id: str, at: Staged, state: _State) -> bytes:
        """Return the acknowledged bytes that aren't in parts."""
        size = at.size - state.size_of_parts
        if not size:
            return b""
        try:
            pieces = [piece async for piece in self._read(_tail_key(upload_id, state.tail), 0, size)]
        except (KeyUnknownError, TruncatedError) as error:
            raise StagedLostError(upload_id, at.size, state.size_of_parts) from error
        return b"".join(pieces)

    async def _complete(self, upload_id: str, at: Staged, state: _State) -> None:
        """Make the rest the last part, complete the upload, and see that all of it is there."""
        key = keys.staged(upload_id)
        tags = [tag for tag, _ in state.parts]
        if at.size > state.size_of_parts:
            try:
                rest = await self._rest(upload_id, at, state)
            except StagedLostError as error:
                raise _UploadGoneError(str(error)) from error
            tags.append(await self._put_part(key, state.upload, len(tags) + 1, io.BytesIO(rest)))
        await self._finish(key, state.upload, tags)
        await self._check_published(upload_id, at, key)

    async def _check_published(self, upload_id: str, at: Staged, key: Key) -> None:
        try:
            found = await self.size(key)
        except KeyUnknownError as error:
            raise StagedLostError(upload_id, at.size, None) from error
        if found != at.size:
            raise StagedLostError(upload_id, at.size, found)

    def _part_limit(self, number: int) -> int:
        """Return how large the part of that number (from 1) is."""
        return int(self._part_size * 2 ** ((number - 1) // _PARTS_PER_SIZE))


class _Reading:
    """One object being read, by one request or, after interruptions, several."""

    def __init__(self, driver: S3Driver, key: Key, start: int, size: int | None) -> None:
        self._driver = driver
        self._key = key
        self._start = start
        self._end = None if size is None else start + size
        self._tag: str | None = None  # of the object that the first request met
        self.position = start

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Request what is still missing, and yield it."""
        if self._end is not None and self.position >= self._end:
            await self._check_size(self._end)
            return
        answer = await self._request()
        if answer is None:
            return
        body = answer["Body"]
        try:
            assert self._end is not None  # noqa: S101 -- for the type checker: _request has set it
            while self.position < self._end:
                piece = await _read_piece(body, min(_PIECE, self._end - self.position))
                self.position += len(piece)
                yield piece
        finally:
            body.close()

    async def _request(self) -> Mapping[str, Any] | None:
        client = await self._driver._open()  # noqa: SLF001 -- the driver's own other half
        options: dict[str, str] = {}
        if self.position or self._end is not None:  # An empty object has no range that could be asked for.
            options["Range"] = f"bytes={self.position}-{'' if self._end is None else self._end - 1}"
        if self._tag is not None:
            options["IfMatch"] = self._tag
        name = self._driver._name(self._key)  # noqa: SLF001
        try:
            answer: Mapping[str, Any] = await client.get_object(Bucket=self._driver._bucket, Key=name, **options)  # noqa: SLF001
        except ClientError as error:
            if _code(error) not in {"InvalidRange", "416"}:
                raise
            await self._check_size(self.position if self._end is None else self._end)
            return None  # The range begins at the very end.
        self._tag = answer.get("ETag")
        found = self._size_of_object(answer)
        if self._end is None:
            self._end = found
        if self._end > found:
            answer["Body"].close()
            raise TruncatedError(self._key, self._end, found)
        return answer

    @staticmethod
    def _size_of_object(answer: Mapping[str, Any]) -> int:
        """Return the whole object's size: ``bytes 0-9/10`` (RFC 9110 §14.4), or the length of a whole answer."""
        content_range = str(answer.get("ContentRange", ""))
        return int(content_range.rpartition("/")[2]) if content_range else int(answer["ContentLength"])

    async def _check_size(self, end: int) -> None:
        found = await self._driver.size(self._key)
        if end > found:
            raise TruncatedError(self._key, end, found)


async def _read_piece(body: Any, size: int) -> bytes:
    """Return exactly so many bytes of the answer, or raise when it ends before."""
    found = bytearray()
    while len(found) < size:
        more = await body.read(size - len(found))
        if not more:
            raise StorageUnavailableError("the store's answer ended too early")
        found += more
    return bytes(found)


class _Parts:
    """Bytes that become parts of a multipart upload, which begins when the first part is full.

    Full parts are sent while the next one fills: a store that answers late doesn't make the client wait for each.
    """

    def __init__(self, driver: S3Driver, key: Key, state: _State, rest: bytes) -> None:
        self._driver = driver
        self._key = key
        self.upload = state.upload
        self.parts = list(state.parts)
        self.rest = io.BytesIO()
        self.rest.write(rest)
        self.size = state.size_of_parts + len(rest)
        self._sending: deque[tuple[asyncio.Task[str], int]] = deque()
        self._is_broken = False

    async def append(self, data: Bytes) -> None:
        """Add bytes, and begin to send what fills a part."""
        self.check()
        view = memoryview(data).cast("B")
        with self.breaking():
            while view:
                limit = self._driver._part_limit(self._next_number)  # noqa: SLF001 -- the driver's own other half
                taken = min(len(view), limit - self.rest.tell())
                self.rest.write(view[:taken])
                self.size += taken
                view = view[taken:]
                if self.rest.tell() >= limit:
                    await self.send()

    async def send(self) -> None:
        """Begin to send what is waiting as the next part, once there is room for it beside those under way."""
        if not self.upload:
            self.upload = await self._driver._begin(self._key)  # noqa: SLF001
        if len(self._sending) >= _PARTS_UNDER_WAY:
            await self._settle_first()
        number, size, body = self._next_number, self.rest.tell(), self.rest
        body.seek(0)
        self.rest = io.BytesIO()
        sending = self._driver._put_part(self._key, self.upload, number, body)  # noqa: SLF001
        self._sending.append((asyncio.create_task(sending), size))

    async def settle(self) -> None:
        """Wait until every part that was begun is stored."""
        while self._sending:
            await self._settle_first()

    async def leave(self) -> None:
        """Give up the parts under way, if there are any: nobody waits for them any more."""
        tasks = [task for task, _ in self._sending]
        self._sending.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _next_number(self) -> int:
        return len(self.parts) + len(self._sending) + 1

    async def _settle_first(self) -> None:
        task, size = self._sending[0]
        tag = await task
        self._sending.popleft()
        self.parts.append((tag, size))

    def check(self) -> None:
        """Refuse to go on after an error or a commit."""
        if self._is_broken:
            raise StorageFailedError(f"writing {self._key} failed or is committed: this handle can only be left")

    @contextmanager
    def breaking(self, *, also_after_success: bool = False) -> Iterator[None]:
        """Remember that the handle can't be used any more, if the block fails."""
        self._is_broken, done = True, False
        try:
            yield
            done = True
        finally:
            self._is_broken = also_after_success or not done


class _Writing:
    """An object being written."""

    def __init__(self, driver: S3Driver, key: Key) -> None:
        self._driver = driver
        self._key = key
        self._parts = _Parts(driver, key, _State(), b"")

    @property
    def size(self) -> int:
        return self._parts.size

    async def append(self, data: Bytes) -> None:
        await self._parts.append(data)

    async def commit(self) -> None:
        parts = self._parts
        parts.check()
        with parts.breaking(also_after_success=True):
            if not parts.upload:
                parts.rest.seek(0)
                await self._driver._put(self._key, parts.rest)  # noqa: SLF001 -- the driver's own other half
                return
            if parts.rest.tell():
                await parts.send()
            await parts.settle()
            await self._driver._finish(self._key, parts.upload, [tag for tag, _ in parts.parts])  # noqa: SLF001
            parts.upload = ""

    async def leave(self) -> None:
        """Abort what was begun and isn't committed."""
        await self._parts.leave()
        if self._parts.upload:
            await self._driver._abort(self._key, self._parts.upload)  # noqa: SLF001


class _Staging:
    """A staged upload being continued."""

    def __init__(self, driver: S3Driver, upload_id: str, state: _State, rest: bytes) -> None:
        self._driver = driver
        self._upload_id = upload_id
        self._tail = state.tail if rest else ""  # the object that holds exactly what is waiting, if there is one
        self._old_tails = (state.tail,) if state.tail else ()
        self._told = state.upload  # the multipart upload that a checkpoint has told of
        self._parts = _Parts(driver, keys.staged(upload_id), state, rest)

    @property
    def size(self) -> int:
        return self._parts.size

    async def append(self, data: Bytes, hasher: TakesBytes | None = None) -> None:
        self._parts.check()
        if not len(data):
            return
        if hasher is not None:
            with self._parts.breaking():
                await self._show(data, hasher)
        self._tail = ""
        try:
            await self._parts.append(data)
        except _UploadGoneError as error:
            raise StagedLostError(self._upload_id, self.size, None) from error

    async def checkpoint(self) -> Staged:
        parts = self._parts
        parts.check()
        with parts.breaking():
            await self._settle()
            if parts.rest.tell() and not self._tail:
                tail = secrets.token_hex(8)
                body = io.BytesIO(parts.rest.getbuffer())
                await self._driver._put(_tail_key(self._upload_id, tail), body)  # noqa: SLF001 -- the driver's own
                self._tail = tail
            old = tuple(tail for tail in self._old_tails if tail != self._tail)
            state = _State(parts.upload, tuple(parts.parts), self._tail, old)
            # The caller may go on from this checkpoint or, if it isn't kept, from one before: nothing goes yet.
            if self._tail and self._tail not in self._old_tails:
                self._old_tails = (*self._old_tails, self._tail)
            self._told = parts.upload
            return Staged(parts.size, str(state)) if parts.size else Staged()

    async def leave(self) -> None:
        """Abort what was begun here if nobody will ever know of it: parts of a body that was refused cost money."""
        await self._parts.leave()
        if self._parts.upload and self._parts.upload != self._told:
            with suppress(UnavailableError):  # what went wrong before is told instead
                await self._driver._abort(keys.staged(self._upload_id), self._parts.upload)  # noqa: SLF001

    async def _settle(self) -> None:
        try:
            await self._parts.settle()
        except _UploadGoneError as error:
            raise StagedLostError(self._upload_id, self.size, None) from error

    async def _show(self, data: Bytes, hasher: TakesBytes) -> None:
        if len(data) < _WORTH_A_THREAD:
            hasher.update(data)
        else:
            await call_in(self._driver._pool, hasher.update, data)  # noqa: SLF001 -- the driver's own other half


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Turn the libraries' errors into ours; ``what`` is what the request was about."""
    try:
        yield
    except ClientError as error:
        raise _translation(what, error) from error
    except NoCredentialsError as error:
        raise StorageDeniedError(f"there are no credentials for the bucket of {what}") from error
    except (BotoCoreError, aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        raise StorageUnavailableError(f"the store doesn't answer for {what}: {error}") from error


def _translation(what: str, error: Any) -> Exception:
    code = _code(error)
    status = _status(error)
    if code == "NoSuchUpload":
        return _UploadGoneError(f"the multipart upload of {what} is gone")
    if code in _UNKNOWN:
        return KeyUnknownError(what)
    if code in _FULL or status == 507:
        return StorageFullError(f"no space for {what}: {code}")
    if code in _DENIED or status in {401, 403}:
        return StorageDeniedError(f"the store refuses us {what}: {code}")
    if code in _BUSY or status >= 500 or status == 429:
        return StorageUnavailableError(f"the store can't just now for {what}: {code}")
    return StorageFailedError(f"the store failed on {what}: {error}")


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _tail_key(upload_id: str, tail: str) -> Key:
    return keys.check_key(f"{keys.upload(upload_id)}/{tail}")


def _addressing_style(endpoint: str | None, *, path_style: bool | None) -> str:
    return "path" if (endpoint is not None if path_style is None else path_style) else "virtual"


def _wishes(kms_key: str | None, storage_class: str | None, *, encrypt: bool) -> dict[str, str]:
    """Return what every request that makes an object asks for besides."""
    wishes = {}
    if encrypt:
        wishes["ServerSideEncryption"] = "aws:kms" if kms_key else "AES256"
        if kms_key:
            wishes["SSEKMSKeyId"] = kms_key
    if storage_class:
        wishes["StorageClass"] = storage_class
    return wishes


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def _claims(driver: S3Driver) -> tuple[Driver, PresignsUrl, KeepsNotes]:
    """Tell the type checker what the driver is."""
    return driver, driver, driver
