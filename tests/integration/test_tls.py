"""``roadstead serve`` with TLS: real handshakes, certificates that change while clients are at work."""

import contextlib
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Self

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.certificates import Authority, key_pem, pem, replace_text

from roadstead.testing.scripted_upstream import answers, scripted_upstream
from roadstead.testing.server import RoadsteadServer
from roadstead.upstream.address import RegistryAddress
from roadstead.upstream.client import RegistryClient
from roadstead.upstream.errors import OtherProtocolError
from roadstead.upstream.transport import Transport

_PATIENCE_S = 30

Serve = Callable[..., "Served"]


class Served:
    """A running server and what it has said."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        self.log = directory / "server.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "roadstead", "serve", *arguments],
                cwd=directory,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )

    def wait(self, pattern: str) -> str:
        """Wait until the log has the pattern; return its first group, or all of it."""
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            text = self.log.read_text()
            if found := re.search(pattern, text):
                return found[1] if found.groups() else found[0]
            assert self.process.poll() is None, text
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} in {self.log.read_text()}")

    @property
    def port(self) -> int:
        return int(self.wait(r"listens at https://127\.0\.0\.1:(\d+)"))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, config: str = "") -> Served:
            (tmp_path / "roadstead.toml").write_text(config)
            served = Served(tmp_path, "roadstead.toml", "--listen", "127.0.0.1:0", *arguments)
            stack.callback(served.process.wait, _PATIENCE_S)
            stack.callback(served.process.terminate)
            return served

        yield start


def trusting(authority: Path, certificate: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority))
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context


def get(port: int, context: ssl.SSLContext) -> int:
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=_PATIENCE_S, context=context)
    with contextlib.closing(connection):
        connection.request("GET", "/v2/")
        return connection.getresponse().status


def ask_plainly(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/v2/")
    connection.getresponse()


def shown(port: int, context: ssl.SSLContext) -> str:
    """Return the common name of the certificate that the server shows."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        found = connection.getpeercert()
        assert found is not None
        subject = dict(pair for part in found["subject"] for pair in part)  # type: ignore[union-attr]
        return str(subject["commonName"])


def test_self_signed(serve: Serve, tmp_path: Path) -> None:
    """A certificate is made for the address, kept, and taken again at the next start; who trusts it gets an answer."""
    first = serve("--tls", "self-signed")
    kept = tmp_path / "roadstead-data" / "tls" / "certificate.pem"

    assert get(first.port, trusting(kept)) == 200
    before = kept.read_text()
    first.process.terminate()
    first.process.wait(_PATIENCE_S)
    second = serve("--tls", "self-signed")

    assert get(second.port, trusting(kept)) == 200
    assert kept.read_text() == before


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority, with ``authority.pem`` and a server's certificate and key written."""
    made = Authority.make()
    made.write(tmp_path / "authority.pem")
    made.write_server(tmp_path, "first")
    return made


FILES = '[tls]\ncertificate = "certificate.pem"\nkey = "key.pem"\n'


def test_copy_says_who_speaks_tls(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    """Plain HTTP that meets TLS, and TLS that meets plain HTTP, is told as such, with what to try."""
    server = serve(config=FILES)
    (tmp_path / "plain").mkdir()

    def told(port: int, *arguments: str) -> str:
        command = ["copy", f"127.0.0.1:{port}/team/app:1", f"oci:{tmp_path / 'layout'}", *arguments]
        done = subprocess.run(
            [sys.executable, "-m", "roadstead", *command],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert done.returncode == 1
        return done.stderr

    plainly = told(server.port)
    with RoadsteadServer(tmp_path / "plain", workers=1) as plain:
        over_tls = told(int(plain.host.partition(":")[2]), "--ca", str(tmp_path / "authority.pem"))

    assert "seems to speak TLS" in plainly
    assert "--ca FILE" in plainly
    assert "seems to speak plain HTTP" in over_tls
    assert f"--plain-http {plain.host}" in over_tls


@pytest.mark.parametrize(
    "answer",
    [b"Client sent an HTTP request to an HTTPS server.\n", b"<h1>The plain HTTP request was sent to HTTPS port</h1>"],
)
async def test_servers_that_tell_of_tls_in_plain_http(answer: bytes) -> None:
    """Go's server and nginx answer 400 with a sentence: the same to whoever copies."""
    async with scripted_upstream() as upstream, Transport() as transport:
        upstream.will("GET", "/v2/", answers(400, body=answer))
        with pytest.raises(OtherProtocolError, match="seems to speak TLS"):
            await RegistryClient(RegistryAddress.parse(upstream.host), transport).ping()


def test_plain_http_gets_no_answer(serve: Serve, authority: Authority) -> None:
    """Who speaks plain HTTP to a port of TLS is cut off, and the server goes on."""
    server = serve(config=FILES)

    with (
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=_PATIENCE_S)) as connection,
        pytest.raises((OSError, http.client.HTTPException)),
    ):
        ask_plainly(connection)

    assert get(server.port, trusting(server.directory / "authority.pem")) == 200


@pytest.mark.parametrize(("setting", "offered"), [("1.2", True), ("1.3", False)])
def test_the_oldest_version(setting: str, offered: bool, serve: Serve, authority: Authority) -> None:
    """TLS 1.2 is spoken unless settings say 1.3."""
    server = serve(config=f'{FILES}minimum_version = "{setting}"\n')
    context = trusting(server.directory / "authority.pem")
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    with contextlib.nullcontext() if offered else pytest.raises(ssl.SSLError):
        assert get(server.port, context) == 200


