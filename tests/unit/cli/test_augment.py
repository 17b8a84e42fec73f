"""``roadstead augment``: what becomes of local layers, and where the service is."""

import gzip
import os
from base64 import b64decode
from pathlib import Path

import pytest

from roadstead.cli.augment import LayerTooLargeError, LayerUnreadableError, address, described
from roadstead.oci.digest import Digest
from roadstead.settings.address import ListenAddress
from roadstead.settings.model import ServerSettings, Settings, TlsSettings
from roadstead.testing.images import make_layer

LAYER = make_layer({"foo.txt": b"hello"})


def test_a_file_and_a_directory(tmp_path: Path) -> None:
    """Both are described with the bytes that go with the request."""
    (tmp_path / "layer.tar.gz").write_bytes(LAYER.raw)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "foo.txt").write_text("hello")
    for name in ("layer.tar.gz", "files"):
        found = described(str(tmp_path / name))
        data = b64decode(found["location"].removeprefix("data:"))
        assert (found["gzipDigest"], found["gzipSize"]) == (str(Digest.of(data)), len(data))
        assert found["tarDigest"] == str(Digest.of(gzip.decompress(data)))


def test_what_is_no_layer(tmp_path: Path) -> None:
    """It isn't there, isn't a tar, isn't compressed, or is more than a request carries."""
    (tmp_path / "text").write_text("no layer")
    (tmp_path / "plain.tar").write_bytes(gzip.decompress(LAYER.raw))
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "random").write_bytes(os.urandom(2 << 20))
    for name in ("missing", "text", "plain.tar"):
        with pytest.raises(LayerUnreadableError, match=name):
            described(str(tmp_path / name))
    with pytest.raises(LayerTooLargeError, match="1048576"):
        described(str(tmp_path / "large"))


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
