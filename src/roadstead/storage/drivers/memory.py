"""Objects in memory: a stand-in for tests and trials that keeps every promise except to survive.

Drivers over one ``MemoryStore`` see the same objects, as processes over one disk do.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from roadstead.storage import keys
from roadstead.storage.ports import (
    Bytes,
    Driver,
    Key,
    KeyInfo,
    KeyUnknownError,
    Staged,
    StagedBusyError,
    StagedLostError,
    StagingHandle,
    StorageFailedError,
    TakesBytes,
    TruncatedError,
    WriteHandle,
)

_PIECE: Final = 1 << 20


@dataclass(slots=True)
class MemoryStore:
    """What several drivers can share; everything in it belongs to one event loop."""

    objects: dict[Key, tuple[bytes, datetime]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)


class MemoryDriver:
    """Objects in memory."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self._store = store if store is not None else MemoryStore()

    async def read(self, key: Key, *, start: int = 0, size: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the object's bytes as they were when the iteration began."""
        content = self._content(key)
        end = len(content) if size is None else start + size
        if max(start, end) > len(content):
            raise TruncatedError(key, max(start, end), len(content))
        for position in range(start, end, _PIECE):
            yield content[position : min(position + _PIECE, end)]

    async def size(self, key: Key) -> int:
        """Return the object's size."""
        return len(self._content(key))

    @asynccontextmanager
    async def write(self, key: Key) -> AsyncGenerator[WriteHandle, None]:
        """Collect bytes, and put them under the key at commit."""
        yield _Writing(self._store, keys.check_key(key))

    async def put(self, objects: Sequence[tuple[Key, Bytes]]) -> None:
        """Put bytes under keys."""
        now = datetime.now(UTC)
        self._store.objects.update({keys.check_key(key): (bytes(data), now) for key, data in objects})

    async def delete(self, key: Key) -> None:
        """Forget the object."""
        self._store.objects.pop(keys.check_key(key), None)

    async def delete_many(self, gone: Sequence[Key]) -> Mapping[Key, str]:
        """Forget objects."""
        for key in gone:
            await self.delete(key)
        return {}

    async def iter_keys(self, prefix: str = "") -> AsyncGenerator[KeyInfo, None]:
        """Yield the objects as they were when the iteration began."""
        keys.check_prefix(prefix)
        for key, (content, modified) in sorted(self._store.objects.items()):
            if key.startswith(prefix) and (not keys.is_internal(key) or keys.is_internal(prefix)):
                yield KeyInfo(key, len(content), modified)

    async def folders(self, prefix: str) -> Sequence[str]:
        """Return the next components of the keys that go on behind it."""
        keys.check_prefix(prefix)
        below = (key.removeprefix(prefix) for key in self._store.objects if key.startswith(prefix))
        return sorted({rest.partition("/")[0] for rest in below if "/" in rest})

    @asynccontextmanager
    async def stage(self, upload_id: str, at: Staged) -> AsyncGenerator[StagingHandle, None]:
        """Continue an upload; the handle keeps others out."""
        keys.check_upload_id(upload_id)
        if upload_id in self._store.busy:
            raise StagedBusyError(upload_id)
        content = self._store.uploads.setdefault(upload_id, bytearray()) if not at.size else self._staged(upload_id, at)
        self._store.busy.add(upload_id)
        try:
            del content[at.size :]
            handle = _Staging(content)
            try:
                yield handle
            finally:
                del content[handle.acknowledged :]
                if not content and self._store.uploads.get(upload_id) is content:
                    del self._store.uploads[upload_id]
        finally:
            self._store.busy.discard(upload_id)

    async def read_staged(self, upload_id: str, at: Staged, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield the acknowledged bytes."""
        keys.check_upload_id(upload_id)
        if start >= at.size:
            return
        content = bytes(self._staged(upload_id, at)[: at.size])
        for position in range(start, at.size, _PIECE):
            yield content[position : position + _PIECE]

    async def publish(self, upload_id: str, at: Staged, key: Key) -> Key:
        """Put the acknowledged bytes under the key, and forget the upload."""
        keys.check_upload_id(upload_id)
        keys.check_key(key)
        if upload_id in self._store.busy:
            raise StagedBusyError(upload_id)
        if upload_id in self._store.uploads or at.size == 0:
            content = bytes(self._staged(upload_id, at)[: at.size]) if at.size else b""
            self._store.objects[key] = (content, datetime.now(UTC))
            self._store.uploads.pop(upload_id, None)
        elif key not in self._store.objects or await self.size(key) != at.size:
            raise StagedLostError(upload_id, at.size, None)
        return key

    async def discard(self, upload_id: str, at: Staged) -> None:
        """Forget the upload."""
        del at  # Whatever is there goes.
        self._store.uploads.pop(keys.check_upload_id(upload_id), None)

    async def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def _content(self, key: Key) -> bytes:
        try:
            return self._store.objects[keys.check_key(key)][0]
        except KeyError:
            raise KeyUnknownError(key) from None

    def _staged(self, upload_id: str, at: Staged) -> bytearray:
        content = self._store.uploads.get(upload_id)
        if content is None or len(content) < at.size:
            raise StagedLostError(upload_id, at.size, None if content is None else len(content))
        return content


class _Writing:
    def __init__(self, store: MemoryStore, key: Key) -> None:
        self._store = store
        self._key = key
        self._content = bytearray()
        self._is_committed = False

    @property
    def size(self) -> int:
        return len(self._content)

    async def append(self, data: Bytes) -> None:
        self._check()
        self._content += data

    async def commit(self) -> None:
        self._check()
        self._is_committed = True
        self._store.objects[self._key] = (bytes(self._content), datetime.now(UTC))

    def _check(self) -> None:
        if self._is_committed:
            raise StorageFailedError(f"{self._key} is committed: this handle can only be left")


class _Staging:
    def __init__(self, content: bytearray) -> None:
        self._content = content
        self.acknowledged = len(content)

    @property
    def size(self) -> int:
        return len(self._content)

    async def append(self, data: Bytes, hasher: TakesBytes | None = None) -> None:
        if hasher is not None:
            hasher.update(data)
        self._content += data

    async def checkpoint(self) -> Staged:
        self.acknowledged = len(self._content)
        return Staged(self.acknowledged, '{"driver":"memory"}')


_: Driver = MemoryDriver()
