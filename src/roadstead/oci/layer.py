"""Layers as files: packing a directory into one, and measuring one that is there (image-spec layer.md).

``pack`` is reproducible. **Promised:** the tar of one directory tree, and with it the ``tar_digest`` (the diff_id), is
the same on every machine, under every Python and in every release of ours; this module writes the headers itself,
because ``tarfile`` has changed its own between Python versions. **Not promised:** the gzip around it, which is the
same only where zlib is the same: another zlib may find other matches. Whoever needs the bytes again keeps the file.

Whiteouts (``.wh.NAME``, ``.wh..wh..opq``) are ordinary files to a tar: put them into the directory to have them.
"""

import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Self

from roadstead.errors import InvalidError
from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest, DigestInvalidError, Hasher
from roadstead.oci.mediatypes import OCI_LAYER_GZIP, OCI_LAYER_TAR, OCI_LAYER_ZSTD
from roadstead.oci.strict_json import kind

DEFAULT_MAX_BYTES = 64 * 2**30
"""How much tar ``measure`` reads before it calls a layer a bomb; the largest that images are known to have is near."""

GZIP_LEVEL = 6

_PIECE = 1 << 20
_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_MAX_PAX_BYTES = 1 << 20  # Go's archive/tar refuses more, so no engine could unpack it.
_OCTAL_SIZE_LIMIT = 8**11
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# RFC 1952: deflate, no flags, no time, no extra flags, unknown system: nothing that tells of the machine.
_GZIP_HEADER = _GZIP_MAGIC + bytes([8, 0, 0, 0, 0, 0, 0, 255])
_CAPABILITY = "security.capability"

_REGULAR, _HARD_LINK, _SYMLINK, _DIRECTORY, _PAX = b"0", b"1", b"2", b"5", b"x"
_OLD_GNU_SPARSE = b"S"
_HEADER_ONLY = frozenset(b"123456")  # links, devices, directories, pipes: no content follows, whatever size says


Unpacker = Callable[[Iterator[bytes]], Iterator[bytes]]
"""Turns compressed pieces into what they hold, in bounded pieces; raises LayerInvalidError where they are broken."""


class Compression(StrEnum):
    """How a layer lies in storage."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"

    @property
    def media_type(self) -> str:
        """Return what an OCI manifest calls a layer that is compressed like this."""
        return _MEDIA_TYPES[self]


_MEDIA_TYPES = {
    Compression.NONE: OCI_LAYER_TAR,
    Compression.GZIP: OCI_LAYER_GZIP,
    Compression.ZSTD: OCI_LAYER_ZSTD,
}


class LayerInvalidError(InvalidError):
    """A directory can't be packed into a layer, or a file isn't a layer; ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"invalid layer: {reason}")
        self.reason = reason


class LayerTooLargeError(LayerInvalidError):
    """A layer unpacks to more than was allowed."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"it unpacks to more than {max_bytes} bytes")
        self.max_bytes = max_bytes


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """What has to be known of a layer file to add it to an image.

    ``gzip_*`` is the file as it is stored and sent (a plain tar then has the digest of its tar there).
    """

    gzip_digest: Digest
    gzip_size: int
    """Bytes."""

    tar_digest: Digest
    """Of the uncompressed tar: the diff_id (image-spec config.md)."""

    tar_size: int | None = None
    """Bytes; None when it was read from JSON, which doesn't carry it."""

    location: str = ""
    """Where the file is, in the words of whoever keeps it: a path, a URL."""

    is_zstd: bool = False
    """Whether it is compressed with zstd; ``gzip_*`` are of its bytes all the same."""

    @classmethod
    def parse(cls, document: object) -> Self:
        """Read ``{"location", "gzipDigest", "gzipSize", "tarDigest"}`` out of parsed JSON, as Wave writes it."""
        if not isinstance(document, dict):
            raise LayerInvalidError(f"its description is {kind(document)}, not an object")
        location, size = document.get("location") or "", document.get("gzipSize")
        if not isinstance(location, str):
            raise LayerInvalidError(f"location is {kind(location)}, not a string")
        if type(size) is not int or size < 0:
            raise LayerInvalidError("gzipSize isn't a number of bytes")
        return cls(_digest(document, "gzipDigest"), size, _digest(document, "tarDigest"), location=location)

    def as_json(self) -> dict[str, Any]:
        """Return the object that ``parse`` reads."""
        return {
            "location": self.location,
            "gzipDigest": str(self.gzip_digest),
            "gzipSize": self.gzip_size,
            "tarDigest": str(self.tar_digest),
        }

    @property
    def is_compressed(self) -> bool:
        """Whether the file is a gzip, or zstd, rather than a plain tar."""
        return self.gzip_digest != self.tar_digest

    @property
    def compression(self) -> Compression:
        """How the file is compressed."""
        if self.is_zstd:
            return Compression.ZSTD
        return Compression.GZIP if self.is_compressed else Compression.NONE

    def descriptor(self) -> Descriptor:
        """Return the pointer for an OCI manifest's ``layers``."""
        return Descriptor(self.compression.media_type, self.gzip_digest, self.gzip_size)


