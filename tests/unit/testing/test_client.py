"""The client that tests speak HTTP with."""

import socket
import threading
from collections.abc import Iterator

import pytest

from roadstead.testing.client import Client, ConnectionBrokenError

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        yield listening


def answer_once(listener: socket.socket, closed: threading.Event) -> None:
    """Answer one request on each of two connections, and close each as a server does with one that is idle."""
    for _ in range(2):
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(ANSWER)
        closed.set()


def test_a_connection_that_ended_is_made_anew(listener: socket.socket) -> None:
    """What the server closed between two requests, and didn't say so in its answer."""
    closed = threading.Event()
    answering = threading.Thread(target=answer_once, args=(listener, closed))
    answering.start()
    with Client(f"127.0.0.1:{listener.getsockname()[1]}") as client:
        assert client.get("/").body == b"ok"
        assert closed.wait(10)
        assert client.get("/").body == b"ok"
    answering.join()


def test_a_request_that_is_cut_is_an_error(listener: socket.socket) -> None:
    """It may have been heard, so it isn't sent again."""

    def cut() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.close()

    cutting = threading.Thread(target=cut)
    cutting.start()
    with Client(f"127.0.0.1:{listener.getsockname()[1]}") as client, pytest.raises(ConnectionBrokenError):
        client.get("/")
    cutting.join()


def test_a_connection_that_is_reset_as_it_is_made_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is killed leaves connections that nobody had taken yet."""

    def reset(*_: object) -> socket.socket:
        raise ConnectionResetError

    monkeypatch.setattr(socket, "create_connection", reset)
    with Client("127.0.0.1:9") as client, pytest.raises(ConnectionBrokenError, match="GET /"):
        client.get("/")
