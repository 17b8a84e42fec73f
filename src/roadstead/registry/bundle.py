"""Files by name, in a folder or in a tar: what images lie in that were saved to disk.

Nothing is unpacked: a tar's members are read where they lie. One that is compressed as a whole is unpacked into a file
without a name first, since its members come in any order; the file is gone when the process is.

What is read here may come from anybody. A name never leads out: links are followed inside the bundle only, a few at a
time, to regular files. Headers are small, members are counted, and a member's bytes have to be there. The bytes
themselves say nothing: whoever reads them knows what digest they should have.
"""

import gzip
import io
import os
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, cast

import zstandard

from roadstead.errors import InvalidError, NotFoundError

MAX_MEMBERS = 100_000
"""So many names are kept in memory; an archive of images has a few for each layer."""

MAX_HEADER_BYTES = 64 << 10
"""What comes before one member: its header, and those of pax and GNU for long names."""

MAX_UNPACKED_BYTES = 64 << 30
"""What a compressed archive may unpack to on disk, unless the caller says otherwise."""

_MAX_LINKS = 8
_PIECE = 1 << 20
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a named pipe doesn't hold a thread for ever

_OPENERS: tuple[tuple[bytes, Callable[[BinaryIO], BinaryIO]], ...] = (
    (b"\x1f\x8b", lambda file: cast("BinaryIO", gzip.GzipFile(fileobj=file))),
    (b"\x28\xb5\x2f\xfd", lambda file: zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)),
)
_UNREAD = ((b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"))  # xz may ask for gigabytes of memory, and nobody is told before
_BROKEN = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)


class BundleMissingError(NotFoundError):
    """There is nothing at the path."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} can't be read: {reason}")
        self.path = path


class BundleInvalidError(InvalidError):
    """An archive or a folder isn't what holds images, or is damaged; ``reason`` says how."""

    def __init__(self, where: Path, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A regular file of a bundle. ``offset`` is where it begins in its tar."""

    name: str
    size: int  # bytes
    offset: int = 0


class Bundle(Protocol):
    """Files by name. Every call blocks."""

    @property
    def where(self) -> Path:
        """Return where it lies, for messages."""
        ...

    def find(self, name: str) -> BundleFile | None:
        """Return the file, links followed; None where there is none. Raises BundleInvalidError for what isn't one."""
        ...

    def open(self, file: BundleFile) -> BinaryIO:
        """Return the file's bytes from its start, which the caller closes; any number may be open."""
        ...

    def close(self) -> None:
        """Let go of the archive."""
        ...


@contextmanager
def open_bundle(path: Path, *, max_unpacked: int = MAX_UNPACKED_BYTES) -> Iterator[Bundle]:
    """Open a folder, or a tar that may be compressed with gzip or zstd. Blocking.

    Raises BundleMissingError and BundleInvalidError.
    """
    if path.is_dir():
        yield FolderBundle(path)
        return
    bundle = TarBundle(path, _plain(path, max_unpacked))
    try:
        yield bundle
    finally:
        bundle.close()


class FolderBundle:
    """A folder's files."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self._root = where.resolve()

    def find(self, name: str) -> BundleFile | None:
        """Return the file; a link that leads out of the folder is refused."""
        path = (self._root / _inside(self.where, name)).resolve()
        if not path.is_relative_to(self._root):
            raise BundleInvalidError(self.where, f"{name!r} leads out of it")
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise BundleInvalidError(self.where, f"{name!r} can't be read: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):
            raise BundleInvalidError(self.where, f"{name!r} is not a regular file")
        return BundleFile(str(path.relative_to(self._root)), status.st_size)

    def open(self, file: BundleFile) -> BinaryIO:
        """Return the file's bytes."""
        try:
            # What was looked at may have been replaced since: a link isn't followed now.
            descriptor = os.open(self._root / file.name, _READ | os.O_NOFOLLOW)
        except OSError as error:
            raise BundleInvalidError(self.where, f"{file.name!r} can't be read: {error.strerror}") from error
        return os.fdopen(descriptor, "rb", buffering=0)

    def close(self) -> None:
        """Do nothing: nothing is held."""


class TarBundle:
    """A tar's members. Of several of one name the last counts, as when it is unpacked."""

    def __init__(self, where: Path, file: BinaryIO) -> None:
        self.where = where
        self._file = file
        self._files: dict[str, BundleFile] = {}
        self._links: dict[str, str] = {}
        self._odd: dict[str, str] = {}
        try:
            self._read_headers(os.fstat(file.fileno()).st_size)
        except BaseException:
            file.close()
            raise

    def find(self, name: str) -> BundleFile | None:
        """Return the member, links followed inside the archive."""
        wanted = _inside(self.where, name)
        for _ in range(_MAX_LINKS):
            if wanted in self._odd:
                raise BundleInvalidError(self.where, f"{name!r} is {self._odd[wanted]}, not a regular file")
            if wanted not in self._links:
                return self._files.get(wanted)
            wanted = _inside(self.where, self._links[wanted])
        raise BundleInvalidError(self.where, f"{name!r} leads through more than {_MAX_LINKS} links")

    def open(self, file: BundleFile) -> BinaryIO:
        """Return the member's bytes."""
        return cast("BinaryIO", _Slice(self._file.fileno(), file.offset, file.size))

    def close(self) -> None:
        """Close the archive."""
        self._file.close()

    def _read_headers(self, size: int) -> None:
        headers = _Headers(self.where, self._file)
        try:
            with tarfile.open(fileobj=cast("BinaryIO", headers), mode="r:") as tar:
                count = 0
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # its own list would grow with the archive
                    count += 1
                    if count > MAX_MEMBERS:
                        raise BundleInvalidError(self.where, f"it has more than {MAX_MEMBERS:,} members")
                    self._keep(member, size)
                    headers.left = MAX_HEADER_BYTES
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            raise BundleInvalidError(self.where, f"it isn't a tar, or it is damaged: {error}") from error

    def _keep(self, member: tarfile.TarInfo, size: int) -> None:
        name = _normal(member.name)
        if name is None:  # nothing can ask for it, and nothing is written by it
            return
        for known in (self._files, self._links, self._odd):
            known.pop(name, None)
        if member.issparse():
            self._odd[name] = "stored with holes (sparse)"
        elif member.isreg():
            if member.offset_data + member.size > size:
                raise BundleInvalidError(self.where, f"it is cut short: {name!r} has {member.size:,} bytes")
            self._files[name] = BundleFile(name, member.size, member.offset_data)
        elif member.issym():
            self._links[name] = str(PurePosixPath(name).parent / member.linkname)
        elif member.islnk():
            self._links[name] = member.linkname
        elif not member.isdir():
            self._odd[name] = "a device or a pipe"


class _Headers:
    """What reads a tar's headers: a few bytes before each member and no more, however large one says to be."""

    def __init__(self, where: Path, file: BinaryIO) -> None:
        self._where = where
        self._file = file
        self.left = MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise BundleInvalidError(self._where, f"a header of more than {MAX_HEADER_BYTES:,} bytes")
        return self._file.read(size)

    def seek(self, position: int) -> int:
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()


class _Slice(io.RawIOBase):
    """A part of a file, read by position, so that any number may be read side by side."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        self._descriptor = descriptor
        self._position = offset
        self._end = offset + size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        left = self._end - self._position
        data = os.pread(self._descriptor, left if size < 0 else min(size, left), self._position)
        self._position += len(data)
        return data


def _inside(where: Path, name: str) -> str:
    normal = _normal(name)
    if normal is None:
        raise BundleInvalidError(where, f"{name[:200]!r} leads out of it")
    return normal


def _normal(name: str) -> str | None:
    """Return a name without ``.`` and ``..``; None for one that leads out, or that no file has. Pure."""
    if name.startswith("/") or "\0" in name:
        return None
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts) or None


def _plain(path: Path, max_unpacked: int) -> BinaryIO:
    """Return the tar, unpacked if it is compressed."""
    try:
        file = os.fdopen(os.open(path, _READ), "rb", buffering=0)
    except OSError as error:
        raise BundleMissingError(path, error.strerror or str(error)) from error
    try:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BundleMissingError(path, "it is neither a regular file nor a folder")
        first = os.pread(file.fileno(), 8, 0)
        opener = next((opener for magic, opener in _OPENERS if first.startswith(magic)), None)
        if opener is None:
            for magic, name in _UNREAD:
                if first.startswith(magic):
                    raise BundleInvalidError(
                        path, f"it is compressed with {name}, which isn't read here; unpack it first"
                    )
            return file
    except BaseException:
        file.close()
        raise
    with file:
        return _unpacked(path, opener(file), max_unpacked)


def _unpacked(path: Path, stream: BinaryIO, max_unpacked: int) -> BinaryIO:
    target = cast("BinaryIO", tempfile.TemporaryFile(dir=_temporary_folder(), buffering=0))  # noqa: SIM115 -- handed on
    try:
        size = 0
        while piece := stream.read(_PIECE):
            size += len(piece)
            if size > max_unpacked:
                raise BundleInvalidError(path, f"it unpacks to more than {max_unpacked:,} bytes (--max-unpacked)")
            target.write(piece)
        target.seek(0)
    except _BROKEN as error:
        target.close()
        raise BundleInvalidError(path, f"what it is compressed with is broken: {error}") from error
    except OSError as error:
        target.close()
        reason = error.strerror or str(error)
        raise BundleInvalidError(path, f"it can't be unpacked into {_temporary_folder()} (TMPDIR): {reason}") from error
    except BaseException:
        target.close()
        raise
    return target


def _temporary_folder() -> str:
    """Return where large files go for a while: ``/tmp`` is memory on many machines."""
    named = os.environ.get("TMPDIR")
    return named or ("/var/tmp" if os.access("/var/tmp", os.W_OK) else tempfile.gettempdir())  # noqa: S108
