"""Roadstead with TLS at a name, and clients that trust its certificate as an administrator would have them.

Docker takes registries on 127.0.0.0/8 without TLS, or with any certificate: there nothing would be tested. So
``registry.test`` is ``::1`` here, by an ``/etc/hosts`` that only our own programs see, in a mount namespace of theirs,
beside an ``/etc/docker`` whose ``certs.d`` holds the certificate.
"""

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from tests.certificates import Authority

from roadstead.testing.components import ComponentMissingError, require
from roadstead.testing.dockerd import DockerEngine, open_own_engine
from roadstead.testing.go_clients import CRANE, HELM, ORAS, find_or_build
from roadstead.testing.ports import free_port
from roadstead.testing.servers import Process

NAME: Final = "registry.test"
TOKENS: Final = "tokens.test"  # where tokens are given out: some clients go to no literal address for them
_SOURCE = str(Path(__file__).parents[2] / "src")
_MOUNT = 'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/docker && shift 2 && exec "$@"'
_GO = {client.name: client for client in (CRANE, ORAS, HELM)}
_TIMEOUT_S = 120


class Place:
    """A mount namespace in which ``registry.test`` is this machine."""

    def __init__(self, directory: Path) -> None:
        self.docker = directory / "docker"
        self.docker.mkdir()
        self._hosts = directory / "hosts"
        self._hosts.write_text(f"127.0.0.1 localhost {TOKENS}\n::1 {NAME}\n")
        if os.geteuid() != 0:
            raise ComponentMissingError("root, for a mount namespace", "sudo")

    @property
    def way_in(self) -> list[str]:
        """Return the words that, before a command, run it here."""
        unshare = require("unshare", install="apt-get install util-linux")
        return [str(unshare), "--mount", "sh", "-c", _MOUNT, "sh", str(self._hosts), str(self.docker)]

    def trust(self, server: "TlsServer", *others: str) -> None:
        """Put the server's certificate, and *others* in PEM, where Docker and skopeo look for them."""
        trusted = self.trusted(server)
        trusted.parent.mkdir(parents=True)
        trusted.write_text("".join((server.certificate.read_text(), *others)))

    def trusted(self, server: "TlsServer") -> Path:
        """Return where the certificates are that are trusted for a server."""
        return self.docker / "certs.d" / server.host / "ca.crt"


class TlsServer:
    """``roadstead serve`` on ``registry.test``: with a certificate of its own making, or with one of an authority."""

    def __init__(self, directory: Path, config: str, authority: Authority | None = None) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.port = free_port()
        self.host = f"{NAME}:{self.port}"
        self.config = directory / "roadstead.toml"
        self.authority = authority
        words: list[str] = []
        if authority is None:
            tls, words = f'self_signed = true\nnames = ["{NAME}"]\n', ["--tls", "self-signed"]
        else:
            tls = 'certificate = "certificate.pem"\nkey = "key.pem"\n'
            authority.write(directory / "authority.pem")
            self.replace_certificate("first")
        self.config.write_text(f"{config}\n[tls]\n{tls}")
        command = [sys.executable, "-m", "roadstead", "serve", str(self.config), "--listen", f"[::1]:{self.port}",
                   "--data", str(self.data), "--workers", "2", *words]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": _SOURCE}
        self.process = Process(command, log=directory / "log", environment=environment, directory=directory)

    @property
    def certificate(self) -> Path:
        """Return where the certificate is that clients are to trust."""
        return self.data / "tls" / "certificate.pem" if self.authority is None else self.directory / "authority.pem"

    def replace_certificate(self, name: str) -> None:
        """Put another certificate of the authority in the place of the one that is served."""
        assert self.authority is not None
        self.authority.write_server(self.directory, name, hosts=(NAME,))

    def shown(self) -> str:
        """Return the common name of the certificate that the server shows."""
        with self._connection() as connection:
            found: Any = connection.getpeercert()
        return str(dict(pair for part in found["subject"] for pair in part)["commonName"])

    def __enter__(self) -> Self:
        self.process.start()
        self.process.wait_ready(self._is_ready)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    def roadstead(self, *words: str, given: str = "") -> str:
        """Run a command beside the server and return what it printed."""
        command = [sys.executable, "-m", "roadstead", *words, str(self.config), "--data", str(self.data)]
        environment = {**os.environ, "PYTHONPATH": _SOURCE}
        done = subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True, input=given, timeout=60
        )
        return done.stdout.strip()

    def _is_ready(self) -> bool:
        try:
            with self._connection() as connection:
                connection.sendall(f"GET /readyz HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n\r\n".encode())
                return connection.recv(12) == b"HTTP/1.1 200"
        except OSError:
            return False

    @contextmanager
    def _connection(self) -> Iterator[ssl.SSLSocket]:
        context = ssl.create_default_context(cafile=str(self.certificate))
        with (
            socket.create_connection(("::1", self.port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=NAME) as connection,
        ):
            yield connection


class Clients:
    """Every other client, in the place, with a home and credentials of its own."""

    def __init__(self, place: Place, home: Path, server: TlsServer) -> None:
        self._place = place
        self.home = home
        self._trusted = place.trusted(server)

    def run(self, *words: str, given: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a client there; Go's own trust in certificates is that of a variable."""
        program = find_or_build(_GO[words[0]]) if words[0] in _GO else require(words[0], install=f"apt {words[0]}")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
        environment = {
            **kept,
            "HOME": str(self.home),
            "DOCKER_CONFIG": str(self.home / ".docker"),
            "SSL_CERT_FILE": str(self._trusted),
        }
        return subprocess.run(
            [*self._place.way_in, str(program), *words[1:]],
            cwd=self.home,
            env=environment,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )


@contextmanager
def open_engine(place: Place) -> Iterator[DockerEngine]:
    """Run a Docker engine in the place."""
    with open_own_engine(place.way_in) as engine:
        yield engine
