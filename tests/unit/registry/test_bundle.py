"""Files in folders and archives that anybody may have made: found where they are, never led out of, never believed."""

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from roadstead.registry import bundle as room
from roadstead.registry.bundle import BundleInvalidError, BundleMissingError, open_bundle

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", **more: object) -> Member:
    """Return a member of an archive; *more* are members of its header."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def tar(*members: Member, layout: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=layout) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def read(path: Path, name: str, **options: int) -> bytes | None:
    """Return what a bundle has under a name."""
    with open_bundle(path, **options) as bundle:
        file = bundle.find(name)
        if file is None:
            return None
        with bundle.open(file) as stream:
            return stream.read(-1)


PLAIN = tar(member("a/", kind=tarfile.DIRTYPE), member("a/b", b"first"), member("c", b"x" * 2000))


@pytest.mark.parametrize(
    "packed",
    [
        PLAIN,
        gzip.compress(PLAIN),
        gzip.compress(PLAIN[:1000]) + gzip.compress(PLAIN[1000:]),
        zstandard.compress(PLAIN),
        tar(member("./a/b", b"first"), member("./c", b"x" * 2000), layout=tarfile.GNU_FORMAT),
    ],
    ids=["plain", "gzip", "several gzip members", "zstd", "names that begin with a dot"],
)
def test_members_are_read_where_they_lie(tmp_path: Path, packed: bytes) -> None:
    """Whatever the archive is compressed with."""
    path = tmp_path / "images.tar"
    path.write_bytes(packed)

    assert read(path, "a/b") == b"first"
    assert read(path, "c") == b"x" * 2000
    assert read(path, "a/../a/./b") == b"first"
    assert read(path, "no/such") is None


def test_links_are_followed_inside(tmp_path: Path) -> None:
    """Docker's older archives name a layer that two images share by a symbolic link; hard links are files again."""
    path = tmp_path / "images.tar"
    path.write_bytes(
        tar(
            member("layers/one.tar", b"layer"),
            member("old/layer.tar", kind=tarfile.SYMTYPE, link="../layers/one.tar"),
            member("hard", kind=tarfile.LNKTYPE, link="layers/one.tar"),
            member("twice", b"before"),
            member("twice", b"after"),
        )
    )

    assert read(path, "old/layer.tar") == read(path, "hard") == b"layer"
    assert read(path, "twice") == b"after"


