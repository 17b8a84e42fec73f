"""The layer's tree, put together from packages that are made here: what is taken, and what is refused."""

import gzip
import io
import lzma
import struct
import tarfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from roadstead.layers import s3_mount
from roadstead.layers.deb import Package
from roadstead.layers.elf import MACHINES, Program
from roadstead.layers.errors import PackageInvalidError, PackageMissingError
from roadstead.oci.layer import pack

LOADER = "/lib64/ld.so.2"
LIBRARIES = "usr/lib/x86_64-linux-gnu"


def make_elf(*needed: str, machine: str = "amd64", loader: str | None = None) -> bytes:
    """Return a file with the headers of a program, and nothing to run."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in needed)
    interpreter = loader.encode() + b"\0" if loader else b""
    at = 64 + 3 * 56
    strings_at, loader_at = at, at + len(strings)
    dynamic_at = loader_at + len(interpreter)
    entries = [(1, strings.index(b"\0" + name.encode() + b"\0") + 1) for name in needed] + [(5, 0x1000 + strings_at)]
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in [*entries, (0, 0)]) if needed else b""
    size = dynamic_at + len(dynamic)
    parts = [(1, 0, 0x1000, size)]
    parts += [(2, dynamic_at, 0x1000 + dynamic_at, len(dynamic))] if needed else []
    parts += [(3, loader_at, 0x1000 + loader_at, len(interpreter))] if loader else []
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 3, MACHINES[machine], 1, 0, 64, 0, 0, 64, 56, len(parts), 0, 0, 0)
    table = b"".join(struct.pack("<IIQQQQQQ", kind, 4, at, to, to, n, n, 1) for kind, at, to, n in parts)
    return (header + table).ljust(64 + 3 * 56, b"\0") + strings + interpreter + dynamic


def make_package(name: str, files: Mapping[str, bytes] = {}, links: Mapping[str, str] = {}, **facts: str) -> Package:
    """Return a package with a notice about its licence."""
    notice = {f"usr/share/doc/{name}/copyright": f"{name} is free\n".encode()}
    return Package(
        name, "1-1", facts.get("architecture", "amd64"), facts.get("source", name), {**notice, **files}, links
    )


def make_packages() -> dict[str, Package]:
    """Return packages that are enough."""
    static, dynamic = make_elf(), make_elf("libone.so.1", "libc.so.6", loader=LOADER)
    made = [
        make_package("s3fs", {"usr/bin/s3fs": dynamic}, source="s3fs-fuse (1)"),
        make_package("coreutils", {"bin/env": make_elf("libc.so.6", loader=LOADER)}),
        make_package("util-linux", {"usr/bin/unshare": make_elf("libc.so.6", loader=LOADER)}),
        make_package("busybox-static", {"bin/busybox": static}),
        make_package("tini", {"usr/bin/tini-static": static}),
        make_package(
            "ca-certificates", {"usr/share/ca-certificates/mozilla/A.crt": b"A", "usr/x": b""}, architecture="all"
        ),
        make_package("media-types", {"etc/mime.types": b"text/plain txt\n"}, architecture="all"),
        make_package("base-files", {"usr/share/common-licenses/GPL-2": b"GPL\n"}),
        make_package(
            "libc6", {"lib/x86_64-linux-gnu/ld.so.2": static, "lib/x86_64-linux-gnu/libc.so.6": make_elf("ld.so.2")}
        ),
        make_package(
            "libone",
            {f"{LIBRARIES}/libone.so.1.2": make_elf("libc.so.6")},
            {f"{LIBRARIES}/libone.so.1": "libone.so.1.2"},
        ),
        make_package("unneeded", {f"{LIBRARIES}/libother.so.1": make_elf()}),
        make_package("foreign", {f"{LIBRARIES}/libone.so.1": b""}, architecture="arm64"),
    ]
    return {package.name: package for package in made}


def _tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_what_is_needed_is_taken(tmp_path: Path) -> None:
    """Programs, the libraries they need and those that these need, one loader, notices; nothing else."""
    used = s3_mount.assemble(make_packages().values(), "amd64", tmp_path)

    names = sorted(make_packages().keys() - {"unneeded", "foreign"})
    assert [package.name for package in used] == names
    programs = {"busybox", "tini", "s3fs", "env", "unshare"}
    expected = {f"bin/{name}" for name in programs} | {f"lib/{name}" for name in ("ld.so", "libc.so.6", "libone.so.1")}
    expected |= {"entry", "etc/ca-certificates.crt", "etc/mime.types", "share/README", "share/packages.txt"}
    expected |= {f"share/licenses/{name}" for name in [*names, "common/GPL-2"]}
    assert _tree(tmp_path) == {f"opt/roadstead/{name}" for name in expected}
    assert (tmp_path / "fusion/s3").stat().st_mode & 0o7777 == 0o777
    assert (tmp_path / "opt/roadstead/run").stat().st_mode & 0o7777 == 0o1777
    assert (tmp_path / "opt/roadstead/entry").stat().st_mode & 0o7777 == 0o755
    assert "s3fs=1-1 s3fs-fuse 1\n" in (tmp_path / "opt/roadstead/share/packages.txt").read_text()


def test_the_same_packages_give_the_same_layer(tmp_path: Path) -> None:
    """Whatever the order in which they come."""
    made = []
    for name, packages in (("a", list(make_packages().values())), ("b", list(make_packages().values())[::-1])):
        (tmp_path / name).mkdir()
        s3_mount.assemble(packages, "amd64", tmp_path / name)
        made.append(pack(tmp_path / name, io.BytesIO()))

    assert made[0] == made[1]


@pytest.mark.parametrize("name", [*s3_mount.PACKAGES, "libc6", "libone"])
def test_a_missing_package_is_named(tmp_path: Path, name: str) -> None:
    """Or what it would have had, where that is a library."""
    packages = make_packages()
    del packages[name]

    with pytest.raises(PackageMissingError) as caught:
        s3_mount.assemble(packages.values(), "amd64", tmp_path)

    wanted = {"libc6": "ld.so.2", "libone": "libone.so.1"}.get(name, name)
    assert wanted in str(caught.value)


@pytest.mark.parametrize(
    ("replaced", "said"),
    [
        (make_package("tini", {"usr/bin/tini-static": make_elf("libc.so.6", loader=LOADER)}), "isn't static"),
        (make_package("s3fs", {"usr/bin/s3fs": make_elf()}), "is static"),
        (make_package("tini", {"usr/bin/tini-static": make_elf(machine="arm64")}), "isn't for amd64"),
        (make_package("tini", {"usr/bin/tini-static": b"#!/bin/sh\n"}), "isn't a 64-bit program"),
        (make_package("s3fs", {"usr/bin/s3fs": make_elf("a", loader=LOADER)[:240]}), "damaged"),
    ],
)
def test_programs_that_would_not_run_are_refused(tmp_path: Path, replaced: Package, said: str) -> None:
    """Here, and not in somebody's container."""
    with pytest.raises(PackageInvalidError, match=said):
        s3_mount.assemble({**make_packages(), replaced.name: replaced}.values(), "amd64", tmp_path)