@pytest.mark.parametrize(
    ("rule", "issuer", "comes_in"),
    [
        ("required", "own", True),
        ("required", "other", False),
        ("required", None, False),
        ("optional", "own", True),
        ("optional", "other", False),
        ("optional", None, True),
    ],
)
def test_client_certificates(
    rule: str, issuer: str | None, comes_in: bool, serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    """A certificate of the named authority lets in, another never does, and none only where it is optional."""
    server = serve(config=f'{FILES}client_ca = ["authority.pem"]\nclient_certificates = "{rule}"\n')
    key = ec.generate_private_key(ec.SECP256R1())
    issuers = {"own": authority, "other": Authority.make()}
    client = tmp_path / "client.pem"
    if issuer is not None:
        client.write_text(pem(issuers[issuer].issue(key, "ship")) + key_pem(key))
    context = trusting(tmp_path / "authority.pem", client if issuer else None)

    with contextlib.nullcontext() if comes_in else pytest.raises((OSError, http.client.HTTPException)):
        assert get(server.port, context) == 200


class Hammer:
    """Clients that ask without a pause, on new connections and on one that stays open; counts what failed."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._port, self._context = port, context
        self._over = threading.Event()
        self.failures: list[str] = []
        self.answers = 0
        self._threads = [threading.Thread(target=work) for work in (self._anew, self._anew, self._kept)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(_PATIENCE_S)

    def _anew(self) -> None:
        while not self._over.is_set():
            self._ask(lambda: get(self._port, self._context))

    def _kept(self) -> None:
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=_PATIENCE_S, context=self._context)
        with contextlib.closing(connection):
            while not self._over.is_set():
                self._ask(lambda: self._over_kept(connection))

    def _over_kept(self, connection: http.client.HTTPSConnection) -> int:
        for again in (True, False):
            try:
                connection.request("GET", "/v2/")
                answer = connection.getresponse()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                # One that was open may be closed at any time: clients ask again on a new one (RFC 9112 §9.3.1).
                connection.close()
                if not again:
                    raise
            else:
                answer.read()
                return answer.status
        raise AssertionError("not reached")

    def _ask(self, ask: Callable[[], int]) -> None:
        try:
            status = ask()
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(repr(error))
        else:
            self.answers += 1
            if status != 200:
                self.failures.append(str(status))


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_new_certificate_is_taken_up_and_no_request_is_lost(serve: Serve, authority: Authority) -> None:
    """While clients ask without a pause the certificate is replaced twice: each is shown soon, and nobody fails."""
    server = serve(config=FILES)
    port, context = server.port, trusting(server.directory / "authority.pem")

    with Hammer(port, context) as hammer:
        for name in ("second", "third"):
            authority.write_server(server.directory, name)
            until(lambda name=name: shown(port, context) == name)  # type: ignore[misc]
        before = hammer.answers
        until(lambda: hammer.answers > before + 20)

    assert hammer.failures == []
    assert {shown(port, context) for _ in range(8)} == {"third"}


def test_a_certificate_that_does_not_fit_is_not_taken_up(serve: Serve, authority: Authority) -> None:
    """A broken renewal is told in the log, and the last certificate goes on; the next good one is taken up."""
    server = serve(config=FILES)
    port, context = server.port, trusting(server.directory / "authority.pem")
    replace_text(server.directory / "key.pem", key_pem(ec.generate_private_key(ec.SECP256R1())))

    server.wait("belongs to another certificate")
    assert shown(port, context) == "first"
    authority.write_server(server.directory, "second")

    until(lambda: shown(port, context) == "second")


@pytest.mark.parametrize(
    "valid",
    [(timedelta(days=-9), timedelta(days=-1)), (timedelta(days=1), timedelta(days=9))],
    ids=["over", "not-yet"],
)
def test_a_certificate_that_nobody_takes_replaces_none(
    serve: Serve, authority: Authority, valid: tuple[timedelta, timedelta]
) -> None:
    """One that has ended or hasn't begun is told in the log, and the last one goes on."""
    server = serve(config=FILES)
    port, context = server.port, trusting(server.directory / "authority.pem")
    authority.write_server(server.directory, "second", valid=valid)

    server.wait("the new certificate isn't valid now")
    assert shown(port, context) == "first"
    authority.write_server(server.directory, "third")

    until(lambda: shown(port, context) == "third")


def test_sighup_looks_at_once(serve: Serve, authority: Authority) -> None:
    """SIGHUP has the files read again; without a change nothing happens, and the server goes on."""
    server = serve(config=FILES)
    port, context = server.port, trusting(server.directory / "authority.pem")
    lines = server.log.read_text().count("fingerprint=")

    server.process.send_signal(signal.SIGHUP)
    until(lambda: server.log.read_text().count("fingerprint=") > lines)

    assert get(port, context) == 200


def test_what_cannot_be_used_ends_the_start(serve: Serve, authority: Authority, tmp_path: Path) -> None:
    """A key of another certificate is told at the start, by the setting's name, with status 1."""
    (tmp_path / "key.pem").write_text(key_pem(ec.generate_private_key(ec.SECP256R1())))

    server = serve(config=FILES)

    assert server.process.wait(_PATIENCE_S) == 1
    assert "tls.key: it belongs to another certificate" in server.log.read_text()