def _digest(document: dict[str, Any], member: str) -> Digest:
    text = document.get(member)
    if not isinstance(text, str):
        raise LayerInvalidError(f"{member} is {kind(text)}, not a string")
    try:
        return Digest.parse(text)
    except DigestInvalidError as error:
        raise LayerInvalidError(f"{member}: {error}") from error


# --- packing ---------------------------------------------------------------------------------------------------------


def pack(directory: Path, output: BinaryIO, *, location: str = "") -> PackedLayer:
    """Write what is below *directory* to *output* as a gzipped tar, and return its measures. Blocking; flat memory.

    Entries come in the order of their names' bytes, a directory before what is in it; owner and group are 0, times are
    0, permissions stay, and so do links, hard ones included. Of extended attributes only file capabilities are kept:
    the others belong to the machine. Devices, sockets and pipes are refused, as is a file that changes meanwhile:
    LayerInvalidError. Then *output* holds part of a file; the caller throws it away.
    """
    writer = _GzipWriter(output)
    first_names: dict[tuple[int, int], str] = {}
    for name, path in _walk(directory):
        _add(writer, name, path, first_names)
    writer.write(_ZEROS * 2)  # POSIX pax: two blocks of zeros end the archive
    writer.finish()
    return PackedLayer(writer.stored.digest(), writer.stored.size, writer.tar.digest(), writer.tar.size, location)


class _GzipWriter:
    """Compresses a tar on its way to a file, and digests both sides (RFC 1952)."""

    def __init__(self, output: BinaryIO) -> None:
        self.tar = Hasher()
        self.stored = Hasher()
        self._output = output
        self._deflater = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._crc = 0
        self._emit(_GZIP_HEADER)

    def write(self, data: bytes) -> None:
        self.tar.update(data)
        self._crc = zlib.crc32(data, self._crc)
        self._emit(self._deflater.compress(data))

    def finish(self) -> None:
        trailer = self._crc.to_bytes(4, "little") + (self.tar.size % 2**32).to_bytes(4, "little")
        self._emit(self._deflater.flush() + trailer)

    def _emit(self, data: bytes) -> None:
        if data:
            self.stored.update(data)
            self._output.write(data)


def _walk(directory: Path) -> Iterator[tuple[str, Path]]:
    """Yield each path below *directory* with its name in the tar; without recursion, as trees may be deep."""
    pending = _listed(directory, "")
    while pending:
        name, path = pending.pop()
        yield name, path
        if path.is_dir() and not path.is_symlink():
            pending.extend(_listed(path, f"{name}/"))


def _listed(directory: Path, prefix: str) -> list[tuple[str, Path]]:
    """Return a directory's entries, last name first, so that they pop in order."""
    try:
        names = os.listdir(directory)  # noqa: PTH208  (the names themselves are what is sorted and checked)
    except OSError as error:
        raise LayerInvalidError(f"{str(directory)!r} can't be listed: {error.strerror}") from error
    return [(_utf8(prefix + name), directory / name) for name in sorted(names, key=os.fsencode, reverse=True)]


