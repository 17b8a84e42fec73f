"""Raw connections for tests: requests that no HTTP client would send, and who serves a connection."""

import http.client
import re
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from roadstead.testing.client import Answer, Client, ConnectionBrokenError

_ATTEMPTS = 200
_ESTABLISHED = "01"


class Wire:
    """One connection on which bytes are sent as they are; answers are read one by one, so requests may be pipelined."""

    def __init__(self, host: str, *, timeout_s: float = 20) -> None:
        address, _, port = host.rpartition(":")
        self._socket = socket.create_connection((address, int(port)), timeout=timeout_s)
        self._reader = _Lasting(self._socket.makefile("rb"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, *pieces: bytes) -> None:
        """Send bytes, each piece in a system call of its own. Raises ConnectionBrokenError."""
        try:
            for piece in pieces:
                self._socket.sendall(piece)
        except OSError as error:
            raise ConnectionBrokenError(f"sending: {error!r}") from error

    def send_head(self, method: str, target: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Send a request's head, with a Host header before the others."""
        lines = [f"{method} {target} HTTP/1.1", "Host: registry.test", *(f"{name}: {value}" for name, value in headers)]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def send_chunks(self, chunks: Iterable[bytes], *, end: bool = True) -> None:
        """Send a chunked body, with its last chunk unless *end* is false."""
        for chunk in chunks:
            self.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if end:
            self.send(b"0\r\n\r\n")

    def answer(self, method: str = "GET") -> Answer:
        """Read the next answer; *method* is that of its request. Raises ConnectionBrokenError, also after a while."""
        response = http.client.HTTPResponse(self._reader, method=method)  # type: ignore[arg-type] # only makefile is used
        try:
            response.begin()
            body = response.read()
        except (http.client.HTTPException, OSError) as error:
            raise ConnectionBrokenError(f"waiting for an answer: {error!r}") from error
        pairs = tuple((name.lower(), value) for name, value in response.getheaders())
        return Answer(response.status, dict(pairs), pairs, body)

    def informed(self) -> int:
        """Read the next interim answer, such as 100 Continue; return its status (RFC 9110 §15.2)."""
        line = self._reader.readline()
        while self._reader.readline().strip():
            pass
        return int(line.split()[1])

    def is_closed(self) -> bool:
        """Wait for the server to close the connection; False if it says something instead."""
        try:
            return not self._reader.peek(1)
        except ConnectionError:
            return True

    def cut(self) -> None:
        """End the connection at once, as when a machine dies: the server gets a reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._reader.end()
        self._socket.close()


class _Lasting:
    """A buffered reader that outlives each answer read from it."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def makefile(self, mode: str) -> Self:
        """Be the file of the next answer."""
        return self

    def close(self) -> None:
        """Stay open: the next answer is read from here too."""

    def end(self) -> None:
        """Close in earnest."""
        with suppress(OSError):
            self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def clients_of_all_workers(host: str, supervisor: int, *, workers: int) -> dict[int, Client]:
    """Return a connected client for each worker process, by process id. *supervisor* is their parent."""
    found: dict[int, Client] = {}
    for _ in range(_ATTEMPTS):
        client = Client(host)
        client.get("/v2/")
        pid = serving_process(supervisor, client.local_port)
        if found.setdefault(pid, client) is not client:
            client.close()
        if len(found) == workers:
            return found
    raise AssertionError(f"{_ATTEMPTS} connections reached {len(found)} of {workers} workers")


def serving_process(supervisor: int, client_port: int) -> int:
    """Return the process, *supervisor* or one below it, that holds the other end of a connection from our port.

    Linux only: ``/proc`` tells the inode of the other end, and who has it open.
    """
    inode = _inode(client_port)
    for pid in _family(supervisor):
        with suppress(OSError):  # processes and descriptors come and go while we look
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                if str(descriptor.readlink()) == f"socket:[{inode}]":
                    return pid
    raise AssertionError(f"no process below {supervisor} serves the connection from port {client_port}")


def _inode(client_port: int) -> str:
    """Return the inode of the socket whose remote port is *client_port*: the server's end."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[2].endswith(f":{client_port:04X}") and fields[3] == _ESTABLISHED:
                return fields[9]
    raise AssertionError(f"no connection from port {client_port} is established")


def _family(supervisor: int) -> list[int]:
    """Return a process and all that descend from it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name in parentheses may hold spaces and parentheses itself.
            if match := re.match(r"(\d+) \(.*\) \S (\d+)", stat.read_text(), re.DOTALL):
                parents[int(match[1])] = int(match[2])
    family = [supervisor]
    for pid in family:  # it grows while we go through it
        family += [child for child, parent in parents.items() if parent == pid]
    return family
