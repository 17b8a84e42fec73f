"""``roadstead augment``: what becomes of local layers, and where the service is."""

import gzip
import os
from base64 import b64decode
from contextlib import ExitStack
from pathlib import Path

import pytest

from roadstead.augment.wanted_layers import MAX_LAYER_BYTES, MAX_TAR_BYTES
from roadstead.cli.augment import Layer, LayerUnreadableError, address, home_of, measured, too_large
from roadstead.oci.digest import Digest
from roadstead.oci.layer import PackedLayer
from roadstead.settings.address import ListenAddress
from roadstead.settings.model import ServerSettings, Settings, TlsSettings
from roadstead.testing.images import make_layer

LAYER = make_layer({"foo.txt": b"hello"})


def test_a_file_and_a_directory(tmp_path: Path) -> None:
    """Both are described with the bytes that go with the request."""
    (tmp_path / "layer.tar.gz").write_bytes(LAYER.raw)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "foo.txt").write_text("hello")
    with ExitStack() as kept:
        for name in ("layer.tar.gz", "files"):
            found = measured(str(tmp_path / name), kept).described()
            data = b64decode(found["location"].removeprefix("data:"))
            assert (found["gzipDigest"], found["gzipSize"]) == (str(Digest.of(data)), len(data))
            assert found["tarDigest"] == str(Digest.of(gzip.decompress(data)))


def test_what_is_no_layer(tmp_path: Path) -> None:
    """It isn't there, isn't a tar, or isn't compressed."""
    (tmp_path / "text").write_text("no layer")
    (tmp_path / "plain.tar").write_bytes(gzip.decompress(LAYER.raw))
    for name in ("missing", "text", "plain.tar"):
        with ExitStack() as kept, pytest.raises(LayerUnreadableError, match=name):
            measured(str(tmp_path / name), kept)


def layer(size: int, tar_size: int = 0) -> Layer:
    packed = PackedLayer(LAYER.digest, size, LAYER.diff_id, tar_size)
    return Layer(f"{size}", packed, file=open(os.devnull, "rb"))  # noqa: PTH123 (never read)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([], []),
        ([(MAX_LAYER_BYTES, 0)], []),
        ([(MAX_LAYER_BYTES + 1, 0)], [0]),
        ([(MAX_LAYER_BYTES, 0)] * 10, []),
        ([(MAX_LAYER_BYTES, 0)] * 11 + [(1, 0)], [10, 11]),
        ([(2 * MAX_LAYER_BYTES, 0)] * 10 + [(1, 0)], list(range(10))),
        ([(1000, MAX_TAR_BYTES)], []),
        ([(1000, MAX_TAR_BYTES + 1)], [0]),
        ([(1 << 19, 64 << 19)], []),
    ],
)
def test_what_does_not_go_with_a_request(layers: list[tuple[int, int]], expected: list[int]) -> None:
    """What the service would refuse: too many bytes of one layer, of all, or unpacking to too much."""
    given = [layer(*sizes) for sizes in layers]
    assert [given.index(one) for one in too_large(given)] == expected
    for one in given:
        assert one.file is not None
        one.file.close()


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("team/app:1", "team/app"),
        ("app", "app"),
        ("r.example:5000/team/app@sha256:" + "0" * 64, "team/app"),
        ("R.example:5000/team/app:1", None),
        ("docker.io/library/busybox:1", None),
        ("r.example/team/app:1", None),
        ("not an image", None),
    ],
)
def test_whose_repository_keeps_a_large_layer(image: str, expected: str | None) -> None:
    """The image's, if its name says that it is the service's own."""
    found = home_of(image, "https://r.example:5000")
    assert (None if found is None else str(found)) == expected


@pytest.mark.parametrize(
    ("server", "tls", "expected"),
    [
        (ServerSettings(), TlsSettings(), "http://127.0.0.1:5000"),
        (ServerSettings(listen=ListenAddress("0.0.0.0", 80)), TlsSettings(), "http://127.0.0.1:80"),
        (ServerSettings(listen=ListenAddress("::1", 80)), TlsSettings(self_signed=True), "https://[::1]:80"),
        (ServerSettings(public_url="https://r.example.com/"), TlsSettings(), "https://r.example.com"),
    ],
)
def test_where_the_service_is(server: ServerSettings, tls: TlsSettings, expected: str) -> None:
    """Its public address, else where it listens, as this machine reaches that."""
    assert address(Settings(server=server, tls=tls)) == expected