def _utf8(name: str) -> str:
    """Refuse names that aren't UTF-8: pax can't carry them, and engines would each make something else of them."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise LayerInvalidError(f"the name {os.fsencode(name)!r} isn't UTF-8") from error
    return name


def _add(writer: _GzipWriter, name: str, path: Path, first_names: dict[tuple[int, int], str]) -> None:
    try:
        status = path.lstat()
    except OSError as error:
        raise LayerInvalidError(f"{name!r} can't be read: {error.strerror}") from error
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        writer.write(_entry(_DIRECTORY, f"{name}/", mode))
    elif stat.S_ISLNK(status.st_mode):
        writer.write(_entry(_SYMLINK, name, 0o777, target=_utf8(str(path.readlink()))))
    elif not stat.S_ISREG(status.st_mode):
        raise LayerInvalidError(f"{name!r} is {_odd_kind(status.st_mode)}: only files, directories, links are packed")
    elif status.st_nlink > 1 and (status.st_dev, status.st_ino) in first_names:
        writer.write(_entry(_HARD_LINK, name, mode, target=first_names[status.st_dev, status.st_ino]))
    else:
        if status.st_nlink > 1:
            first_names[status.st_dev, status.st_ino] = name
        _add_file(writer, name, path)


def _add_file(writer: _GzipWriter, name: str, path: Path) -> None:
    try:
        # Not following a link and not waiting for a pipe that may have taken the file's place since it was looked at.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise LayerInvalidError(f"{name!r} can't be read: {error.strerror}") from error
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123  (it is a descriptor, not a path)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise LayerInvalidError(f"{name!r} changed while it was being packed")
        mode, left = stat.S_IMODE(status.st_mode), status.st_size
        writer.write(_entry(_REGULAR, name, mode, size=left, capability=_capability(descriptor)))
        while left and (piece := file.read(min(left, _PIECE))):
            writer.write(piece)
            left -= len(piece)
        if left or file.read(1):
            raise LayerInvalidError(f"{name!r} changed while it was being packed")
    writer.write(bytes(-status.st_size % _BLOCK))


def _capability(descriptor: int) -> bytes | None:
    """Return a file's capabilities, such as ping's; None where there are none or the system has no such thing."""
    if not hasattr(os, "getxattr"):
        return None
    with suppress(OSError):
        return os.getxattr(descriptor, _CAPABILITY)
    return None


def _odd_kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"


def _entry(
    typeflag: bytes, name: str, mode: int, *, size: int = 0, target: str = "", capability: bytes | None = None
) -> bytes:
    """Return an entry's header, after a pax header for what doesn't fit into it (POSIX.1-2001 pax)."""
    path, link = name.encode(), target.encode()
    records = b""
    if len(path) > 100 or not path.isascii():
        records += _record("path", path)
    if len(link) > 100 or not link.isascii():
        records += _record("linkpath", link)
    if size >= _OCTAL_SIZE_LIMIT:
        records += _record("size", str(size).encode())
    if capability is not None:
        records += _record(f"SCHILY.xattr.{_CAPABILITY}", capability)
    header = _header(typeflag, path, mode, size if size < _OCTAL_SIZE_LIMIT else 0, link)
    if not records:
        return header
    return _header(_PAX, b"././@PaxHeader", 0o644, len(records), b"") + _padded(records) + header


def _record(keyword: str, value: bytes) -> bytes:
    """Return ``LENGTH KEYWORD=VALUE\\n``, where the length counts its own digits."""
    rest = b" %s=%s\n" % (keyword.encode(), value)
    length = len(rest)
    while len(rest) + len(str(length)) != length:
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def _header(typeflag: bytes, path: bytes, mode: int, size: int, link: bytes) -> bytes:
    """Return one ustar block; a path that has its pax record is only hinted at here."""
    block = bytearray(_BLOCK)
    for offset, content in (
        (0, _ascii(path)),
        (100, b"%07o" % mode),
        (108, b"%07o" % 0),  # uid
        (116, b"%07o" % 0),  # gid
        (124, b"%011o" % size),
        (136, b"%011o" % 0),  # mtime
        (148, b" " * 8),  # the sum is taken over blanks in its own place
        (156, typeflag),
        (157, _ascii(link)),
        (257, b"ustar\x0000"),
        (329, b"%07o" % 0),  # device numbers
        (337, b"%07o" % 0),
    ):
        block[offset : offset + len(content)] = content
    block[148:156] = b"%06o\x00 " % sum(block)
    return bytes(block)


def _ascii(name: bytes) -> bytes:
    return bytes(byte if byte < 0x80 else ord("?") for byte in name[:100])


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _BLOCK)


# --- measuring -------------------------------------------------------------------------------------------------------


def measure(
    stream: BinaryIO, *, max_bytes: int = DEFAULT_MAX_BYTES, location: str = "", unzstd: Unpacker | None = None
) -> PackedLayer:
    """Read a ``.tar`` or ``.tar.gz`` to its end, check that it is one, and return its measures. Blocking; flat memory.

    A ``.tar.zst`` is read with *unzstd*; without, it is refused. Raises LayerTooLargeError once more than *max_bytes*
    of tar came out, LayerInvalidError when it isn't a whole tar.
    """
    stored = Hasher()
    chunks = _chunks(stream, stored)
    first = next(chunks, b"")
    while len(first) < len(_ZSTD_MAGIC) and (more := next(chunks, b"")):
        first += more
    inside = _with_first(first, chunks)
    is_zstd = first.startswith(_ZSTD_MAGIC)
    if is_zstd and unzstd is None:
        raise LayerInvalidError("it is compressed with zstd, which can't be measured here; use gzip or a plain tar")
    if is_zstd and unzstd is not None:
        pieces, otherwise = unzstd(inside), "the zstd holds no tar"
    elif first.startswith(_GZIP_MAGIC):
        pieces, otherwise = _inflated(inside), "the gzip holds no tar"
    else:
        pieces, otherwise = inside, "it is neither gzip nor tar"
    reader = _TarReader(pieces, max_bytes)
    _check_tar(reader, otherwise)
    return PackedLayer(stored.digest(), stored.size, reader.hasher.digest(), reader.hasher.size, location, is_zstd)


def _chunks(stream: BinaryIO, hasher: Hasher) -> Iterator[bytes]:
    while chunk := stream.read(_PIECE):
        hasher.update(chunk)
        yield chunk


def _with_first(first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from chunks


def _inflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what gzip members hold, in bounded pieces however well they are compressed (RFC 1952 §2.2)."""
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        for chunk in chunks:
            data = chunk
            while data:
                if inflater.eof:  # another member follows: pigz and eStargz write many
                    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
                yield inflater.decompress(data, _PIECE)
                data = inflater.unconsumed_tail or inflater.unused_data
        while not inflater.eof:
            piece = inflater.decompress(b"", _PIECE)
            if not piece:
                raise LayerInvalidError("the gzip stops before its end")
            yield piece
    except zlib.error as error:
        raise LayerInvalidError(f"the gzip is broken: {error}") from error


