"""Which server takes and sends bytes best: Granian ASGI, Granian RSGI or uvicorn?

``python benchmarks/decisions/server.py [bytes|rates|options|edges|connections]`` prints tables
(default: all of them).
"""

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Self

HERE = Path(__file__).parent
KINDS = ("granian-asgi", "granian-rsgi", "uvicorn")
TICKS = os.sysconf("SC_CLK_TCK")
PIECE = bytes(1 << 20)


class Server:
    """One server in processes of its own, ended by pid."""

    def __init__(self, kind: str, files: Path, *, workers: int = 1, **options: str) -> None:
        self.kind = kind
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, str(HERE / "server_apps.py"), kind, str(self.port), str(workers)]
        command += [f"{key}={value}" for key, value in options.items()]
        started = time.perf_counter()
        self.process = subprocess.Popen(
            command, env={**os.environ, "BENCH_FILES": str(files)}, stderr=subprocess.DEVNULL
        )
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.get("/pid")
                break
            if time.perf_counter() - started > 15:
                raise TimeoutError(kind)
            time.sleep(0.01)
        self.start_seconds = time.perf_counter() - started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pids = self.pids()
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            self.process.wait()

    def get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return connection.getresponse().read()

    def pids(self) -> list[int]:
        """Give the server's processes, the first one and its children."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [self.process.pid, *map(int, children.split())]

    def cpu(self) -> float:
        """Give the seconds of processor time that the server used so far."""
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self.pids()]
        return sum(int(field[11]) + int(field[12]) for field in fields) / TICKS

    def memory(self) -> float:
        """Give the MiB that the process which answers holds."""
        text = Path(f"/proc/{int(self.get('/pid'))}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024


def upload(server: Server, path: str, size: int, *, chunked: bool = False) -> dict:
    """Send a body of zeros, return what the application says of it."""
    with socket.create_connection(("127.0.0.1", server.port)) as link:
        how = "transfer-encoding: chunked" if chunked else f"content-length: {size}"
        link.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{how}\r\n\r\n".encode())
        for _ in range(size >> 20):
            link.sendall(b"100000\r\n" + PIECE + b"\r\n" if chunked else PIECE)
        if chunked:
            link.sendall(b"0\r\n\r\n")
        response = http.client.HTTPResponse(link)
        response.begin()
        return json.loads(response.read())


def download(server: Server, path: str) -> int:
    """Fetch a body and throw it away, return its size."""
    buffer = bytearray(1 << 20)
    total = 0
    with socket.create_connection(("127.0.0.1", server.port)) as link:
        link.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        while count := link.recv_into(buffer):
            total += count
    return total


def wrk(server: Server, path: str, seconds: int = 2) -> tuple[float, float, str]:
    """Give answers a second at 16 clients, processor µs an answer, and the 99th percentile."""
    before = server.cpu()
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{server.port}{path}"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = server.cpu() - before
    count = int(re.search(r"(\d+) requests in", output)[1])
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])
    errors = "" if "Non-2xx" not in output and "Socket errors" not in output else " ERRORS"
    return rate, used / count * 1e6, re.search(r"^\s+99%\s+(\S+)$", output, re.MULTILINE)[1] + errors


def timed(server: Server, work, size: int) -> tuple[float, float, object]:
    """Give GiB a second, processor seconds a GiB, and what the work returned: the best of two."""
    best = None
    for _ in range(2):
        cpu, started = server.cpu(), time.perf_counter()
        result = work()
        seconds = time.perf_counter() - started
        row = (size / seconds / 2**30, (server.cpu() - cpu) / size * 2**30, result)
        best = row if best is None or row[0] > best[0] else best
    return best


def table(title: str, rows: list[tuple[str, float, str]], *, more_is_better: bool = True) -> None:
    """Print rows of (name, figure, remark) with each figure's ratio to the best one."""
    print(f"\n## {title}")
    best = (max if more_is_better else min)(figure for _, figure, _ in rows)
    for name, figure, remark in rows:
        print(f"{name:<44}{figure:>12.2f}  x{figure / best:5.2f}  {remark}")


