"""The supervisor with real processes, real signals and real sockets."""

import contextlib
import http.client
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from roadstead.settings.address import ListenAddress
from roadstead.supervisor import PortUnavailableError, listen

_PATIENCE_S = 20


class Server:
    """A running ``tests.integration.supervised``, with its output line by line."""

    def __init__(self, *arguments: str, listen: str = "127.0.0.1:0", workers: int = 2) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.supervised", listen, str(workers), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.seen: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def expect(self, pattern: str) -> str:
        """Wait for a line that the pattern is found in; return its first group."""
        while (line := self.lines.get(timeout=_PATIENCE_S)) is not None:
            self.seen.append(line)
            if match := re.search(pattern, line):
                return match[1] if match.groups() else match[0]
        raise AssertionError(f"ended without {pattern!r}: {self.seen}")

    def everything(self) -> list[str]:
        """Return all lines until the end of the output, which is the end of the last process."""
        while (line := self.lines.get(timeout=_PATIENCE_S)) is not None:
            self.seen.append(line)
        return self.seen

    def close(self) -> None:
        self.process.kill()
        self.process.wait(_PATIENCE_S)
        self._reader.join(_PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    with contextlib.ExitStack() as stack:

        def begin(*arguments: str, listen: str = "127.0.0.1:0", workers: int = 2) -> Server:
            server = Server(*arguments, listen=listen, workers=workers)
            stack.callback(server.close)
            return server

        yield begin


def get(port: int, path: str = "/") -> str:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def get_until_refused(port: int) -> None:
    for _ in range(100_000):
        with contextlib.suppress(ConnectionResetError, http.client.HTTPException):
            get(port)


def get_nothing(port: int, path: str) -> None:
    """Ask, and expect that the connection is cut before there is an answer."""
    with pytest.raises((OSError, http.client.HTTPException)):
        get(port, path)


def answering(port: int, count: int, without: int = 0) -> set[int]:
    """Ask until `count` processes other than `without` have answered; each question is a new connection."""
    found: set[int] = set()
    for _ in range(1000):
        found.add(int(get(port)))
        found.discard(without)
        if len(found) == count:
            return found
    raise AssertionError(f"only {found} answered")


def test_workers_share_a_port(start: Callable[..., Server]) -> None:
    """Two workers answer on one port; neither is the parent."""
    server = start()
    port = int(server.expect(r"ready (\d+)"))

    pids = answering(port, 2)

    assert server.process.pid not in pids


def test_one_worker_is_enough(start: Callable[..., Server]) -> None:
    """With one worker the server serves."""
    server = start(workers=1)

    assert get(int(server.expect(r"ready (\d+)")))


def test_a_killed_worker_is_replaced(start: Callable[..., Server]) -> None:
    """When a worker is killed the other goes on answering, and there are two again."""
    server = start()
    port = int(server.expect(r"ready (\d+)"))
    victim = min(answering(port, 2))

    os.kill(victim, signal.SIGKILL)

    assert len(answering(port, 2, without=victim)) == 2
    assert json.loads(server.expect(r"(.*process died.*)"))["signal"] == "SIGKILL"


def test_a_killed_background_process_is_replaced(start: Callable[..., Server]) -> None:
    """There is one background process, and another when it was killed."""
    server = start()
    first = int(server.expect(r"background (\d+)"))

    os.kill(first, signal.SIGKILL)

    assert int(server.expect(r"background (\d+)")) != first


def test_sigterm_lets_requests_finish(start: Callable[..., Server]) -> None:
    """On SIGTERM a request in flight gets its whole answer, no new connection is taken, and the status is 0."""
    server = start()
    port = int(server.expect(r"ready (\d+)"))
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(get(port, "/slow")))
    asking.start()
    server.expect("slow request began")

    server.process.send_signal(signal.SIGTERM)
    server.expect("background ended")
    with pytest.raises(ConnectionRefusedError):
        get_until_refused(port)
    asking.join(_PATIENCE_S)

    assert server.process.wait(_PATIENCE_S) == 0
    assert answers[0].isdecimal()
    assert sum(line.startswith("closed ") for line in server.everything()) == 2


def test_what_does_not_finish_in_time_is_cut(start: Callable[..., Server]) -> None:
    """A request that takes longer than the time allowed doesn't keep the server from stopping."""
    server = start("short")
    port = int(server.expect(r"ready (\d+)"))
    asking = threading.Thread(target=get_nothing, args=(port, "/stuck"))
    asking.start()
    server.expect("stuck request began")

    server.process.send_signal(signal.SIGTERM)

    server.expect("requests were cut")
    assert server.process.wait(_PATIENCE_S) == 0
    asking.join(_PATIENCE_S)


def test_a_second_signal_ends_at_once(start: Callable[..., Server]) -> None:
    """The second SIGINT doesn't wait for requests: status 1."""
    server = start()
    port = int(server.expect(r"ready (\d+)"))
    asking = threading.Thread(target=get_nothing, args=(port, "/stuck"))
    asking.start()
    server.expect("stuck request began")

    server.process.send_signal(signal.SIGINT)
    server.expect('"stopping"')
    server.process.send_signal(signal.SIGINT)

    assert server.process.wait(_PATIENCE_S) == 1
    asking.join(_PATIENCE_S)


def test_children_die_with_a_killed_parent(start: Callable[..., Server]) -> None:
    """When the parent is killed, no child lives on and the port is free."""
    server = start()
    port = int(server.expect(r"ready (\d+)"))
    answering(port, 2)

    server.process.kill()
    server.everything()

    # The output has ended, so all who held it are gone; the port can be had.
    for listener in listen(ListenAddress("127.0.0.1", port), 1):
        listener.close()


def test_a_server_that_never_starts_ends_with_status_1(start: Callable[..., Server]) -> None:
    """When workers fail to start again and again the parent gives up, and the log says why."""
    server = start("fail-start")

    assert server.process.wait(_PATIENCE_S) == 1
    output = "\n".join(server.everything())
    assert "no storage" in output
    assert "giving up" in output


def test_an_error_of_the_application_is_logged(start: Callable[..., Server]) -> None:
    """What the application didn't catch is answered 500, logged with its traceback, and the worker lives on."""
    server = start(workers=1)
    port = int(server.expect(r"ready (\d+)"))

    get(port, "/error")

    assert "application failed" in server.expect("application failed.*")
    assert get(port).isdecimal()


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_in_use_is_told(*, shared: bool) -> None:
    """An address where something listens is refused in one line, even if that one would share it."""
    with socket.socket() as other:
        if shared:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = ListenAddress("127.0.0.1", other.getsockname()[1])

        with pytest.raises(PortUnavailableError, match="something else listens there already"):
            listen(address, 2)
