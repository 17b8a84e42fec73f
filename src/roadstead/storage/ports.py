"""What a store of bytes has to offer, and what can go wrong with one.

A driver keeps *objects*: bytes under a key, visible whole or not at all. It also keeps *staged uploads*: bytes on
their way in, which nobody can read under a key until they are published. How far a staged upload is durable is a
plain value, ``Staged``, that the caller keeps (in the database), so that any process can go on where another stopped.

    KeyInvalidError        InvalidError       the text can't be a key or an upload id
    KeyUnknownError        NotFoundError      nothing is stored under the key
    StagedLostError        NotFoundError      fewer staged bytes are there than were acknowledged
    StagedBusyError        ConflictError      another handle on the same staged upload is open
    StagedUnreadableError  ConflictError      this store can't read back what is staged
    TruncatedError         UnavailableError   an object ends before the bytes that were asked for
    StorageFullError       UnavailableError   no space, or the quota is used up
    StorageDeniedError     UnavailableError   the store refuses *us*: permissions, credentials
    StorageUnavailableError UnavailableError  the store doesn't answer
    StorageFailedError     UnavailableError   the store answers with an error (a broken disk, for one)

The executable form of every promise below is ``roadstead.testing.contracts.driver.DriverContract``.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NewType, Protocol, runtime_checkable

from roadstead.errors import ConflictError, InvalidError, NotFoundError, UnavailableError

Key = NewType("Key", str)
"""Slash-separated components of ``[A-Za-z0-9._-]``; made and checked by ``roadstead.storage.keys``."""

Bytes = bytes | bytearray | memoryview
"""What may be appended: the driver is done with it when ``append`` returns, so the caller may reuse its buffer."""


class KeyInvalidError(InvalidError):
    """The text can't be a key, a prefix of keys or an upload id: it might lead out of the store."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"{text[:200]!r} can't name anything in the store: {reason}")
        self.text = text
        self.reason = reason


class KeyUnknownError(NotFoundError):
    """Nothing is stored under the key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"nothing is stored under {key}")
        self.key = key


class StagedLostError(NotFoundError):
    """Fewer bytes are staged than were acknowledged (or others): the upload has to begin again."""

    def __init__(self, upload_id: str, expected: int, found: int | None) -> None:
        super().__init__(
            f"upload {upload_id} should have {expected} bytes staged, but "
            + ("they can't be found" if found is None else f"only {found} are there")
        )
        self.upload_id = upload_id
        self.expected = expected
        self.found = found


class StagedBusyError(ConflictError):
    """Another handle on the same staged upload is open, perhaps in another process."""

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"upload {upload_id} is being written by somebody else")
        self.upload_id = upload_id


class StagedUnreadableError(ConflictError):
    """The store can't read back what is staged (parts of an unfinished S3 multipart upload)."""

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"the store can't read back the bytes staged for upload {upload_id}")
        self.upload_id = upload_id


class TruncatedError(UnavailableError):
    """An object ends before the bytes that were asked for: it is damaged, or the range was never in it."""

    def __init__(self, key: str, expected: int, found: int) -> None:
        super().__init__(f"{key} ends at byte {found}, but bytes up to {expected} were asked for")
        self.key = key
        self.expected = expected
        self.found = found


class StorageFullError(UnavailableError):
    """There is no space left, or the quota is used up."""

    in_short = "the storage has no space left"
    retry_after_s = 30

    def advice(self) -> str | None:
        """Return how to make room."""
        return "Free space on the storage volume (roadstead gc removes what nothing refers to) or enlarge it."


class StorageDeniedError(UnavailableError):
    """The store refuses *us*, not the client: which is why a client sees 'unavailable' and not 'denied'."""

    in_short = "the storage refuses the server what it asks for"
    retry_after_s = 30

    def advice(self) -> str | None:
        """Return what to look at."""
        return "Check that the service's user, or the credentials in [storage], may read, write, list and delete there."


class StorageUnavailableError(UnavailableError):
    """The store doesn't answer, or says that it can't just now."""

    in_short = "the storage doesn't answer just now"


