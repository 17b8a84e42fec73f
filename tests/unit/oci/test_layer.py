"""Layers: the same directory gives the same bytes, and what isn't a layer is told from what is."""

import gzip
import io
import itertools
import os
import random
import socket
import stat
import tarfile
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.oci.layer import LayerInvalidError, LayerTooLargeError, PackedLayer, measure, pack
from roadstead.oci.mediatypes import OCI_LAYER_GZIP, OCI_LAYER_TAR

LONG = "n" * 120
A = "sha256:" + "a" * 64
B = "sha256:" + "b" * 64


def make_tree(root: Path) -> Path:
    """A directory with a bit of everything, made in no particular order."""
    root.mkdir()
    (root / "note.txt").write_text("hello\n")
    (root / "bin").mkdir()
    (root / "bin" / "hi.sh").write_text("#!/bin/sh\necho hi\n")
    (root / "bin.txt").write_bytes(b"")
    (root / LONG).write_bytes(b"x" * 513)
    (root / "ä").write_bytes(b"umlaut")
    (root / ".wh.gone").write_bytes(b"")
    (root / "link").symlink_to("bin/../" + LONG)
    (root / "twin").hardlink_to(root / "note.txt")
    (root / "empty").mkdir()
    for path, mode in (("note.txt", 0o644), ("bin", 0o755), ("bin/hi.sh", 0o4755), ("empty", 0o1777)):
        (root / path).chmod(mode)
    for path in ("bin.txt", LONG, "ä", ".wh.gone"):
        (root / path).chmod(0o600)
    return root


def packed(directory: Path) -> tuple[bytes, PackedLayer]:
    output = io.BytesIO()
    layer = pack(directory, output)
    return output.getvalue(), layer


def test_a_tree_packs_to_the_digest_it_always_had(tmp_path: Path) -> None:
    """The tar's digest is promised for good: this one must never change."""
    data, layer = packed(make_tree(tmp_path / "tree"))

    assert str(layer.tar_digest) == "sha256:33056f6311036c5515015ab5bf2bcd26d2b3f447cbe0ee22d4c05cb65345c59d"
    assert layer.tar_size == len(gzip.decompress(data))


def test_measures_are_those_of_the_bytes(tmp_path: Path) -> None:
    """Both digests, both sizes; the gzip says nothing of when and where it was made."""
    data, layer = packed(make_tree(tmp_path / "tree"))

    assert (layer.gzip_digest, layer.gzip_size) == (Digest.of(data), len(data))
    assert layer.tar_digest == Digest.of(gzip.decompress(data))
    assert data[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    assert layer.descriptor() == Descriptor(OCI_LAYER_GZIP, Digest.of(data), len(data))
    assert measure(io.BytesIO(data)) == layer


def test_a_tar_reader_finds_what_was_packed(tmp_path: Path) -> None:
    """Order of names' bytes, owner 0, time 0, modes and links kept."""
    data, _ = packed(make_tree(tmp_path / "tree"))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {member.name: member for member in archive}
        content = archive.extractfile(LONG)
        assert content is not None
        assert content.read() == b"x" * 513

    assert list(members) == [".wh.gone", "bin", "bin/hi.sh", "bin.txt", "empty", "link", LONG, "note.txt", "twin", "ä"]
    assert {(member.uid, member.gid, member.uname, member.gname, member.mtime) for member in members.values()} == {
        (0, 0, "", "", 0)
    }
    assert members["bin/hi.sh"].mode == 0o4755
    assert members["empty"].isdir()
    assert members["empty"].mode == 0o1777
    assert (members["link"].issym(), members["link"].linkname) == (True, "bin/../" + LONG)
    assert (members["twin"].islnk(), members["twin"].linkname) == (True, "note.txt")


def test_times_and_order_of_making_do_not_matter(tmp_path: Path) -> None:
    """The same tree again, older and made the other way round, gives the same bytes."""
    first, _ = packed(make_tree(tmp_path / "one"))
    (tmp_path / "two").mkdir()
    for path in sorted((tmp_path / "one").iterdir(), reverse=True):
        path.rename(tmp_path / "two" / path.name)
    for path in (tmp_path / "two").rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)

    assert packed(tmp_path / "two")[0] == first


def test_an_empty_directory_is_an_empty_layer(tmp_path: Path) -> None:
    """Two blocks of zeros: the diff_id that Docker's empty layer has."""
    _, layer = packed(tmp_path)

    assert str(layer.tar_digest) == "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"


