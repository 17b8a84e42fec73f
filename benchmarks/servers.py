"""The servers that are measured, each started when it is first needed, on loopback, in a directory of its own."""

import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import bcrypt

from benchmarks.fill import fill, fill_blobs
from roadstead.testing.components import ComponentMissingError, require
from roadstead.testing.nginx import Nginx
from roadstead.testing.ports import free_port
from roadstead.testing.postgres import open_postgres
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import Process

ROOT = Path(__file__).resolve().parent.parent
D3_MODULE = "github.com/distribution/distribution/v3/cmd/registry@v3.1.1"
D3_VARIABLE = "BENCH_D3"
"""The environment variable that names distribution 3's ``registry``, where it is built already."""

SPACE = "up.example"
"""What stands before the names of the upstream's images at Roadstead; distribution's cache has no such thing."""

_OFFLOAD_SECRET = "nginx-on-this-machine"

BENCH_USER, BENCH_PASSWORD = "ana", "of ana"
BENCH_SERVICE = "bench"

_GUARDED = f"""
[auth]
htpasswd = "users"
accounts = true
issue = {{ service = "{BENCH_SERVICE}" }}

[[auth.policies]]
subjects = ["everyone"]
repositories = ["**"]
actions = ["pull", "push"]
"""

_RULE = """
[[augment.rules]]
match = "augmented/*:*"
layers = ["added"]
env = ["ADDED=1"]
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it answers, and its first process. `start_s`: from its start to its first answer."""

    name: str
    port: int
    pid: int
    start_s: float
    files: Path  # the directory that bare and nginx serve; otherwise where the data is
    behind: tuple[int, ...] = ()  # first processes of what stands behind it, and works for it too


class Offloaded:
    """Roadstead behind an nginx that sends the blobs (docs/how-to/run-behind-nginx.md)."""

    def __init__(self, directory: Path) -> None:
        config = f'[server]\noffload = "x-accel"\noffload_secret = "{_OFFLOAD_SECRET}"\n'
        self.registry = RoadsteadServer(directory / "registry", config=config)
        port = free_port()
        self.nginx = Nginx(directory / "nginx", port, _in_front_of(self.registry, port))

    @property
    def pid(self) -> int:
        """Return nginx's first process."""
        return self.nginx.pid

    def start(self) -> None:
        """Start both."""
        self.registry.start()
        self.nginx.start()

    def stop(self) -> None:
        """Stop both."""
        self.nginx.stop()
        self.registry.stop()