class StorageFailedError(UnavailableError):
    """The store answers with an error that isn't one of the others: an I/O error of the disk, for one."""

    in_short = "the storage failed"


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What a listing tells about one object."""

    key: Key
    size: int
    modified: datetime  # aware, UTC


@dataclass(frozen=True, slots=True)
class Staged:
    """How far an upload's bytes are durable: plain data that the caller keeps, perhaps for another process."""

    size: int = 0
    state: str = ""  # the driver's own words (JSON); empty while nothing is stored


class TakesBytes(Protocol):
    """Something that wants to see every byte as it passes: a hasher."""

    def update(self, data: Bytes, /) -> None:
        """Take the next bytes; called in a thread, never twice at the same time."""
        ...


class WriteHandle(Protocol):
    """An object being written. After an error it can only be left."""

    @property
    def size(self) -> int:
        """The number of bytes appended so far."""
        ...

    async def append(self, data: Bytes) -> None:
        """Append bytes; pieces of 1 MiB or more cost least."""
        ...

    async def commit(self) -> None:
        """Make the bytes visible under the key, whole and durable, once; nothing can be appended afterwards."""
        ...


class StagingHandle(Protocol):
    """A staged upload being continued. After an error it can only be left; then resume at the last ``Staged``."""

    @property
    def size(self) -> int:
        """The number of bytes staged so far, durable or not."""
        ...

    async def append(self, data: Bytes, hasher: TakesBytes | None = None) -> None:
        """Append bytes and show them to ``hasher``, both in one thread call where there are threads.

        After an error the hasher may have seen bytes that aren't stored: throw it away with the handle.
        """
        ...

    async def checkpoint(self) -> Staged:
        """Return how far the upload is, once everything appended is durable."""
        ...