def test_a_large_file_passes_in_flat_memory(tmp_path: Path) -> None:
    """Packing and measuring 48 MiB takes a few MiB."""
    (tmp_path / "tree").mkdir()
    with (tmp_path / "tree" / "large").open("wb") as file:
        file.truncate(48 << 20)
    tracemalloc.start()
    try:
        with (tmp_path / "layer").open("wb") as output:
            layer = pack(tmp_path / "tree", output)
        with (tmp_path / "layer").open("rb") as stream:
            assert measure(stream) == layer
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 8 << 20


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, tempfile.TemporaryDirectory() as short:
        server.bind(f"{short}/s")  # a socket's path may have 107 characters only
        Path(short, "s").rename(path)


def a_name_in_latin_1(path: Path) -> None:
    Path(os.fsdecode(os.fsencode(path.parent) + b"/\xe4")).touch()


@pytest.mark.parametrize(
    ("make", "reason"),
    [(a_pipe, "'odd' is a named pipe"), (a_socket, "'odd' is a socket"), (a_name_in_latin_1, "isn't UTF-8")],
)
def test_what_has_no_place_in_a_layer_is_refused(
    make: Callable[[Path], None], reason: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """By name, rather than left out."""
    with tempfile.TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as tree:
        make(Path(tree, "odd"))
        with pytest.raises(LayerInvalidError, match=reason):
            pack(Path(tree), io.BytesIO())


def test_a_directory_that_is_not_one_is_refused(tmp_path: Path) -> None:
    """Absent, or a file."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(LayerInvalidError, match="can't be listed"):
            pack(path, io.BytesIO())


def test_a_file_that_grows_meanwhile_is_refused(tmp_path: Path) -> None:
    """The file is the output itself, so it grows for certain."""
    (tmp_path / "growing").write_bytes(random.Random(1).randbytes(3 << 19))
    with (tmp_path / "growing").open("ab", buffering=0) as output, pytest.raises(LayerInvalidError, match="changed"):
        pack(tmp_path, output)


@settings(max_examples=40, deadline=None)  # it writes files, and a machine may be busy
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\x00"), min_size=1, max_size=60).filter(
            lambda name: name not in {".", ".."} and len(name.encode()) < 200
        ),
        st.binary(max_size=600),
        max_size=4,
    )
)
def test_any_names_and_contents_come_back(files: dict[str, bytes]) -> None:
    """Whatever a file system holds, a tar reader finds; measuring agrees with packing."""
    with tempfile.TemporaryDirectory() as directory:
        for name, content in files.items():
            Path(directory, name).write_bytes(content)
        data, layer = packed(Path(directory))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {member.name: archive.extractfile(member) for member in archive}
        assert {name: file.read() for name, file in found.items() if file is not None} == files
    assert measure(io.BytesIO(data)) == layer


def tar_of(member: tarfile.TarInfo, content: bytes = b"", **options: Any) -> bytes:
    member.size = member.size or len(content)
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", **options) as archive:
        archive.addfile(member, io.BytesIO(content))
    return output.getvalue()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_form_are_measured(form: int) -> None:
    """Plain ones have one digest for both sides, and say so in their media type."""
    name = "d/" + "n" * (90 if form == tarfile.USTAR_FORMAT else 200)
    data = tar_of(tarfile.TarInfo(name), b"x" * 1500, format=form)
    layer = measure(io.BytesIO(data), location="x.tar")

    assert layer == PackedLayer(Digest.of(data), len(data), Digest.of(data), len(data), "x.tar")
    assert not layer.is_compressed
    assert layer.descriptor().media_type == OCI_LAYER_TAR


def test_pax_global_headers_and_sizes_are_understood() -> None:
    """A pax size overrules the header's; a global header is passed over."""
    member = tarfile.TarInfo("a")
    member.pax_headers = {"comment": "c", "size": "700"}
    data = tar_of(member, b"x" * 700, format=tarfile.PAX_FORMAT, pax_headers={"comment": "global"})

    assert measure(io.BytesIO(data)).tar_size == len(data)


def test_gzip_of_several_members_is_one_tar() -> None:
    """pigz and eStargz write such files."""
    data = tar_of(tarfile.TarInfo("a"), b"x" * 700)
    layer = measure(io.BytesIO(gzip.compress(data[:300]) + gzip.compress(b"") + gzip.compress(data[300:])))

    assert layer.tar_digest == Digest.of(data)


class Dripping(io.BytesIO):
    """A stream that gives a byte at a time, as a pipe may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size, 1) if size else size)


def test_short_reads_are_no_trouble() -> None:
    """Also before it is known what the file is."""
    data = gzip.compress(tar_of(tarfile.TarInfo("a"), b"x"))

    assert measure(Dripping(data)) == measure(io.BytesIO(data))


GOOD = tar_of(tarfile.TarInfo("a"), b"x" * 700)


def damaged(data: bytes, position: int, content: bytes, *, sum_again: bool = False) -> bytes:
    block = bytearray(data)
    block[position : position + len(content)] = content
    if sum_again:
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\x00 " % sum(block[:512])
    return bytes(block)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"hello", "neither gzip nor tar"),
        (b"some text\n" * 40, "neither gzip nor tar"),
        (GOOD[:300], "stops inside a header"),
        (b"x" * 10_000, "neither gzip nor tar"),
        (GOOD[:600], "stops inside a file"),
        (GOOD[:512], "stops inside a file"),
        (damaged(GOOD, 0, b"b"), "a header in it is damaged"),
        (damaged(GOOD, 124, b"9", sum_again=True), "a number in a header is damaged"),
        (damaged(GOOD, 124, b"\xff" * 12, sum_again=True), "a number in a header is damaged"),
        (damaged(GOOD, 124, b"\x80" + b"\xff" * 11, sum_again=True), "stops inside a file"),
        (damaged(GOOD, 156, b"x", sum_again=True), "pax header is damaged"),
        (damaged(damaged(GOOD, 124, b"77777777777"), 156, b"x", sum_again=True), "a pax header of"),
        (gzip.compress(b"hello" * 200), "the gzip holds no tar"),
        (gzip.compress(GOOD)[:-9], "the gzip stops before its end"),
        (gzip.compress(GOOD)[:-1], "the gzip stops before its end"),
        (damaged(gzip.compress(GOOD), -8, b"xxxx"), "the gzip is broken"),
        (gzip.compress(GOOD) + b"garbage", "the gzip is broken"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 100, "zstd"),
        (b"PK\x03\x04" + b"x" * 1000, "neither gzip nor tar"),
    ],
    ids=itertools.count(),  # the bytes hold a time stamp: as ids they would differ between processes
)
def test_what_is_no_layer_is_refused(data: bytes, reason: str) -> None:
    """Cut, damaged or something else altogether."""
    with pytest.raises(LayerInvalidError, match=reason):
        measure(io.BytesIO(data))


@given(st.binary(max_size=1200), st.booleans())
def test_whatever_comes_one_error_at_the_most(data: bytes, compressed: bool) -> None:
    """No input raises anything but LayerInvalidError."""
    with pytest.raises(LayerInvalidError):
        measure(io.BytesIO(gzip.compress(data, 1) if compressed else data.lstrip(b"\x00") or b"x"))


def test_a_bomb_is_stopped() -> None:
    """A few KiB that unpack to more than allowed are left where the limit is."""
    tar = tar_of(tarfile.TarInfo("a"), bytes(5 << 20))
    bomb = zlib.compress(tar, 9, wbits=31)

    with pytest.raises(LayerTooLargeError) as caught:
        measure(io.BytesIO(bomb), max_bytes=2 << 20)

    assert caught.value.max_bytes == 2 << 20
    assert measure(io.BytesIO(bomb), max_bytes=len(tar)).tar_size == len(tar)


def test_a_layers_description_reads_back() -> None:
    """In the form that Wave's layer.json has."""
    document = {"location": "layer.tar.gz", "gzipDigest": A, "gzipSize": 5, "tarDigest": B}

    assert PackedLayer.parse(document).as_json() == document
    assert PackedLayer.parse(document | {"location": None}).location == ""


@pytest.mark.parametrize(
    "change", [{"gzipDigest": "x"}, {"tarDigest": None}, {"gzipSize": -1}, {"gzipSize": "5"}, {"location": 1}]
)
def test_a_broken_description_is_refused(change: dict[str, Any]) -> None:
    """With the member's name."""
    with pytest.raises(LayerInvalidError, match=next(iter(change))):
        PackedLayer.parse({"gzipDigest": A, "gzipSize": 5, "tarDigest": B} | change)
    with pytest.raises(LayerInvalidError):
        PackedLayer.parse([])


def test_an_unreadable_mode_is_kept_as_it_is(tmp_path: Path) -> None:
    """Permissions are those of the file, whoever packs it."""
    (tmp_path / "secret").touch(mode=0o400)
    data, _ = packed(tmp_path)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getmember("secret").mode == stat.S_IRUSR


def test_file_capabilities_are_kept(tmp_path: Path) -> None:
    """What the system says of a file is what the layer says; where it can't say it, the layer doesn't."""
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    (tmp_path / "ping").touch()
    expected = {}
    with suppress(OSError, AttributeError):  # neither every user nor every file system may have them
        os.setxattr(tmp_path / "ping", "security.capability", capability)
        expected = {"SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape")}
    data, layer = packed(tmp_path)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getmember("ping").pax_headers == expected

    assert measure(io.BytesIO(data)) == layer
