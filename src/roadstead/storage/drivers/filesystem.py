"""Objects as files of a directory tree, durable when acknowledged.

An object is written beside the tree (``roadstead/tmp``), flushed, renamed into place, and then the folders that lead
to it are flushed: after a power cut it's there whole, or not at all. Staged uploads are files too; publishing one is
a rename. Every append, checkpoint and publication is one call in a thread of the driver's own pool, so that neither
the loop waits for the disk nor the disk's slowness eats the threads of others.
"""

import asyncio
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from roadstead.errors import UnavailableError
from roadstead.storage import keys
from roadstead.storage.folders import FOLDER_MODE, flush_folder, make_folder
from roadstead.storage.ports import (
    Bytes,
    Driver,
    Key,
    KeyInfo,
    KeyInvalidError,
    KeyUnknownError,
    OpensFile,
    Staged,
    StagedBusyError,
    StagedLostError,
    StagingHandle,
    StorageDeniedError,
    StorageFailedError,
    StorageFullError,
    TakesBytes,
    TakesFiles,
    TruncatedError,
    WriteHandle,
)
from roadstead.storage.threads import call_in

P = ParamSpec("P")
R = TypeVar("R")

_PIECE: Final = 1 << 20  # What one thread call reads: large enough that the hop between threads costs little.
# One system call's share of a piece. The kernel answers a larger one with a larger run of free memory for its cache. On
# virtual machines that give free memory back to their host (free page reporting: runs of 2 MiB) such runs have to be
# fetched again, which took three times the processor time of everything else: 3.9 s/GiB in the kernel from the fourth
# push of 256 MiB on at 64 KiB a call, from the third at 256 KiB, from the sixth at 32 KiB, and 1.3 at 16 KiB however
# many. Elsewhere small calls cost about 0.3 s/GiB more than large ones.
_WRITTEN_AT_ONCE: Final = 16 << 10
_FLUSHED_AT_ONCE: Final = 8 << 20  # How much of an upload the disk is told to begin with, while more arrives.
_LISTED_AT_ONCE: Final = 1000  # How many keys one thread call lists.
_DELETED_AT_ONCE: Final = 250  # How many files one thread call removes.
_PUT_AT_ONCE: Final = 64  # How many small files are open at the same time.
_INSTALL_ATTEMPTS: Final = 100  # How often a folder may be pruned from under a rename before we give up.
_FILE_MODE: Final = 0o600
_NO_LINKS: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})

# O_NOFOLLOW: a link planted in the tree leads nowhere. O_NONBLOCK: nor does a named pipe hold a thread for ever.
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_STAGE: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_NOT_A_FILE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO})

_TAGS: Final = "/_manifests/tags"
_WRITTEN_IN: Final = (keys.TEMPORARY, keys.UPLOADS)
_BLOBS_SHA256: Final = f"{keys.BLOBS}sha256"
_FIXED: Final = (
    keys.ROOT,
    keys.BLOBS[:-1],
    _BLOBS_SHA256,
    *(f"{_BLOBS_SHA256}/{prefix:02x}" for prefix in range(256)),
    keys.UPLOADS.rsplit("/", 2)[0],
    keys.UPLOADS[:-1],
    keys.TEMPORARY[:-1],
)
"""The folders that are made once and never pruned, parents first: publishing a blob flushes two folders, not seven."""