class Servers:
    """Starts servers by name and stops them all at the end."""

    def __init__(self, stack: ExitStack, home: Path, *, quick: bool) -> None:
        self._stack = stack
        self._home = home
        self._many = 10_000 if quick else 100_000
        self._running: dict[str, Server] = {}
        self._starts: dict[str, Callable[[Path], tuple[Process | RoadsteadServer | Offloaded, int]]] = {
            "Roadstead": _roadstead,
            "nginx-offload": _behind_nginx,
            "augmenting": _augmenting,
            "guarded": _guarded,
            "limited": _limited,
            "telling": self._telling,
            "collected": self._collected,
            "many": self._listing(self._many, self._many, 10_000),
            "few": self._listing(100, 100, 100),
            "PostgreSQL": self._on_postgres,
            "upstream": _d2,
            "Roadstead-proxy": self._proxying,
            "D2-proxy": self._proxy_of(_find_d2),
            "D3-proxy": self._proxy_of(find_d3),
            "D2": _d2,
            "D3": _d3,
            "bare": _bare,
            "nginx": _nginx,
        }

    def __getitem__(self, name: str) -> Server:
        """Return a running server. Raises ComponentMissingError where its program isn't there."""
        if name not in self._running:
            self._running[name] = self.start(name)
        return self._running[name]

    @property
    def running(self) -> Sequence[Server]:
        """Return what was started and kept."""
        return list(self._running.values())

    def start(self, name: str, *, stack: ExitStack | None = None) -> Server:
        """Start a server of its own, in the stack or until the end."""
        directory = self._home / f"{name}-{len(os.listdir(self._home))}"  # noqa: PTH208 -- counted only
        directory.mkdir()
        process, port = self._starts[name](directory)
        began = time.perf_counter()
        (stack or self._stack).callback(process.stop)
        process.start()
        while not _answers(port):
            if time.perf_counter() - began > 60:
                raise TimeoutError(name)
            time.sleep(0.002)
        behind = (process.registry.pid,) if isinstance(process, Offloaded) else ()
        return Server(name, port, process.pid, time.perf_counter() - began, directory, behind)

    def _listing(self, tags: int, repositories: int, referrers: int) -> Callable[[Path], tuple[RoadsteadServer, int]]:
        def start(directory: Path) -> tuple[RoadsteadServer, int]:
            server = RoadsteadServer(directory)
            fill(
                server.data / "roadstead.db",
                tag_count=tags,
                repository_count=repositories,
                referrer_count=referrers,
            )
            return server, server.port

        return start

    def _collected(self, directory: Path) -> tuple[RoadsteadServer, int]:
        server = RoadsteadServer(directory, config="[gc]\nenabled = false\n")
        server.data.mkdir(parents=True)
        fill_blobs(server.data / "roadstead.db", self._many * 10, lease_until=datetime(2026, 1, 1, tzinfo=UTC))
        return server, server.port

    def _telling(self, directory: Path) -> tuple[RoadsteadServer, int]:
        # Receivers are other machines: this one takes as little of ours as it can.
        port = free_port()
        takes = f"  server {{ listen 127.0.0.1:{port}; access_log off; location / {{ return 200; }} }}\n"
        self._stack.enter_context(Nginx(directory / "receiver", port, takes))
        config = f'[[events.endpoints]]\nname = "bench"\nurl = "http://127.0.0.1:{port}/"\nactions = ["pull"]\n'
        server = RoadsteadServer(directory, config=config)
        return server, server.port

    def _proxying(self, directory: Path) -> tuple[RoadsteadServer, int]:
        # Distribution asks where a tag is at each pull, and so do we here.
        url = f"http://127.0.0.1:{self['upstream'].port}"
        config = f'[[upstreams]]\nhost = "{SPACE}"\nurl = "{url}"\nrevalidate = "0s"\n'
        server = RoadsteadServer(directory, config=config)
        return server, server.port

    def _proxy_of(self, find: Callable[[], Path]) -> Callable[[Path], tuple[Process, int]]:
        def start(directory: Path) -> tuple[Process, int]:
            proxy = {"proxy": {"remoteurl": f"http://127.0.0.1:{self['upstream'].port}"}}
            return _distribution(find(), directory, more=proxy)

        return start

    def _on_postgres(self, directory: Path) -> tuple[RoadsteadServer, int]:
        url = self._stack.enter_context(open_postgres(durable=True)).create_database("bench")
        server = RoadsteadServer(directory, config=f'[database]\nurl = "{url}"\n')
        return server, server.port


def find_d3() -> Path:
    """Return distribution 3's program, built now if Go is here; raises ComponentMissingError."""
    given = os.environ.get(D3_VARIABLE)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "roadstead-bench"
    if given:
        return Path(given)
    if not (cache / "registry").exists():
        go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
        if go is None:
            raise ComponentMissingError("registry (distribution 3)", f"GOBIN={cache} go install {D3_MODULE}")
        subprocess.run([go, "install", D3_MODULE], check=True, env={**os.environ, "GOBIN": str(cache)})
    return cache / "registry"


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status < 500
    except OSError:
        return False
    finally:
        connection.close()


def _roadstead(directory: Path) -> tuple[RoadsteadServer, int]:
    server = RoadsteadServer(directory)
    return server, server.port


def _behind_nginx(directory: Path) -> tuple[Offloaded, int]:
    servers = Offloaded(directory)
    return servers, servers.nginx.port