class _TarReader:
    """Gives a tar's bytes in the portions asked for; digests and limits them."""

    def __init__(self, pieces: Iterator[bytes], max_bytes: int) -> None:
        self.hasher = Hasher()
        self._pieces = pieces
        self._max_bytes = max_bytes
        self._rest = memoryview(b"")

    def take(self, size: int) -> bytes:
        """Return the next *size* bytes, fewer at the end."""
        taken = bytearray()
        while len(taken) < size and self._fill():
            taken += self._split(size - len(taken))
        return bytes(taken)

    def skip(self, size: int) -> None:
        """Pass over *size* bytes; there have to be as many."""
        while size:
            if not self._fill():
                raise LayerInvalidError("the tar stops inside a file")
            size -= len(self._split(size))

    def drain(self) -> None:
        """Pass over what is left, so that the digests are of everything."""
        while self._fill():
            self._rest = memoryview(b"")

    def _fill(self) -> bool:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            if self.hasher.size + len(piece) > self._max_bytes:
                raise LayerTooLargeError(self._max_bytes)
            self.hasher.update(piece)
            self._rest = memoryview(piece)
        return True

    def _split(self, size: int) -> memoryview:
        head, self._rest = self._rest[:size], self._rest[size:]
        return head


def _check_tar(reader: _TarReader, otherwise: str) -> None:
    """Walk over the headers, each of which carries a sum, to the end of the archive (POSIX.1-2001 pax).

    *otherwise* is what to say when it was never a tar.
    """
    block = reader.take(_BLOCK)
    if not block:
        raise LayerInvalidError("it is empty")
    if not _begins_tar(block):
        raise LayerInvalidError(otherwise)
    pax_size: int | None = None
    while block and block != _ZEROS:  # some writers leave the blocks of zeros out, and engines don't mind
        _check_sum(block)
        typeflag, size = block[156:157], _number(block[124:136])
        if typeflag == _PAX:
            pax_size = _pax_size(reader, size, pax_size)
        elif typeflag in {b"L", b"K", b"g"}:  # GNU's long names and pax's global header come before their entry
            reader.skip(size + -size % _BLOCK)
        else:
            if typeflag == _OLD_GNU_SPARSE:
                _skip_sparse_map(reader, block)
            size = size if pax_size is None else pax_size
            reader.skip(0 if block[156] in _HEADER_ONLY else size + -size % _BLOCK)
            pax_size = None
        block = reader.take(_BLOCK)
    reader.drain()