def many_headers() -> bytes:
    """Return an archive in which one pax header follows the other for ever."""
    info = tarfile.TarInfo("PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 11
    block = info.tobuf(tarfile.USTAR_FORMAT) + b"11 path=ab\n".ljust(512, b"\0")
    return block * 5000 + PLAIN


def huge_header() -> bytes:
    info = tarfile.TarInfo("PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 8 << 30
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def long_name() -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 20
    return info.tobuf(tarfile.GNU_FORMAT) + b"a" * (1 << 20) + PLAIN


def sparse_header() -> bytes:
    """Return an archive with a member in GNU's old sparse format, whose map goes on for ever."""
    info = tarfile.TarInfo("sparse")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 512
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[482] = 1
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    extended = bytearray(512)
    extended[504] = 1
    return bytes(block) + bytes(extended) * 1000


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "no tar": (lambda: b"hello" * 200, "isn't a tar"),
    "empty": (lambda: b"", "isn't a tar"),
    "cut short in a member": (lambda: PLAIN[:2100], "cut short"),
    "a member larger than the archive": (
        lambda: member("a", size=1 << 60)[0].tobuf(tarfile.GNU_FORMAT) + bytes(1024),
        "cut short",
    ),
    "a pax header of 8 GiB": (huge_header, "a header of more than"),
    "a name of 1 MiB": (long_name, "a header of more than"),
    "headers without end": (many_headers, "a header of more than|isn't a tar"),
    "a sparse map without end": (sparse_header, "a header of more than"),
    "gzip cut short": (lambda: gzip.compress(PLAIN)[:-20], "is broken"),
    "gzip with a wrong sum": (lambda: gzip.compress(PLAIN)[:-8] + bytes(8), "is broken"),
    "zstd cut short": (lambda: zstandard.compress(PLAIN)[:-20], "is broken|isn't a tar|cut short"),
    "zstd that is noise": (lambda: b"\x28\xb5\x2f\xfd" + bytes(range(200)), "is broken"),
    "bzip2": (lambda: b"BZh91AY", "compressed with bzip2"),
    "xz": (lambda: b"\xfd7zXZ\x00", "compressed with xz"),
    "a bomb": (lambda: gzip.compress(bytes(3 << 20)), "unpacks to more than 2,097,152 bytes"),
    "too many members": (lambda: tar(*(member(str(n)) for n in range(40))), "more than 30 members"),
}


@pytest.mark.parametrize(("make", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_archives_that_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[], bytes], reason: str
) -> None:
    """Each with its reason, and with the archive's name; nothing is left in the folder for large files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "large"))
    monkeypatch.setattr(room, "MAX_MEMBERS", 30)
    (tmp_path / "large").mkdir()
    path = tmp_path / "images.tar"
    path.write_bytes(make())

    with pytest.raises(BundleInvalidError, match=reason) as caught, open_bundle(path, max_unpacked=2 << 20):
        pass

    assert str(caught.value).startswith(str(path))
    assert list((tmp_path / "large").iterdir()) == []


LEADING_OUT = {
    "an absolute name": ("/etc/passwd", "leads out"),
    "a name upwards": ("../secret", "leads out"),
    "a name upwards further on": ("a/../../secret", "leads out"),
    "a name with a zero": ("a\0b", "leads out"),
    "a link upwards": ("up", "leads out"),
    "an absolute link": ("absolute", "leads out"),
    "links in a ring": ("ring", "more than 8 links"),
    "a device": ("device", "a device or a pipe"),
    "a pipe": ("pipe", "a device or a pipe"),
    "a file with holes": ("holes", "sparse"),
}


@pytest.mark.parametrize(("name", "reason"), LEADING_OUT.values(), ids=LEADING_OUT)
def test_members_that_are_refused(tmp_path: Path, name: str, reason: str) -> None:
    """Only when they are asked for; the others are read all the same."""
    path = tmp_path / "images.tar"
    holes = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "holes", "GNU.sparse.realsize": "99"}
    path.write_bytes(
        tar(
            member("good", b"read"),
            member("../secret", b"never read"),
            member("up", kind=tarfile.SYMTYPE, link="../secret"),
            member("absolute", kind=tarfile.SYMTYPE, link="/etc/passwd"),
            member("ring", kind=tarfile.SYMTYPE, link="ring2"),
            member("ring2", kind=tarfile.SYMTYPE, link="ring"),
            member("device", kind=tarfile.CHRTYPE),
            member("pipe", kind=tarfile.FIFOTYPE),
            member("x/holes", b"1\n0\n5\n".ljust(517, b"\0"), pax_headers=holes),
        )
    )

    assert read(path, "good") == b"read"
    with pytest.raises(BundleInvalidError, match=reason):
        read(path, name)


def test_a_folder_is_not_left(tmp_path: Path) -> None:
    """A link that leads out is refused, and so is what would keep a reader waiting; links inside are followed."""
    (tmp_path / "secret").write_bytes(b"secret")
    folder = tmp_path / "layout"
    (folder / "blobs").mkdir(parents=True)
    (folder / "blobs/a").write_bytes(b"inside")
    (folder / "out").symlink_to("../secret")
    (folder / "link").symlink_to("blobs/a")
    os.mkfifo(folder / "pipe")

    assert read(folder, "link") == read(folder, "blobs/a") == b"inside"
    assert read(folder, "nothing") is read(folder, "blobs/a/below") is None
    for name, reason in (("out", "leads out"), ("../secret", "leads out"), ("pipe", "not a regular"), ("blobs", "not")):
        with pytest.raises(BundleInvalidError, match=reason):
            read(folder, name)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    """Nothing there, or a pipe: said at once, without waiting for a writer."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("nothing", "pipe"):
        with pytest.raises(BundleMissingError, match="can't be read"), open_bundle(tmp_path / name):
            pass


@given(st.binary(max_size=3000), st.integers(0, len(PLAIN)))
def test_noise_is_an_archive_or_refused(tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int) -> None:
    """Whatever bytes come, they are read or refused by our own error, nothing else."""
    path = tmp_path_factory.mktemp("noise") / "images.tar"
    path.write_bytes(PLAIN[:at] + noise + PLAIN[at + len(noise) :])
    try:
        with open_bundle(path, max_unpacked=1 << 20) as bundle:
            bundle.find("a/b")
    except BundleInvalidError:
        pass