def _in_front_of(registry: RoadsteadServer, port: int) -> str:
    return (
        "  sendfile on; tcp_nopush on;\n"
        f"  upstream roadstead {{ server {registry.host}; keepalive 32; }}\n"
        f"  server {{ listen 127.0.0.1:{port}; client_max_body_size 0; proxy_request_buffering off;\n"
        "    proxy_buffering off;\n"
        '    location / { proxy_pass http://roadstead; proxy_http_version 1.1; proxy_set_header Connection "";\n'
        f'      proxy_set_header Host $http_host; proxy_set_header X-Roadstead-Offload "{_OFFLOAD_SECRET}"; }}\n'
        f"    location /roadstead-blobs/ {{ internal; alias {registry.data}/docker/registry/v2/blobs/; etag off; }}\n"
        "  }\n"
    )


def _augmenting(directory: Path) -> tuple[RoadsteadServer, int]:
    (directory / "added").mkdir()
    (directory / "added" / "added.txt").write_text("added")
    server = RoadsteadServer(directory, config=_RULE)
    return server, server.port


def _guarded(directory: Path) -> tuple[RoadsteadServer, int]:
    """Return a server that everybody may use, and that finds out who somebody is who says so."""
    hashed = bcrypt.hashpw(BENCH_PASSWORD.encode(), bcrypt.gensalt(10)).decode()
    (directory / "users").write_text(f"{BENCH_USER}:{hashed}\n")
    server = RoadsteadServer(directory, config=_GUARDED)
    return server, server.port


def _limited(directory: Path) -> tuple[RoadsteadServer, int]:
    """Return a server whose limits are never reached."""
    server = RoadsteadServer(directory, config="[limits]\nclient_rate = 1000000\nclient_uploads = 1000\n")
    return server, server.port


def _d2(directory: Path) -> tuple[Process, int]:
    return _distribution(_find_d2(), directory)


def _find_d2() -> Path:
    return require("docker-registry", install="apt-get install docker-registry")


def _d3(directory: Path) -> tuple[Process, int]:
    return _distribution(find_d3(), directory)


def _distribution(program: Path, directory: Path, *, more: Mapping[str, object] | None = None) -> tuple[Process, int]:
    """Return a registry as its own package configures it: access log on, descriptors cached in memory."""
    port = free_port()
    config = {
        "version": "0.1",
        "log": {"fields": {"service": "registry"}},
        "storage": {
            "cache": {"blobdescriptor": "inmemory"},
            "filesystem": {"rootdirectory": str(directory / "data")},
            "delete": {"enabled": True},
        },
        "http": {"addr": f"127.0.0.1:{port}", "headers": {"X-Content-Type-Options": ["nosniff"]}},
        "health": {"storagedriver": {"enabled": True, "interval": "10s", "threshold": 3}},
        **(more or {}),
    }
    path = directory / "config.yml"
    path.write_text(json.dumps(config))  # YAML includes JSON
    # Its image sets this too: without it, it looks for a collector of traces.
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    command = [program, "serve", path]
    return Process(command, log=directory / "log", directory=directory, environment=environment), port


def _bare(directory: Path) -> tuple[Process, int]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.bare", directory, str(port)]
    return Process(command, log=directory / "log", directory=ROOT), port


def _nginx(directory: Path) -> tuple[Process, int]:
    port = free_port()
    (directory / "nginx.conf").write_text(
        f"{'user root;' if os.geteuid() == 0 else ''}\n"
        "worker_processes 2;\n"
        f"pid {directory}/pid;\n"
        "events {}\n"
        "http {\n"
        f"  access_log {directory}/access.log;\n"
        "  sendfile on; tcp_nopush on; etag off;\n"
        f"  server {{ listen 127.0.0.1:{port}; root {directory}; location = /v2/ {{ return 200; }} }}\n"
        "}\n"
    )
    program = require("nginx", install="apt-get install nginx-light")
    command = [program, "-e", directory / "error.log", "-c", directory / "nginx.conf", "-g", "daemon off;"]
    return Process(command, log=directory / "log", directory=directory), port