class Driver(Protocol):
    """Bytes under keys.

    Every method may raise ``StorageUnavailableError``, ``StorageDeniedError``, ``StorageFailedError`` and, where it
    writes, ``StorageFullError``. Everything is safe to cancel: an object is there whole or not at all. No key is a
    folder of another (``a`` beside ``a/b``): trees of files can't hold both. One driver belongs to one event loop.
    """

    def read(self, key: Key, *, start: int = 0, size: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the object's bytes from ``start``, ``size`` of them (all that follow when None).

        Pieces are 256 KiB or more, the last excepted, and at most a few MiB, so memory stays flat. Raises
        ``KeyUnknownError`` at the first piece, and ``TruncatedError`` when the object ends before the range does:
        an iteration that ends by itself has given every byte. Replacing or deleting the object while it is read
        gives the bytes as they were, or an error, never a mixture.
        """
        ...

    async def size(self, key: Key) -> int:
        """Return the object's size, or raise ``KeyUnknownError``."""
        ...

    def write(self, key: Key) -> AbstractAsyncContextManager[WriteHandle]:
        """Write an object: ``async with driver.write(key) as handle``, append, commit.

        Leaving without commit discards. After commit the bytes survive a power cut. Of several writers of one key
        the last to commit wins; bytes are never mixed.
        """
        ...

    async def put(self, objects: Sequence[tuple[Key, Bytes]]) -> None:
        """Write small objects, each from memory; when it returns, all of them survive a power cut.

        Costs less than as many ``write``, most of all where many are written at once. Stopped in the middle by an
        error or a cancellation it leaves some of them written, each whole or as it was. Keys differ.
        """
        ...

    async def delete(self, key: Key) -> None:
        """Remove the object; it isn't an error when there is none."""
        ...

    async def delete_many(self, gone: Sequence[Key]) -> Mapping[Key, str]:
        """Remove objects, as ``delete`` does; return those that the store doesn't let go, and why.

        Costs less than as many ``delete``, most of all where keys lie in one folder. An error may leave any of them.
        """
        ...

    def iter_keys(self, prefix: str = "") -> AsyncGenerator[KeyInfo, None]:
        """Yield what is stored below ``prefix``; what lies in one folder of the tree comes together, in any order.

        ``prefix`` is empty or ends in ``/``. What changes meanwhile may be listed or not. The driver's own folders
        (``keys.UPLOADS``, ``keys.TEMPORARY``) are listed only when the prefix lies in them.
        """
        ...

    async def folders(self, prefix: str) -> Sequence[str]:
        """Return the names of the folders that lie directly in ``prefix`` (as above), ascending; empty for none.

        A file system may tell of folders in which nothing is stored.
        """
        ...

    def stage(self, upload_id: str, at: Staged) -> AbstractAsyncContextManager[StagingHandle]:
        """Continue the upload at ``at``, or begin it at ``Staged()``.

        What is stored beyond ``at.size`` was never acknowledged and is discarded; so is, when the handle is left, what
        no checkpoint tells of (a store may keep such parts of an upload that lives on). Raises ``StagedLostError`` when
        less is there, and ``StagedBusyError`` (now or at the first append) where the store can tell that another
        handle is open; a store that can't tell notices at publication that its bytes were replaced
        (``StagedLostError``), so that two writers never make a mixture.
        """
        ...

    def read_staged(self, upload_id: str, at: Staged, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield the staged bytes from ``start`` to ``at.size``: for hashing anew what no state was kept of.

        Raises ``StagedLostError``, or ``StagedUnreadableError`` where the store can't.
        """
        ...

    async def publish(self, upload_id: str, at: Staged, key: Key) -> Key:
        """Make exactly the first ``at.size`` staged bytes visible, durably, and return the key they lie under.

        That is ``key``, unless the store would have to copy them: then it may keep them where they are. What lay
        under the key is replaced. Idempotent: repeated after a crash with the same arguments it gives the same.
        Raises ``StagedLostError`` when the bytes aren't there.
        """
        ...

    async def discard(self, upload_id: str, at: Staged) -> None:
        """Remove what is staged, acknowledged or not; idempotent. What was published stays."""
        ...

    async def close(self) -> None:
        """Let go of threads and connections; idempotent. Nothing else may be called afterwards."""
        ...


@runtime_checkable
class OpensFile(Protocol):
    """A driver whose objects are files, which a server can hand to the kernel."""

    def open_file(self, key: Key) -> int:
        """Return a read-only file descriptor, which the caller closes; or raise ``KeyUnknownError``.

        Synchronous: one system call.
        """
        ...

    def path(self, key: Key) -> Path:
        """Return where the object lies or would lie, without looking."""
        ...


@runtime_checkable
class TakesFiles(Protocol):
    """A driver that can have a file for an object as it lies there, without copying it."""

    async def take_file(self, path: Path, key: Key, *, size: int) -> bool:
        """Make the file an object under the key, too, whole and durable; False where it can't: it lies too far away.

        Nobody may write to it any more. Its own name stays. Raises ``StorageFailedError`` if it hasn't that size.
        """
        ...


@runtime_checkable
class PurgesTemporary(Protocol):
    """A driver in which a killed writer leaves something behind."""

    async def purge_temporary(self, older_than: datetime) -> int:
        """Remove what writers left behind that began before ``older_than``; return how many pieces.

        Choose a moment before which no upload that is still known can have begun.
        """
        ...


@runtime_checkable
class PresignsUrl(Protocol):
    """A driver that can let others read an object without us in between."""

    async def presign(self, key: Key, lifetime: timedelta) -> str:
        """Return a URL that answers GET and ranged GET for ``lifetime``, without looking whether the key exists."""
        ...


@dataclass(frozen=True, slots=True)
class Note:
    """A small object that several write, each upon what it has read."""

    content: bytes
    version: str  # another one after each write
    age: timedelta  # by the store's own clock


class NoteChangedError(ConflictError):
    """Somebody else has written meanwhile."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} was changed by somebody else meanwhile")
        self.key = key


@runtime_checkable
class KeepsNotes(Protocol):
    """A driver that replaces an object only where nobody else has."""

    async def read_note(self, key: Key) -> Note | None:
        """Return the object as it is now; None where there is none."""
        ...

    async def write_note(self, key: Key, content: bytes, *, replacing: str | None) -> str:
        """Replace exactly this version (None: write where there is none); return the new version.

        Raises NoteChangedError, also where the write was carried out and its answer lost: look again then.
        """
        ...


async def delete_all(driver: Driver, gone: Sequence[Key]) -> None:
    """Remove objects, or raise ``StorageFailedError`` where the store doesn't let one go."""
    for key, reason in (await driver.delete_many(gone)).items():
        raise StorageFailedError(f"{key} can't be deleted: {reason}")
