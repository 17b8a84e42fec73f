"""A client that costs little: raw sockets, one connection each, bodies neither copied nor kept.

What pushes and large pulls are measured with; all servers are asked by the same one.
"""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

Bytes = bytes | memoryview

_CHUNK = 1 << 20
_HEAD_END = b"\r\n\r\n"


class UnexpectedAnswerError(Exception):
    """A server didn't answer as it had to, so that its figure would mean nothing."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    size: int  # of the body, kept or thrown away


class Link:
    """One kept-alive connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(_CHUNK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(
        self,
        method: str,
        target: str,
        body: Sequence[Bytes] = (),
        *,
        expect: int | tuple[int, ...],
        headers: str = "",
        chunked: bool = False,
        keep: bool = True,
    ) -> Reply:
        """Send one request and return its answer; any other status than expected is an UnexpectedAnswerError.

        `headers` are lines, each with its CR LF. Without `keep` the answer's body is counted by the kernel and
        never copied.
        """
        self._send(method, target, body, headers, chunked=chunked)
        reply = self._receive(has_body=method != "HEAD", keep=keep)
        if reply.status not in (expect if isinstance(expect, tuple) else (expect,)):
            raise UnexpectedAnswerError(f"{method} {target}: {reply.status} {reply.body[:300]!r}")
        return reply

    def _send(self, method: str, target: str, body: Sequence[Bytes], headers: str, *, chunked: bool) -> None:
        size = sum(len(part) for part in body)
        length = "Transfer-Encoding: chunked\r\n" if chunked else f"Content-Length: {size}\r\n"
        if method in ("GET", "HEAD"):
            length = ""
        head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n{length}{headers}\r\n".encode()
        pieces = list(_chunks(body)) if chunked else list(body)
        if size <= _CHUNK:
            self._socket.sendall(b"".join([head, *pieces]))
            return
        self._socket.sendall(head)
        for piece in pieces:
            self._socket.sendall(piece)

    def _receive(self, *, has_body: bool, keep: bool) -> Reply:
        data = b""
        while _HEAD_END not in data:
            count = self._socket.recv_into(self._buffer)
            if not count:
                raise UnexpectedAnswerError(f"the connection was closed after {data!r}")
            data += self._buffer[:count]
        head, _, rest = data.partition(_HEAD_END)
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", 0)) if has_body else 0
        body = self._body(rest, size, keep=keep)
        return Reply(int(status.split(" ", 2)[1]), headers, body, size)

    def _body(self, start: bytes, size: int, *, keep: bool) -> bytes:
        missing = size - len(start)
        body = bytearray(start)
        # MSG_TRUNC: the kernel throws the bytes away, so the client's copying doesn't take the server's time.
        flags = 0 if keep else socket.MSG_TRUNC
        while missing > 0:
            count = self._socket.recv_into(self._buffer, min(missing, _CHUNK), flags)
            if not count:
                raise UnexpectedAnswerError(f"the body ended {missing} bytes early")
            missing -= count
            if keep:
                body += self._buffer[:count]
        return bytes(body) if keep else b""


def path_of(location: str) -> str:
    """Return path and query of a Location, which may be absolute."""
    parts = urlsplit(location)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _chunks(body: Sequence[Bytes]) -> list[Bytes]:
    """Return a chunked body's pieces: clients send chunks of some ten KiB to a MiB, and the last is empty."""
    pieces: list[Bytes] = []
    for part in body:
        for start in range(0, len(part), _CHUNK):
            piece = memoryview(part)[start : start + _CHUNK]
            pieces += [b"%x\r\n" % len(piece), piece, b"\r\n"]
    return [*pieces, b"0\r\n\r\n"]