def bytes_in_and_out(files: Path) -> None:
    """(a) ingest, (b) sending 256 MiB, (d) memory under a slow reader, (g) start and idle memory."""
    ingest, sending, slow, start = [], [], [], []
    for kind in KINDS:
        with Server(kind, files) as server:
            idle = server.memory()
            start.append((kind, server.start_seconds, f"idle {idle:.0f} MiB in the worker"))
            for chunked in (False, True):
                send = partial(upload, server, "/ingest", 1 << 30, chunked=chunked)
                rate, cpu, seen = timed(server, send, 1 << 30)
                remark = f"cpu {cpu:.2f} s/GiB, {seen['chunks']} chunks, median {seen['median']:.0f}, max {seen['max']}"
                ingest.append((kind + (" chunked" if chunked else ""), rate, remark))
            modes = ["/pathsend"] if kind != "uvicorn" else []
            for mode in [*modes, "/pieces/256k", "/pieces/1m", "/pieces/4m"]:
                rate, cpu, size = timed(server, lambda m=mode: download(server, m), 1 << 28)
                note = "" if size > 1 << 28 else f" SHORT {size}"
                sending.append((f"{kind} {mode}", rate, f"cpu {cpu:.2f} s/GiB{note}"))
        with Server(kind, files) as server:
            worker, most = int(server.get("/pid")), 0.0
            idle = server.memory()
            thread = threading.Thread(target=lambda: contextlib.suppress(OSError) and push_for(server, 3), daemon=True)
            thread.start()
            while thread.is_alive():
                text = Path(f"/proc/{worker}/status").read_text()
                most = max(most, int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024)
                time.sleep(0.05)
            slow.append((kind, most - idle, f"sent {PUSHED[-1] >> 20} MiB in 3 s to a reader of 50 MB/s"))
    table("(a) ingest of 1 GiB, no hashing, GiB/s", ingest)
    table("(b) sending 256 MiB, GiB/s", sending)
    table("(d) MiB more memory under a slow reader", slow, more_is_better=False)
    table("(g) seconds from start to the first answer", start, more_is_better=False)


PUSHED: list[int] = []


def push_for(server: Server, seconds: float) -> None:
    """Send as much as the slow reader lets us for a while."""
    sent, until = 0, time.perf_counter() + seconds
    with socket.create_connection(("127.0.0.1", server.port)) as link:
        link.settimeout(0.2)
        link.sendall(f"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: {1 << 30}\r\n\r\n".encode())
        while time.perf_counter() < until:
            with contextlib.suppress(TimeoutError):
                sent += link.send(PIECE)
    PUSHED.append(sent)


def rates(files: Path) -> None:
    """(c) answers a second: 1 KiB, 64 KiB of memory, 64 KiB files; 1 and 2 workers."""
    rows: dict[str, list] = {}
    for workers in (1, 2):
        for kind in KINDS:
            with Server(kind, files, workers=workers) as server:
                for path in ("/small", "/medium", "/file64" if kind != "uvicorn" else "/pieces64"):
                    rate, cpu, slowest = wrk(server, path)
                    name = f"(c) {path}, {workers} worker(s), answers/s".replace("pieces64", "file64")
                    rows.setdefault(name, []).append((kind, rate, f"cpu {cpu:.0f} µs, p99 {slowest}"))
    for name, figures in rows.items():
        table(name, figures)


def options(files: Path) -> None:
    """(h) Granian's options on small answers and on ingest, one worker."""
    small, ingest = [], []
    cases = [
        {"loop": "uvloop", "runtime_mode": "mt"},
        {"loop": "asyncio", "runtime_mode": "mt"},
        {"loop": "uvloop", "runtime_mode": "st"},
        {"loop": "asyncio", "runtime_mode": "st"},
        {"loop": "uvloop", "runtime_mode": "mt", "runtime_threads": "2"},
    ]
    cases += [{"loop": "uvloop", "runtime_mode": "mt", "buffer": str(size)} for size in (131072, 1 << 20, 4 << 20)]
    if sys.version_info < (3, 12):
        cases.append({"loop": "uvloop", "runtime_mode": "mt", "task_impl": "rust"})
    for case in cases:
        name = " ".join(case.values())
        with Server("granian-asgi", files, **case) as server:
            rate, cpu, slowest = wrk(server, "/small")
            small.append((name, rate, f"cpu {cpu:.0f} µs, p99 {slowest}"))
            rate, cpu, seen = timed(server, lambda s=server: upload(s, "/ingest", 1 << 29), 1 << 29)
            ingest.append((name, rate, f"cpu {cpu:.2f} s/GiB, median chunk {seen['median']:.0f}"))
    table("(h) /small, Granian ASGI, answers/s", small)
    table("(h) ingest of 512 MiB, Granian ASGI, GiB/s", ingest)


def raw(server: Server, request: bytes, wait: float = 1.0) -> bytes:
    """Send bytes as they are, return what comes back within a while."""
    with socket.create_connection(("127.0.0.1", server.port)) as link:
        link.settimeout(wait)
        link.sendall(request)
        got = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while data := link.recv(65536):
                got += data
            got += b" [closed]"
        return got


