"""The layer that mounts S3 buckets in any Linux image, put together from Debian's packages (wave.md 6.1).

Everything is below ``/opt/roadstead`` but the folder for the mounts: a static shell, tini, and dynamic programs with
their libraries and the loader that finds them, so that what the image has or lacks makes no difference.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from roadstead.layers.deb import Package, resolved
from roadstead.layers.elf import MACHINES, Program
from roadstead.layers.errors import PackageInvalidError, PackageMissingError

ENTRYPOINT: Final = "/opt/roadstead/entry"
"""What a rule names as its entrypoint."""

PACKAGES: Final = (
    *("s3fs", "coreutils", "util-linux", "busybox-static", "tini"),
    *("ca-certificates", "media-types", "base-files"),
)
"""What is asked for by name; libraries come as their dependencies."""

_HOME = "opt/roadstead"
_STATIC = {"busybox": ("bin/busybox", "usr/bin/busybox"), "tini": ("usr/bin/tini-static",)}
_DYNAMIC = {"s3fs": ("usr/bin/s3fs",), "env": ("usr/bin/env", "bin/env"), "unshare": ("usr/bin/unshare",)}
_TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
_CERTIFICATES = "usr/share/ca-certificates/mozilla/"
_COMMON_LICENCES = "usr/share/common-licenses/"
_MIME_TYPES = "etc/mime.types"

_README = """These programs are Debian's, as Debian built them; packages.txt has their versions.
licenses/PACKAGE tells the licence of each, licenses/common has the texts that they name.
Their source is what Debian publishes under the name and version of the source package, the second and third column.
"""


class Pool:
    """The packages of one architecture, asked for files. It remembers which packages were of use."""

    def __init__(self, packages: Iterable[Package], architecture: str) -> None:
        self.architecture = architecture
        self._used: set[str] = set()
        self._packages: dict[str, Package] = {}
        for package in packages:
            if package.architecture not in {architecture, "all"}:
                continue
            other = self._packages.setdefault(package.name, package)
            if other is not package:
                reason = f"there are two: {other.version} and {package.version}; leave one in the folder"
                raise PackageInvalidError(package.name, reason)

    def __getitem__(self, name: str) -> Package:
        """Return a package by its name; PackageMissingError."""
        if name not in self._packages:
            raise PackageMissingError(f"the name {name}", self.architecture)
        self._used.add(name)
        return self._packages[name]

    def file(self, *paths: str) -> bytes:
        """Return the file that is at the first of these paths in any package; PackageMissingError."""
        for path in paths:
            for name, package in self._packages.items():
                content = self._content(package, path)
                if content is not None:
                    self._used.add(name)
                    return content
        raise PackageMissingError(f"/{paths[0]}", self.architecture)

    def used(self) -> list[Package]:
        """Return the packages from which something was taken, by name."""
        return [self._packages[name] for name in sorted(self._used)]

    def copyright(self, package: Package) -> bytes:
        """Return the notice of a package; its folder may be a link to that of another one."""
        folder = f"usr/share/doc/{package.name}"
        if folder in package.links:
            return self.file(f"{resolved(folder, package.links[folder])}/copyright")
        path = f"{folder}/copyright"
        content = package.find(path)
        if content is not None:
            return content
        if path in package.links:
            return self.file(resolved(path, package.links[path]))
        raise PackageMissingError(f"/{path}", self.architecture)

    @staticmethod
    def _content(package: Package, path: str) -> bytes | None:
        # Since /lib is a link to usr/lib, packages name their files by either.
        return package.find(path) or package.find(path.removeprefix("usr/"))


def assemble(packages: Iterable[Package], architecture: str, folder: Path) -> Sequence[Package]:
    """Write the layer's tree into the empty *folder*, and return the packages it was made from, by name.

    The same packages give the same tree. Blocking. PackageMissingError, PackageInvalidError.
    """
    pool = Pool(packages, architecture)
    for name in PACKAGES:
        pool[name]
    home = folder / _HOME
    for name, content in _programs(pool).items():
        _write(home / name, content, 0o755)
    _write(home / "entry", files("roadstead.layers").joinpath("entry").read_bytes(), 0o755)
    _write(home / "etc/ca-certificates.crt", _certificates(pool["ca-certificates"]))
    _write(home / "etc/mime.types", pool.file(_MIME_TYPES))
    used = pool.used()
    _write(home / "share/README", _README.encode())
    _write(home / "share/packages.txt", "".join(map(_line, used)).encode())
    for package in used:
        _write(home / "share/licenses" / package.name, pool.copyright(package))
    for path, content in pool["base-files"].files.items():
        if path.startswith(_COMMON_LICENCES):
            _write(home / "share/licenses/common" / path.removeprefix(_COMMON_LICENCES), content)
    _folder(home / "run", 0o1777)  # for parts of files, where the image has no /tmp
    _folder(folder / "fusion/s3", 0o777)  # any user of any image may make a folder for a bucket
    return used


def _programs(pool: Pool) -> Mapping[str, bytes]:
    """Return programs, libraries and the loader by their place below the layer's home."""
    found: dict[str, bytes] = {}
    for name, paths in _STATIC.items():
        content = pool.file(*paths)
        if _checked(name, content, pool).interpreter is not None:
            raise PackageInvalidError(name, "it isn't static, so not every image could run it")
        found[f"bin/{name}"] = content
    waiting: list[str] = []
    loaders: set[str] = set()  # Libraries name it too, but the one that runs them is there already.
    for name, paths in _DYNAMIC.items():
        content = found[f"bin/{name}"] = pool.file(*paths)
        program = _checked(name, content, pool)
        if program.interpreter is None:
            raise PackageInvalidError(name, "it is static, so the layer's loader can't start it")
        found["lib/ld.so"] = pool.file(program.interpreter.lstrip("/"), *_places(program.interpreter, pool))
        loaders.add(program.interpreter.rpartition("/")[2])
        waiting += program.needed
    while waiting:
        name = waiting.pop()
        if f"lib/{name}" not in found and name not in loaders:
            content = found[f"lib/{name}"] = pool.file(*_places(name, pool))
            waiting += _checked(name, content, pool).needed
    return found


def _places(library: str, pool: Pool) -> tuple[str, ...]:
    return (f"usr/lib/{_TRIPLETS[pool.architecture]}/{library.rpartition('/')[2]}",)


def _checked(name: str, content: bytes, pool: Pool) -> Program:
    program = Program.parse(name, content)
    if program.machine != MACHINES[pool.architecture]:
        raise PackageInvalidError(name, f"it isn't for {pool.architecture}")
    return program


def _certificates(package: Package) -> bytes:
    """Return all certificates as one file, in the order of their names."""
    found = [content for path, content in sorted(package.files.items()) if path.startswith(_CERTIFICATES)]
    if not found:
        raise PackageMissingError(f"/{_CERTIFICATES}", package.architecture)
    return b"".join(content.rstrip(b"\n") + b"\n" for content in found)


def _line(package: Package) -> str:
    """Return a package, and what Debian calls its source: ``NAME (VERSION)`` where the versions differ."""
    source, _, version = package.source.partition(" ")
    return f"{package.name}={package.version} {source} {version.strip('()') or package.version}\n"


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    _folder(path.parent, 0o755)
    path.write_bytes(content)
    path.chmod(mode)


def _folder(path: Path, mode: int) -> None:
    """Make a folder and those above it, whatever the caller's umask is."""
    if not path.exists():
        _folder(path.parent, 0o755)
        path.mkdir()
        path.chmod(mode)