def _begins_tar(block: bytes) -> bool:
    """Say whether a first block was meant as a tar's: one of before POSIX has no magic, but its sum is right."""
    if block == _ZEROS or block[257:262] == b"ustar":
        return True
    try:
        _check_sum(block)
    except LayerInvalidError:
        return False
    return True


def _check_sum(block: bytes) -> None:
    if len(block) < _BLOCK:
        raise LayerInvalidError("the tar stops inside a header")
    covered = block[:148] + b" " * 8 + block[156:]
    difference = sum(covered) - _number(block[148:156])
    # Some old writers summed signed bytes, and readers have accepted that ever since.
    if difference and difference != 256 * sum(byte > 127 for byte in covered):
        raise LayerInvalidError("it isn't a tar, or a header in it is damaged")


def _number(field: bytes) -> int:
    """Read octal digits, or GNU's base 256 for numbers that need more room."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \x00")
    if digits.strip(b"01234567"):
        raise LayerInvalidError("it isn't a tar, or a number in a header is damaged")
    return int(digits or b"0", 8)


def _pax_size(reader: _TarReader, size: int, before: int | None) -> int | None:
    """Read a pax header and return the size that it gives the next entry, *before* if it gives none."""
    if size > _MAX_PAX_BYTES:
        raise LayerInvalidError(f"a pax header of {size} bytes")
    data = reader.take(size)
    if len(data) < size:
        raise LayerInvalidError("the tar stops inside a pax header")
    reader.skip(-size % _BLOCK)
    while data:
        digits, _, _ = data.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        record, data = data[len(digits) + 1 : length], data[length:]
        keyword, equals, value = record.partition(b"=")
        if not equals or not record.endswith(b"\n"):
            raise LayerInvalidError("a pax header is damaged")
        if keyword == b"size":
            before = _pax_number(value.removesuffix(b"\n"))
    return before


def _pax_number(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 19:
        raise LayerInvalidError("a pax header is damaged")
    return int(digits)


def _skip_sparse_map(reader: _TarReader, block: bytes) -> None:
    """Pass over the further blocks of an old GNU sparse file's map."""
    more = block[482]
    while more:
        extension = reader.take(_BLOCK)
        if len(extension) < _BLOCK:
            raise LayerInvalidError("the tar stops inside a header")
        more = extension[504]