CUTS = {
    "whole": b"POST /cut/whole HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "length": b"POST /cut/length HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n" + bytes(1000),
    "chunked": b"POST /cut/chunked HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3e8\r\n" + bytes(1000),
    "chunked-between": b"POST /cut/chunked-between HTTP/1.1\r\nhost: x\r\n"
    b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "bad-chunk": b"POST /cut/bad-chunk HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
}


def edges(files: Path) -> None:
    """(e) what a cut body looks like, (f) illegal headers, a missing file, short bodies, errors."""
    for kind in KINDS:
        with Server(kind, files) as server:
            print(f"\n## (e, f) {kind}")
            for name, request in CUTS.items():
                with socket.create_connection(("127.0.0.1", server.port)) as link:
                    link.sendall(request)
                    time.sleep(0.3)
                time.sleep(0.5)
                print(f"cut body, {name}: {json.loads(server.get(f'/seen/{name}'))}")
            if kind == "granian-rsgi":
                continue
            for name in ("gone", "watched"):
                with socket.create_connection(("127.0.0.1", server.port)) as link:
                    link.sendall(f"GET /{name} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                    link.recv(1000)
                time.sleep(1.5)
                print(f"client goes while we send, {name}: {json.loads(server.get(f'/seen/{name}'))}")
            size = download(server, "/watched")
            print(f"client stays, watched: {size} bytes, {json.loads(server.get('/seen/watched'))[-1]}")
            print(f"HEAD: {raw(server, b'HEAD /head HTTP/1.1' + HOST)!r}")
            length = b"\r\nhost: x\r\ncontent-length: 67108864\r\n"
            print(f"100-continue, read: {raw(server, b'POST /cut/e HTTP/1.1' + length + EXPECT)!r}")
            print(f"100-continue, refused: {raw(server, b'POST /early HTTP/1.1' + length + EXPECT)!r}")
            print(f"refused while 64 MiB come: {refused(server, b'POST /early HTTP/1.1' + length)}")
            print(f"two at once: {raw(server, (b'GET /pid HTTP/1.1' + HOST) * 2).count(b'200 OK')} answers")
            for path in ("missing", "badheader", "short", "broken", "broken-chunked", "raise"):
                got = raw(server, f"GET /{path} HTTP/1.1".encode() + HOST, wait=4)
                print(f"/{path}: {got[:110]!r} … {got[-20:]!r}")


def connections(files: Path) -> None:
    """(i) how many quiet connections a Granian worker holds before it stops answering others."""
    print("\n## (i) idle kept-alive connections, one worker")
    for backpressure in ("8", "1000"):
        with Server("granian-asgi", files, backpressure=backpressure) as server, contextlib.ExitStack() as stack:
            for count in range(200):
                link = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                link.settimeout(1)
                link.sendall(b"GET /small HTTP/1.1" + HOST)
                try:
                    link.recv(2000)
                except TimeoutError:
                    print(f"backpressure {backpressure}: no answer with {count} idle connections")
                    break
            else:
                print(f"backpressure {backpressure}: 200 connections answered")


HOST = b"\r\nhost: x\r\n\r\n"
EXPECT = b"expect: 100-continue\r\n\r\n"


def refused(server: Server, head: bytes) -> str:
    """Send a body that the application doesn't read; tell whether the client sees the answer."""
    with socket.create_connection(("127.0.0.1", server.port)) as link:
        sent = 0
        link.settimeout(3)
        try:
            link.sendall(head + b"\r\n")
            for _ in range(64):
                link.sendall(PIECE)
                sent += 1
            note = "whole body taken"
        except OSError as error:
            note = f"{type(error).__name__} after {sent} MiB"
        try:
            return f"{note}; answer {link.recv(200)[:60]!r}"
        except OSError as error:
            return f"{note}; no answer: {type(error).__name__}"


@contextlib.contextmanager
def test_files() -> Iterator[Path]:
    """Make the files that are sent, warm in the page cache."""
    with tempfile.TemporaryDirectory() as directory:
        files = Path(directory)
        (files / "64k").write_bytes(os.urandom(65536))
        (files / "256m").write_bytes(os.urandom(1 << 20) * 256)
        yield files


def main() -> None:
    parts = {"bytes": bytes_in_and_out, "rates": rates, "options": options, "edges": edges, "connections": connections}
    print(", ".join(f"{name} {version(name)}" for name in ("granian", "uvicorn", "httptools", "uvloop")))
    with test_files() as files:
        for name in sys.argv[1:] or parts:
            parts[name](files)


if __name__ == "__main__":
    main()
