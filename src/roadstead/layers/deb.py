"""Reading Debian packages (deb(5)): an ``ar`` archive of a version, a tar about the package, and a tar of its files."""

import gzip
import io
import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Self

import zstandard

from roadstead.layers.errors import PackageInvalidError

_MAGIC = b"!<arch>\n"
_HEADER_SIZE = 60
_MAX_BYTES = 1 << 30
"""How much a member may unpack to; the largest that a layer of ours is made from has 40 MB."""

_MAX_LINKS = 16


@dataclass(frozen=True, slots=True)
class Package:
    """A package in memory: what it calls itself, and its files and links by their path without a leading slash."""

    name: str
    version: str
    architecture: str  # Debian's word: amd64, arm64, all
    source: str
    files: Mapping[str, bytes]
    links: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a ``.deb``. Blocking. PackageInvalidError if it isn't one; OSError."""
        try:
            members = dict(_members(path.read_bytes()))
            control = _files(_member(members, "control.tar"))[0]["control"].decode()
            files, links = _files(_member(members, "data.tar"))
        except (KeyError, ValueError, EOFError, OSError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise PackageInvalidError(path.name, f"it can't be read as a Debian package: {error}") from error
        except zstandard.ZstdError as error:
            raise PackageInvalidError(path.name, f"it can't be unpacked: {error}") from error
        fields = HeaderParser().parsestr(control)
        for field in ("Package", "Version", "Architecture"):
            if not fields[field]:
                raise PackageInvalidError(path.name, f"it doesn't tell its {field}")
        name, version = fields["Package"], fields["Version"]
        return cls(name, version, fields["Architecture"], fields["Source"] or name, files, links)

    def find(self, path: str) -> bytes | None:
        """Return a file's content, following links inside the package; None if it has no such file."""
        for _ in range(_MAX_LINKS):
            if path in self.files:
                return self.files[path]
            if path not in self.links:
                return None
            path = resolved(path, self.links[path])
        return None


def resolved(path: str, target: str) -> str:
    """Return where a link at *path* leads, without a leading slash. Pure."""
    return posixpath.normpath(posixpath.join("/", posixpath.dirname(path), target)).lstrip("/")


def _members(raw: bytes) -> list[tuple[str, bytes]]:
    """Take an ``ar`` archive apart: headers of 60 bytes, contents on even offsets."""
    if not raw.startswith(_MAGIC):
        raise ValueError("it doesn't begin like one")
    found, at = [], len(_MAGIC)
    while at < len(raw):
        header = raw[at : at + _HEADER_SIZE]
        if len(header) < _HEADER_SIZE or header[58:] != b"`\n":
            raise ValueError("it is damaged or cut off")
        name, size = header[:16].decode("ascii").rstrip(" /"), int(header[48:58])
        at += _HEADER_SIZE
        if size < 0 or at + size > len(raw):
            raise ValueError("it is damaged or cut off")
        found.append((name, raw[at : at + size]))
        at += size + size % 2
    return found


def _member(members: Mapping[str, bytes], stem: str) -> bytes:
    """Return a tar, unpacked in the way its name tells."""
    for name, raw in members.items():
        base, _, kind = name.partition(".tar")
        if f"{base}.tar" != stem:
            continue
        match kind:
            case "":
                data = raw
            case ".gz":
                with gzip.open(io.BytesIO(raw)) as file:
                    data = file.read(_MAX_BYTES + 1)
            case ".xz":
                with lzma.open(io.BytesIO(raw)) as file:
                    data = file.read(_MAX_BYTES + 1)
            case ".zst":
                with zstandard.ZstdDecompressor().stream_reader(raw) as reader:
                    data = reader.read(_MAX_BYTES + 1)
            case _:
                raise ValueError(f"{name} is packed in a way that isn't known")
        if len(data) > _MAX_BYTES:
            raise ValueError(f"{name} unpacks to more than {_MAX_BYTES} bytes")
        return data
    raise ValueError(f"there is no {stem} in it")


def _files(tar: bytes) -> tuple[dict[str, bytes], dict[str, str]]:
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
        for entry in archive:
            name = posixpath.normpath(entry.name).lstrip("/")
            if entry.issym():
                links[name] = entry.linkname
            elif entry.islnk():
                links[name] = "/" + posixpath.normpath(entry.linkname).lstrip("/")
            elif entry.isfile() and (content := archive.extractfile(entry)) is not None:
                files[name] = content.read()
    return files, links
