"""Blobs that nginx sends, or the bucket: the same answers as ours, and the bytes by another way."""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from roadstead.oci.digest import Digest
from roadstead.testing.client import Answer, Client
from roadstead.testing.nginx import Nginx
from roadstead.testing.ports import free_port
from roadstead.testing.seaweedfs import SeaweedFS
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import wait_until

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "run-behind-nginx.md"
BLOCK = re.compile(r"^```nginx\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECRET = re.search(r'X-Roadstead-Offload "(\w+)"', PAGE.read_text())[1]  # type: ignore[index]
CONFIG = f'[server]\noffload = "x-accel"\noffload_secret = "{SECRET}"\n'
BLOB = bytes(range(256)) * 2735 + b"the same in every test process"
DIGEST = Digest.of(BLOB)
PATH = f"/v2/team/app/blobs/{DIGEST}"


def page_configuration(server: RoadsteadServer, port: int) -> str:
    """Return nginx's configuration as our page has it, with this test's addresses and no TLS."""
    [text] = BLOCK.findall(PAGE.read_text())
    text = re.sub(r"\n    (server_name|ssl_certificate|ssl_certificate_key) .*;", "", text)
    return (
        text.replace("listen 443 ssl http2", f"listen 127.0.0.1:{port}")
        .replace("127.0.0.1:5000", server.host)
        .replace("/var/lib/roadstead/", f"{server.data}/")
    )


@dataclass(frozen=True, slots=True)
class Front:
    """A server, nginx before it, and a client of each."""

    server: RoadsteadServer
    nginx: Nginx
    direct: Client
    proxied: Client


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A server with one blob, behind nginx as our page configures both."""
    folder = tmp_path_factory.mktemp("offload")
    server = RoadsteadServer(folder / "server", config=CONFIG, workers=1)
    port = free_port()
    nginx = Nginx(folder / "nginx", port, page_configuration(server, port))
    with server, nginx, Client(nginx.host) as proxied:
        direct = server.client()
        assert proxied.push_blob("team/app", BLOB) == DIGEST
        yield Front(server, nginx, direct, proxied)


TOLD = frozenset(
    {
        "content-length",
        "content-type",
        "content-range",
        "docker-content-digest",
        "docker-distribution-api-version",
        "etag",
        "cache-control",
        "content-disposition",
        "content-security-policy",
        "x-content-type-options",
    }
)
REQUESTS = [
    {},
    {"Range": "bytes=0-99"},
    {"Range": "bytes=700180-"},
    {"Range": "bytes=-5"},
    {"Range": "bytes=100-900000"},
    {"Range": "bytes=500-0"},
    {"Range": "bytes=700190-"},
    {"Range": "bytes=0-9,20-29"},
    {"Range": "bytes=20-29,0-9"},
    {"Range": "bytes=0-"},
    {"Range": "items=0-9"},
    {"Range": "bytes=0-9", "If-Range": f'"{DIGEST}"'},
    {"Range": "bytes=0-9", "If-Range": '"other"'},
    {"If-None-Match": f'"{DIGEST}"'},
    {"If-None-Match": '"other"'},
    {"If-Modified-Since": "Mon, 01 Jan 2035 00:00:00 GMT"},
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("headers", REQUESTS, ids=str)
def test_the_same_as_from_us(front: Front, method: str, headers: dict[str, str]) -> None:
    """Status, bytes and what clients read of the headers are the same, whoever sends the file."""
    ours = front.direct.request(method, PATH, headers=headers)
    theirs = front.proxied.request(method, PATH, headers=headers)

    assert (theirs.status, plain(theirs.body)) == (ours.status, plain(ours.body))
    if ours.status == 416:
        assert theirs.headers["content-range"] == ours.headers["content-range"]
    else:
        assert plain_headers(theirs) == plain_headers(ours)
    assert "x-accel-redirect" not in theirs.headers


def test_no_header_comes_twice(front: Front) -> None:
    """nginx adds headers of its own to what we say of a blob: none of them is there already."""
    connection = HTTPConnection(front.nginx.host, timeout=30)
    try:
        connection.request("GET", PATH)
        response = connection.getresponse()
        response.read()
        names = [name.lower() for name, _ in response.getheaders()]
    finally:
        connection.close()

    assert "accept-ranges" in names
    assert sorted(names) == sorted(set(names))


def plain(body: bytes) -> bytes | list[bytes]:
    """Return a body; of one in parts, the parts' bytes: boundaries are everybody's own."""
    if not body.startswith(b"\r\n--"):
        return body
    boundary = body.split(b"\r\n")[1]
    return [part.partition(b"\r\n\r\n")[2] for part in body.split(b"\r\n" + boundary)[1:-1]]


def plain_headers(answer: Answer) -> dict[str, str]:
    """Return the headers that clients read; of a body in parts without what its boundary makes of them."""
    headers = {name: value for name, value in answer.headers.items() if name in TOLD}
    if answer.headers.get("content-type", "").startswith("multipart/byteranges"):
        headers |= {"content-type": "in parts", "content-length": "in parts"}
    return headers


def test_only_nginx_is_told_of_the_file(front: Front) -> None:
    """A client that comes directly gets bytes, one that guesses a secret too; who knows it is told the file."""
    guessed = front.direct.get(PATH, {"X-Roadstead-Offload": "8f1c0f6f9e1d4f0c8a7b2c5e"})
    known = front.direct.get(PATH, {"X-Roadstead-Offload": SECRET})

    assert guessed.body == BLOB
    assert "x-accel-redirect" not in guessed.headers
    assert (known.status, known.body) == (200, b"")
    assert known.headers["x-accel-redirect"] == (f"/roadstead-blobs/sha256/{DIGEST.encoded[:2]}/{DIGEST.encoded}/data")


def test_the_location_is_nobodys(front: Front) -> None:
    """Asked by its name nginx's location gives nothing, and a repository that doesn't hold the blob gives 404."""
    assert front.proxied.get(f"/roadstead-blobs/sha256/{DIGEST.encoded[:2]}/{DIGEST.encoded}/data").status == 404
    elsewhere = front.proxied.get(f"/v2/team/other/blobs/{DIGEST}")
    assert (elsewhere.status, elsewhere.code) == (404, "BLOB_UNKNOWN")


def test_nginx_sends_the_bytes(front: Front) -> None:
    """Our log tells of a request without a body."""
    front.proxied.get(PATH, {"Range": "bytes=1-7"})

    def told() -> bool:
        lines = [line for line in front.server.log.splitlines() if str(DIGEST) in line]
        return any("status=200" in line and "method=GET" in line and "sent=0 " in line for line in lines)

    assert wait_until(told, timeout=timedelta(seconds=10))


def test_a_missing_file_is_ours_to_tell(front: Front) -> None:
    """nginx would answer a page of its own: a file that is gone is told as an error of the API."""
    lost = front.direct.push_blob("team/app", data := secrets.token_bytes(400_000))
    path = front.server.data / f"docker/registry/v2/blobs/sha256/{lost.encoded[:2]}/{lost.encoded}/data"
    path.unlink()

    answer = front.proxied.get(f"/v2/team/app/blobs/{lost}")

    assert answer.status >= 500
    assert answer.code is not None
    assert len(data) != len(answer.body)


# The bucket


def fetch(url: str, method: str = "GET", headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Ask the bucket itself."""
    parts = urlsplit(url)
    connection = HTTPConnection(str(parts.netloc), timeout=30)
    try:
        connection.request(method, f"{parts.path}?{parts.query}", headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_clients_are_sent_to_the_bucket(tmp_path: Path, seaweedfs: SeaweedFS, postgres_url: str) -> None:
    """GET is 307 with a URL that gives the bytes and ranges of them; HEAD is answered here, and so are manifests."""
    other_name = seaweedfs.endpoint.replace("127.0.0.1", "localhost")
    config = f"""
        [storage]
        driver = "s3"
        bucket = "test"
        prefix = "{secrets.token_hex(6)}"
        region = "{seaweedfs.region}"
        endpoint = "{seaweedfs.endpoint}"
        redirect = true
        redirect_endpoint = "{other_name}"
        access_key = "{seaweedfs.access_key}"
        secret_key = "{seaweedfs.secret_key}"
        [database]
        url = "{postgres_url}"
        """
    with RoadsteadServer(tmp_path, config=config, workers=1) as server:
        client = server.client()
        client.push_blob("team/app", BLOB)
        small = client.push_blob("team/app", b"{}")
        answer = client.get(PATH)
        headed = client.head(PATH)
        unknown = client.get(f"/v2/team/other/blobs/{DIGEST}")
        known = client.get(PATH, {"If-None-Match": f'"{DIGEST}"'})
        tiny = client.get(f"/v2/team/app/blobs/{small}")
        url = answer.headers["location"]

        assert (answer.status, answer.body) == (307, b"")
        assert answer.headers["docker-content-digest"] == str(DIGEST)
        assert answer.headers["cache-control"] == "no-cache"
        assert url.startswith(other_name)
        assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
        assert "X-Amz-Expires=1200" in url
        assert fetch(url) == (200, BLOB)
        assert fetch(url, headers={"Range": "bytes=3-9"}) == (206, BLOB[3:10])
        assert (headed.status, headed.headers["content-length"]) == (200, str(len(BLOB)))
        assert (unknown.status, known.status, tiny.status) == (404, 304, 307)
