"""Large blobs in and out, and what the server's processes need for them meanwhile."""

import hashlib
import http.client
import http.server
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Self

from roadstead.oci.digest import Digest
from roadstead.testing.processes import children, proportional_memory
from roadstead.testing.server import RoadsteadServer

MIB = 1 << 20
BOUND_BYTES = 32 * MIB
"""How much more than idle a process may need, whatever passes through it (design.md, Numbers)."""

REPOSITORY = "large/app"
_SAMPLE_S = 0.02


@dataclass(frozen=True, slots=True)
class Blob:
    """A large blob without a pattern that shows before a gigabyte, made as it is sent."""

    size: int
    seed: bytes

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes in pieces of a mebibyte."""
        block = hashlib.shake_128(self.seed).digest(MIB)
        for number in range(self.size // MIB):
            yield number.to_bytes(8) + block[8:]

    def digest(self) -> Digest:
        """Return the digest; reads all of it."""
        hasher = hashlib.sha256()
        for piece in self.pieces():
            hasher.update(piece)
        return Digest.parse(f"sha256:{hasher.hexdigest()}")


class Watched:
    """Samples the memory of every process of a server, and keeps the most that each had above its idle state."""

    def __init__(self, server: RoadsteadServer) -> None:
        self._pids = [server.pid, *children(server.pid)]
        self._idle = {pid: proportional_memory(pid) for pid in self._pids}
        self._most = dict(self._idle)
        self.samples = 0

    @property
    def growth(self) -> int:
        """Return the most that any process grew by, in bytes."""
        return max(self._most[pid] - self._idle[pid] for pid in self._pids)

    def __str__(self) -> str:
        """Return the processes' idle memory and growth, for a person."""
        return ", ".join(
            f"{self._idle[pid] / MIB:.0f} + {(self._most[pid] - self._idle[pid]) / MIB:.1f} MiB" for pid in self._pids
        )

    def sample(self) -> None:
        """Look once."""
        self.samples += 1
        for pid in self._pids:
            self._most[pid] = max(self._most[pid], proportional_memory(pid))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look again and again until the block is left."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(_SAMPLE_S):
                self.sample()

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def warm(server: RoadsteadServer) -> None:
    """Have every worker do once what it will do at length: what it loads for that is part of its idle state."""
    for worker in server.workers:
        client = server.client_of(worker)
        data = b"%d" % worker * MIB
        digest = client.push_blob("large/warm", data)
        assert client.get(f"/v2/large/warm/blobs/{digest}").body == data


def push_whole(server: RoadsteadServer, blob: Blob, digest: Digest) -> None:
    """POST, and PUT with Content-Length and the whole blob."""
    location = server.client().post("/v2/large/app/blobs/uploads/").headers["location"]
    with closing(http.client.HTTPConnection(server.host, timeout=600)) as connection:
        separator = "&" if "?" in location else "?"
        headers = {"Content-Length": str(blob.size), "Content-Type": "application/octet-stream"}
        connection.request("PUT", f"{location}{separator}digest={digest}", blob.pieces(), headers)
        assert connection.getresponse().status == 201


def push_streamed(server: RoadsteadServer, blob: Blob, digest: Digest) -> None:
    """POST, one PATCH of unknown length, PUT."""
    location = server.client().post("/v2/large/app/blobs/uploads/").headers["location"]
    with closing(http.client.HTTPConnection(server.host, timeout=600)) as connection:
        connection.request(
            "PATCH", location, blob.pieces(), encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
        )
        response = connection.getresponse()
        assert response.status == 202
        location = response.headers["location"]
    separator = "&" if "?" in location else "?"
    assert server.client().put(f"{location}{separator}digest={digest}").status == 201


def pull(server: RoadsteadServer, digest: Digest, repository: str = REPOSITORY) -> None:
    """Read a blob as fast as it comes, and check it."""
    with closing(http.client.HTTPConnection(server.host, timeout=600)) as connection:
        connection.request("GET", f"/v2/{repository}/blobs/{digest}")
        response = connection.getresponse()
        hasher = hashlib.sha256()
        while piece := response.read(MIB):
            hasher.update(piece)
        assert f"sha256:{hasher.hexdigest()}" == str(digest)


@contextmanager
def slow_readers(
    server: RoadsteadServer, digest: Digest, *, count: int, bytes_per_s: int, repository: str = REPOSITORY
) -> Iterator[None]:
    """Let clients read a blob, each slower than it could come, until the block is left."""
    over = threading.Event()
    request = f"GET /v2/{repository}/blobs/{digest} HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode()

    def read(sock: socket.socket) -> None:
        with suppress(OSError):
            while not over.is_set() and (piece := sock.recv(64 << 10)):
                over.wait(len(piece) / bytes_per_s)

    with ExitStack() as stack:
        threads = []
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
            sock.sendall(request)
            threads.append(threading.Thread(target=read, args=(sock,)))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()


class BlobUpstream:
    """A registry of blobs that are made as they are sent, so that they take no disk; the address is ``url``."""

    def __init__(self, blobs: Mapping[str, Blob]) -> None:
        self.asked = 0
        outer = self

        class Answer(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._begin()

            def do_GET(self) -> None:
                blob = self._begin()
                if blob is not None:
                    outer.asked += 1
                    for piece in blob.pieces():
                        self.wfile.write(piece)

            def _begin(self) -> Blob | None:
                blob = blobs.get(self.path.rpartition("/")[2])
                self.send_response(404 if blob is None else 200)
                self.send_header("Content-Length", str(0 if blob is None else blob.size))
                self.end_headers()
                return blob

            def log_message(self, format: str, *_: object) -> None:  # noqa: A002 -- the base's name
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def speed(size: int, began: float) -> str:
    """Return MB/s since that moment of the monotonic clock, for a person."""
    return f"{size / 1e6 / (time.monotonic() - began):.0f} MB/s"