class FilesystemDriver:
    """Objects as files below ``root``, which is made if it is missing, like the folders every blob needs.

    ``threads`` is how many calls of the disk may be under way at the same time; hashing happens in them too. Eight
    keep an NVMe disk and a few cores busy; network file systems may want more.
    """

    def __init__(self, root: Path, *, threads: int = 8) -> None:
        self._root = os.path.abspath(root)  # noqa: PTH100 -- a string, because keys are joined on every request
        self._fixed = frozenset(f"{self._root}/{folder}" for folder in _FIXED)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="roadstead-files")
        with _translated(self._root):
            self._prepare()

    # Objects -----------------------------------------------------------------------------------------------------

    def read(self, key: Key, *, start: int = 0, size: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the object's bytes in pieces of 1 MiB; a small object costs one thread call."""
        return self._read(self._checked_path(key), key, start, size, KeyUnknownError(key))

    async def size(self, key: Key) -> int:
        """Return the file's size; on the loop, because the hop to a thread costs more than the call."""
        path = self._checked_path(key)
        with _translated(key):
            try:
                status = os.stat(path, follow_symlinks=False)  # noqa: PTH116 -- strings on the hot path
            except (FileNotFoundError, NotADirectoryError):
                raise KeyUnknownError(key) from None
        if not stat.S_ISREG(status.st_mode):
            raise KeyUnknownError(key)
        return status.st_size

    @asynccontextmanager
    async def write(self, key: Key) -> AsyncGenerator[WriteHandle, None]:
        """Write an object beside the tree; commit flushes and renames it."""
        handle = _Writing(self, key, self._checked_path(key))
        try:
            yield handle
        finally:
            if handle.is_open:
                await self._call(handle.discard)

    async def put(self, objects: Sequence[tuple[Key, Bytes]]) -> None:
        """Write objects in one thread call: files first, then their names, then each folder once."""
        placed = [(self._checked_path(key), data) for key, data in objects]
        if placed:
            await self._call(self._put, placed)

    async def delete(self, key: Key) -> None:
        """Remove the file and the folders that it leaves empty, durably."""
        path = self._checked_path(key)
        await self._call(self._delete, key, path)

    async def delete_many(self, gone: Sequence[Key]) -> Mapping[Key, str]:
        """Remove files in few thread calls; each folder that is left is flushed once a call."""
        placed = [(key, self._checked_path(key)) for key in gone]
        kept: dict[Key, str] = {}
        for start in range(0, len(placed), _DELETED_AT_ONCE):
            kept |= await self._call(self._delete_many, placed[start : start + _DELETED_AT_ONCE])
        return kept

    async def iter_keys(self, prefix: str = "") -> AsyncGenerator[KeyInfo, None]:
        """Yield the regular files whose names can be keys; links aren't followed."""
        found = self._walk(keys.check_prefix(prefix))
        while batch := await self._call(_next_batch, found):
            for info in batch:
                yield info

    async def folders(self, prefix: str) -> Sequence[str]:
        """Return the subfolders whose names can be in keys; links aren't followed."""
        return await self._call(self._folders, keys.check_prefix(prefix))

    # Staged uploads ----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def stage(self, upload_id: str, at: Staged) -> AsyncGenerator[StagingHandle, None]:
        """Continue the upload's file; a lock that dies with its process keeps a second writer out."""
        keys.check_upload_id(upload_id)
        handle = _Staging(self, upload_id, self._upload_path(upload_id), at)
        try:
            if at.size:  # A new upload opens its file with the first append: one thread call less.
                await self._call(handle.open)
            yield handle
        finally:
            if handle.has_more:
                await self._call(handle.drop_more)
            handle.close()

    async def read_staged(self, upload_id: str, at: Staged, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield the upload's acknowledged bytes."""
        path = self._upload_path(upload_id)
        if start >= at.size:
            return
        lost = StagedLostError(upload_id, at.size, None)
        try:
            async with aclosing(self._read(path, upload_id, start, at.size - start, lost)) as pieces:
                async for piece in pieces:
                    yield piece
        except TruncatedError as error:
            raise StagedLostError(upload_id, at.size, error.found) from error

    async def publish(self, upload_id: str, at: Staged, key: Key) -> Key:
        """Rename the upload's file to the key's place, and flush the folders that lead there."""
        target = self._checked_path(key)
        await self._call(self._publish, upload_id, at, key, target)
        return key

    async def discard(self, upload_id: str, at: Staged) -> None:
        """Remove the upload's file."""
        del at  # Whatever is there goes.
        path = self._upload_path(upload_id)
        await self._call(self._delete, upload_id, path)

    async def close(self) -> None:
        """Wait for the calls under way, then let the threads go."""
        await asyncio.to_thread(self._pool.shutdown)

    # What only files can do --------------------------------------------------------------------------------------

    def open_file(self, key: Key) -> int:
        """Return a read-only file descriptor of the object, which the caller closes."""
        path = self._checked_path(key)
        with _translated(key):
            try:
                return os.open(path, _READ)
            except OSError as error:
                if error.errno in _NOT_A_FILE:
                    raise KeyUnknownError(key) from None
                raise

    def path(self, key: Key) -> Path:
        """Return where the object lies or would lie."""
        return Path(self._checked_path(key))

    async def take_file(self, path: Path, key: Key, *, size: int) -> bool:
        """Give a file of this file system a further name, that of the object; False for one of another."""
        target = self._checked_path(key)
        return await self._call(self._take_file, str(path), key, target, size)

    async def purge_temporary(self, older_than: datetime) -> int:
        """Remove what writers left behind when they were killed before ``older_than``; return how many files.

        Staged uploads whose row was never written are among it. One that goes on looks the same: choose a moment
        before which no upload that is still known can have been written to.
        """
        return await self._call(self._purge_temporary, older_than.timestamp())

    # In threads --------------------------------------------------------------------------------------------------

    async def _call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await call_in(self._pool, function, *args, **kwargs)

    def _prepare(self) -> None:
        """Make the root and the fixed folders, the last of them when the names of all others are durable.

        So whoever finds them all has nothing to flush: a process that was killed in here hasn't made the last.
        """
        last = f"{self._root}/{_FIXED[-1]}"
        if os.path.isdir(last) and not self._missing():  # noqa: PTH112
            return
        make_folder(self._root)
        made = {self._root, f"{self._root}/docker", f"{self._root}/docker/registry"}
        for folder in _FIXED[:-1]:
            path = f"{self._root}/{folder}"
            self._make_folder(path)
            made.add(_parent(path))
        for path in sorted(made, key=len, reverse=True):
            flush_folder(path)
        self._make_folder(last)
        flush_folder(_parent(last))

    def _missing(self) -> bool:
        try:
            present = {f"{_BLOBS_SHA256}/{name}" for name in os.listdir(f"{self._root}/{_BLOBS_SHA256}")}  # noqa: PTH208
        except FileNotFoundError:
            return True
        return any(
            folder not in present and not os.path.isdir(f"{self._root}/{folder}")  # noqa: PTH112
            for folder in _FIXED
        )

    def _make_folder(self, path: str) -> None:
        try:
            os.mkdir(path, FOLDER_MODE)  # noqa: PTH102
        except FileExistsError:
            return
        except FileNotFoundError:
            self._make_folder(_parent(path))
            self._make_folder(path)

    def _put(self, objects: Sequence[tuple[str, Bytes]]) -> None:
        with _translated(objects[0][0] if len(objects) == 1 else f"{len(objects)} small files"):
            for start in range(0, len(objects), _PUT_AT_ONCE):
                part = objects[start : start + _PUT_AT_ONCE]
                waiting = {self._new_temporary(): target for target, _ in part}
                try:
                    _write_flushed(list(zip(waiting, (data for _, data in part), strict=True)))
                    for source in list(waiting):
                        self._rename(source, waiting[source])
                        del waiting[source]
                finally:
                    for source in waiting:
                        with suppress(FileNotFoundError):
                            os.unlink(source)  # noqa: PTH108
            self._flush_all_folders({_parent(target) for target, _ in objects})

    def _install(self, source: str, target: str) -> None:
        """Rename a flushed file to its place, making folders on the way, and flush these."""
        self._rename(source, target)
        self._flush_folders(_parent(target))

    def _rename(self, source: str, target: str) -> None:
        """Rename a file to its place, making folders on the way."""
        for _ in range(_INSTALL_ATTEMPTS):
            self._make_folder(_parent(target))
            try:
                os.rename(source, target)  # noqa: PTH104
            except FileNotFoundError:
                # Either a delete pruned the folder between the two calls, or the source itself is gone.
                os.stat(source, follow_symlinks=False)  # noqa: PTH116
            else:
                break
        else:
            raise StorageFailedError(f"folders of {target} vanish as fast as they are made")

    def _flush_folders(self, folder: str) -> None:
        """Flush the folder and those above, up to one of the fixed ones.

        Also when the folder was there already: whoever made it may not have flushed its parent yet.
        """
        for each in self._way_to(folder):
            flush_folder(each)

    def _flush_all_folders(self, folders: Iterable[str]) -> None:
        """Do so for several, each folder once, those furthest down first."""
        every = sorted({above for folder in folders for above in self._way_to(folder)})
        for each in sorted(every, key=len, reverse=True):
            flush_folder(each)

    def _way_to(self, folder: str) -> Iterator[str]:
        """Yield the folder and those above, up to one of the fixed ones."""
        yield folder
        while folder not in self._fixed and len(folder) > len(self._root):
            folder = _parent(folder)
            yield folder

    def _delete(self, what: str, path: str) -> None:
        with _translated(what):
            folder = self._unlink(path)
            if folder is not None:
                flush_folder(folder)

    def _delete_many(self, gone: Sequence[tuple[Key, str]]) -> Mapping[Key, str]:
        kept: dict[Key, str] = {}
        folders: dict[str, Key] = {}
        for key, path in gone:
            try:
                with _translated(key):
                    folder = self._unlink(path)
            except UnavailableError as error:
                kept[key] = str(error)
                continue
            if folder is not None:
                folders[folder] = key
        for folder, key in folders.items():
            with _translated(key):
                flush_folder(folder)
        return kept

    def _unlink(self, path: str) -> str | None:
        """Remove a file and the folders that it leaves empty; return the folder to flush, None where no file was."""
        try:
            os.unlink(path)  # noqa: PTH108
        except OSError as error:
            if error.errno in _NOT_A_FILE:
                return None
            raise
        # Distribution lists a tag by its folder, so empty ones must not stay; and knows a repository's list of tags
        # by the folder around them, so that one must.
        folder = _parent(path)
        while folder not in self._fixed and len(folder) > len(self._root) and not folder.endswith(_TAGS):
            try:
                os.rmdir(folder)  # noqa: PTH106
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                break
            folder = _parent(folder)
        return folder

    def _take_file(self, source: str, key: Key, target: str, size: int) -> bool:
        with _translated(key):
            temporary = self._new_temporary()
            try:
                os.link(source, temporary, follow_symlinks=False)
            except OSError as error:
                if error.errno in _NO_LINKS:
                    return False
                raise
            try:
                # By the new name, so that it is that file and no other which is looked at and flushed.
                descriptor = os.open(temporary, _READ)
                try:
                    if os.fstat(descriptor).st_size != size:
                        raise StorageFailedError(f"{key}: the file to take isn't of {size} bytes")
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                self._install(temporary, target)
            except BaseException:
                with suppress(FileNotFoundError):  # It failed after the rename.
                    os.unlink(temporary)  # noqa: PTH108
                raise
            return True

    def _publish(self, upload_id: str, at: Staged, key: Key, target: str) -> None:
        source = self._upload_path(upload_id)
        with _translated(key):
            descriptor = self._open_upload(upload_id, source, create=at.size == 0)
            if descriptor is None:
                self._check_published(upload_id, at, target)
                return
            try:
                size = os.fstat(descriptor).st_size
                if size < at.size:
                    raise StagedLostError(upload_id, at.size, size)
                if size > at.size:
                    os.ftruncate(descriptor, at.size)
                    os.fsync(descriptor)
                elif at.size == 0:
                    os.fsync(descriptor)  # The file of an empty upload may be a moment old.
                self._install(source, target)
            except FileNotFoundError as error:  # It was discarded while we held it open.
                raise StagedLostError(upload_id, at.size, None) from error
            finally:
                os.close(descriptor)

    def _check_published(self, upload_id: str, at: Staged, target: str) -> None:
        """Accept that the file isn't staged any more if it was published before; make that durable."""
        try:
            status = os.stat(target, follow_symlinks=False)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            raise StagedLostError(upload_id, at.size, None) from None
        if not stat.S_ISREG(status.st_mode) or status.st_size != at.size:
            raise StagedLostError(upload_id, at.size, None)
        self._flush_folders(_parent(target))

    def _open_upload(self, upload_id: str, path: str, *, create: bool) -> int | None:
        """Open the upload's file and lock it, or return None when there is none.

        The lock is the descriptor's own and goes with it, even if the process is killed.
        """
        while True:
            try:
                descriptor = os.open(path, _STAGE | (os.O_CREAT if create else 0), _FILE_MODE)
            except FileNotFoundError:
                return None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The file may have been published between the two calls: then what we hold isn't ours to write.
                if _is_at(descriptor, path):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise StagedBusyError(upload_id) from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _purge_temporary(self, older_than_s: float) -> int:
        return sum(self._purge_folder(f"{self._root}/{name[:-1]}", older_than_s) for name in _WRITTEN_IN)

    def _purge_folder(self, folder: str, older_than_s: float) -> int:
        purged = 0
        with _translated(folder), os.scandir(folder) as entries:
            for entry in entries:
                try:
                    if entry.stat(follow_symlinks=False).st_mtime < older_than_s:
                        os.unlink(entry.path)  # noqa: PTH108
                        purged += 1
                except FileNotFoundError:  # Its writer was alive after all and has just committed it.
                    continue
        return purged

    async def _read(
        self, path: str, what: str, start: int, size: int | None, missing: Exception
    ) -> AsyncGenerator[bytes, None]:
        reading = _Reading(path, what, start, size, missing)
        try:
            while piece := await self._call(reading.next_piece):
                yield piece
                if reading.is_done:
                    break
        finally:
            reading.close()

    def _walk(self, prefix: str) -> Iterator[KeyInfo]:
        """Yield what lies below the prefix; folders are listed when their turn comes, so memory stays small."""
        waiting = [prefix]
        while waiting:
            folder = waiting.pop()
            with _translated(folder or self._root):
                try:
                    entries = list(os.scandir(f"{self._root}/{folder}"))
                except (FileNotFoundError, NotADirectoryError):
                    continue
            for entry in entries:
                name = folder + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if prefix.startswith(f"{name}/") or not keys.is_internal(f"{name}/"):
                        waiting.append(f"{name}/")
                elif (info := _info(entry, name)) is not None:
                    yield info

    def _folders(self, prefix: str) -> Sequence[str]:
        with _translated(prefix or self._root):
            try:
                with os.scandir(f"{self._root}/{prefix}") as entries:
                    return sorted(entry.name for entry in entries if _is_folder(entry))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def _checked_path(self, key: str) -> str:
        return f"{self._root}/{keys.check_key(key)}"

    def _upload_path(self, upload_id: str) -> str:
        return f"{self._root}/{keys.upload(upload_id)}"

    def _new_temporary(self) -> str:
        return f"{self._root}/{keys.TEMPORARY}{secrets.token_hex(16)}"


class _Reading:
    """One file being read; every method but ``close`` runs in a thread."""

    def __init__(self, path: str, what: str, start: int, size: int | None, missing: Exception) -> None:
        self._path = path
        self._what = what
        self._position = start
        self._size = size
        self._missing = missing
        self._end = 0
        self._descriptor: int | None = None

    @property
    def is_done(self) -> bool:
        return self._descriptor is None

    def next_piece(self) -> bytes:
        with _translated(self._what):
            if self._descriptor is None:
                self._open()
            assert self._descriptor is not None  # noqa: S101 -- for the type checker: _open sets it or raises
            # A new object per piece, because whoever takes it may keep it; the allocator gives the same memory
            # again once the piece before was dropped, so this costs no page faults.
            piece = os.pread(self._descriptor, min(_PIECE, self._end - self._position), self._position)
            self._position += len(piece)
            if not piece and self._position < self._end:
                raise TruncatedError(self._what, self._end, self._position)
            if self._position >= self._end:
                self.close()
            return piece

    def _open(self) -> None:
        try:
            self._descriptor = os.open(self._path, _READ)
        except OSError as error:
            if error.errno in _NOT_A_FILE:
                raise self._missing from None
            raise
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise self._missing
        self._end = status.st_size if self._size is None else self._position + self._size
        if max(self._end, self._position) > status.st_size:
            raise TruncatedError(self._what, max(self._end, self._position), status.st_size)
        if self._end - self._position > _PIECE:
            os.posix_fadvise(self._descriptor, self._position, self._end - self._position, os.POSIX_FADV_SEQUENTIAL)

    def close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


class _Writing:
    """An object being written to a temporary file, which the first append or the commit makes."""

    def __init__(self, driver: FilesystemDriver, key: Key, target: str) -> None:
        self._driver = driver
        self._key = key
        self._target = target
        self._temporary = ""
        self._descriptor: int | None = None
        self._is_broken = False
        self.size = 0

    @property
    def is_open(self) -> bool:
        return self._descriptor is not None

    async def append(self, data: Bytes) -> None:
        await self._driver._call(self._append, data)  # noqa: SLF001 -- the driver's own other half

    async def commit(self) -> None:
        await self._driver._call(self._commit)  # noqa: SLF001

    def _append(self, data: Bytes) -> None:
        with self._breaking(), _translated(self._key):
            self.size += _write_all(self._opened(), data, self.size)

    def _commit(self) -> None:
        with self._breaking(), _translated(self._key):
            descriptor = self._opened()
            os.fsync(descriptor)
            self._driver._install(self._temporary, self._target)  # noqa: SLF001
            self._descriptor = None
            os.close(descriptor)
            self._is_broken = True  # Nothing can be appended to what is committed.

    def discard(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)
            with _translated(self._key):
                try:
                    os.unlink(self._temporary)  # noqa: PTH108
                except FileNotFoundError:  # The commit failed after its rename.
                    return

    def _opened(self) -> int:
        if self._is_broken:
            raise StorageFailedError(f"writing {self._key} failed or is committed: this handle can only be left")
        if self._descriptor is None:
            self._temporary = self._driver._new_temporary()  # noqa: SLF001
            self._descriptor = os.open(self._temporary, _CREATE, _FILE_MODE)
        return self._descriptor

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._is_broken = True
            raise


class _Staging:
    """A staged upload's file, open and locked."""

    def __init__(self, driver: FilesystemDriver, upload_id: str, path: str, at: Staged) -> None:
        self._driver = driver
        self._upload_id = upload_id
        self._path = path
        self._acknowledged = at.size
        self._flushing = at.size
        self._descriptor: int | None = None
        self._is_broken = False
        self.size = at.size

    async def append(self, data: Bytes, hasher: TakesBytes | None = None) -> None:
        await self._driver._call(self._append, data, hasher)  # noqa: SLF001

    async def checkpoint(self) -> Staged:
        return await self._driver._call(self._checkpoint)  # noqa: SLF001

    def open(self) -> None:
        """Open and lock the file, and cut what was never acknowledged."""
        with _translated(self._upload_id):
            descriptor = self._driver._open_upload(  # noqa: SLF001
                self._upload_id, self._path, create=self._acknowledged == 0
            )
            if descriptor is None:
                raise StagedLostError(self._upload_id, self._acknowledged, None)
            self._descriptor = descriptor
            found = os.fstat(descriptor).st_size
            if found < self._acknowledged:
                raise StagedLostError(self._upload_id, self._acknowledged, found)
            if found > self._acknowledged:
                os.ftruncate(descriptor, self._acknowledged)

    @property
    def has_more(self) -> bool:
        """Say whether the file may hold what was never acknowledged."""
        return self._descriptor is not None and (self._is_broken or self.size != self._acknowledged)

    def drop_more(self) -> None:
        """Give back the room of what was never acknowledged, while nobody else can write.

        Else whoever is refused again and again, in the middle of a body, would fill the disk.
        """
        assert self._descriptor is not None  # noqa: S101 -- for the type checker: `has_more` was asked
        with suppress(OSError):  # The sweep removes it later; what went wrong before is told instead.
            if self._acknowledged == 0:
                if _is_at(self._descriptor, self._path):
                    os.unlink(self._path)  # noqa: PTH108
            elif os.fstat(self._descriptor).st_size > self._acknowledged:
                os.ftruncate(self._descriptor, self._acknowledged)

    def close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def _append(self, data: Bytes, hasher: TakesBytes | None) -> None:
        with self._breaking(), _translated(self._upload_id):
            descriptor = self._opened()
            if hasher is not None:
                hasher.update(data)
            self.size += _write_all(descriptor, data, self.size)
            if self.size - self._flushing >= _FLUSHED_AT_ONCE:
                # Begins to write what is dirty and doesn't wait: little is left to do at the checkpoint.
                os.posix_fadvise(descriptor, self._flushing, self.size - self._flushing, os.POSIX_FADV_DONTNEED)
                self._flushing = self.size

    def _checkpoint(self) -> Staged:
        with self._breaking(), _translated(self._upload_id):
            descriptor = self._opened()
            os.fdatasync(descriptor)
            if self._acknowledged == 0:  # The file's name has to be as durable as its bytes.
                flush_folder(_parent(self._path))
            self._acknowledged = self.size
            return Staged(self.size, '{"driver":"filesystem"}')

    def _opened(self) -> int:
        if self._is_broken:
            raise StorageFailedError(f"staging upload {self._upload_id} failed: this handle can only be left")
        if self._descriptor is None:
            self.open()
        assert self._descriptor is not None  # noqa: S101 -- for the type checker: open sets it or raises
        return self._descriptor

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._is_broken = True
            raise


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Turn the operating system's errors into ours; ``what`` is what the call was about."""
    try:
        yield
    except OSError as error:
        raise _translation(what, error) from error


def _translation(what: str, error: OSError) -> UnavailableError:
    reason = f"{what}: {error.strerror or error}"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return StorageFullError(f"no space for {reason}")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return StorageDeniedError(f"the file system refuses us {reason}")
        case _:
            return StorageFailedError(f"the file system failed on {reason}")


def _write_all(descriptor: int, data: Bytes, position: int) -> int:
    """Write every byte at the position, however many calls the kernel needs; return how many."""
    view = memoryview(data).cast("B")
    written = 0
    while written < len(view):
        written += os.pwrite(descriptor, view[written : written + _WRITTEN_AT_ONCE], position + written)
    return written


def _write_flushed(files: Sequence[tuple[str, Bytes]]) -> None:
    """Make files of these bytes, and flush them."""
    with ExitStack() as stack:
        opened = []
        for path, data in files:
            descriptor = os.open(path, _CREATE, _FILE_MODE)
            stack.callback(os.close, descriptor)
            opened.append(descriptor)
            _write_all(descriptor, data, 0)
        if len(opened) > 1:
            # The disk begins with all of them, so that the first flush takes most of what the others would.
            for descriptor in opened:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        for descriptor in opened:
            os.fsync(descriptor)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _is_at(descriptor: int, path: str) -> bool:
    """Tell whether the open file is the one that lies at the path now."""
    try:
        there = os.stat(path, follow_symlinks=False)  # noqa: PTH116
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def _info(entry: os.DirEntry[str], name: str) -> KeyInfo | None:
    """Return what a listing tells about a file, or None for what can't be an object or is gone."""
    try:
        if not entry.is_file(follow_symlinks=False):
            return None
        status = entry.stat(follow_symlinks=False)
        return KeyInfo(keys.check_key(name), status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))
    except (FileNotFoundError, KeyInvalidError):
        return None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether the entry is a folder that keys can lie in."""
    try:
        keys.check_key(entry.name)
        return entry.is_dir(follow_symlinks=False)
    except (FileNotFoundError, KeyInvalidError):
        return False


def _next_batch(found: Iterator[KeyInfo]) -> list[KeyInfo]:
    return list(islice(found, _LISTED_AT_ONCE))


def _claims(driver: FilesystemDriver) -> tuple[Driver, OpensFile, TakesFiles]:
    """Tell the type checker what the driver is."""
    return driver, driver, driver