def test_two_versions_of_a_package_are_refused(tmp_path: Path) -> None:
    """Which one was meant, only the caller knows."""
    other = make_package("tini")

    with pytest.raises(PackageInvalidError, match="there are two"):
        s3_mount.assemble([*make_packages().values(), other], "amd64", tmp_path)


def _tar(files: Mapping[str, bytes], links: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name, target in links.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return buffer.getvalue()


def make_deb(compress: Callable[[bytes], bytes], kind: str) -> bytes:
    """Return a package as a file."""
    control = b"Package: one\nVersion: 1:2-3\nArchitecture: amd64\nDescription: one\n of many\n"
    members = {
        "debian-binary": b"2.0\n",
        f"control.tar{kind}": compress(_tar({"control": control}, {})),
        f"data.tar{kind}": compress(_tar({"usr/bin/one": b"1"}, {"bin/first": "../usr/bin/one", "bin/loop": "loop"})),
    }
    raw = b"!<arch>\n"
    for name, content in members.items():
        raw += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        raw += b"\n" * (len(content) % 2)
    return raw


@pytest.mark.parametrize(
    ("kind", "compress"),
    [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress), (".zst", zstandard.ZstdCompressor().compress)],
)
def test_packages_are_read(tmp_path: Path, kind: str, compress: Callable[[bytes], bytes]) -> None:
    """In all the ways in which Debian and Ubuntu have packed them; links are followed, and not for ever."""
    (tmp_path / "one.deb").write_bytes(make_deb(compress, kind))

    package = Package.read(tmp_path / "one.deb")

    assert (package.name, package.version, package.architecture) == ("one", "1:2-3", "amd64")
    assert (package.find("usr/bin/one"), package.find("bin/first"), package.find("bin/loop")) == (b"1", b"1", None)


@given(length=st.integers(0, len(make_deb(lzma.compress, ".xz")) - 2))
def test_a_cut_package_is_refused(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    """At any length, with its name and no other exception."""
    path = tmp_path_factory.mktemp("cut") / "cut.deb"
    path.write_bytes(make_deb(lzma.compress, ".xz")[:length])

    with pytest.raises(PackageInvalidError, match=r"cut\.deb"):
        Package.read(path)


@given(raw=st.binary(max_size=300))
def test_no_bytes_break_the_reader_of_programs(raw: bytes) -> None:
    """Whatever stands behind ELF's first bytes is read, or refused with no other exception."""
    with suppress(PackageInvalidError):
        Program.parse("x", b"\x7fELF\x02\x01" + raw)
