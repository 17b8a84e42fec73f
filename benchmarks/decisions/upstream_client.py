"""Which HTTP client streams large bodies for the least processor time: docs/decisions/0012-upstream-client.md.

``python benchmarks/decisions/upstream_client.py`` moves 256 MiB a figure over loopback, from and to a server of plain
sockets in a process of its own. It needs aiohttp, httpx2 and uvloop in the environment.
"""

import asyncio
import importlib
import multiprocessing
import resource
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import uvloop

TOTAL = 256 << 20
PIECE = 1 << 20
RUNS = 5

Transfer = Callable[[str], Coroutine[Any, Any, list[int]]]


def serve(listener: socket.socket) -> None:
    """Answer one request a connection: GET with TOTAL bytes, PUT by reading as many."""
    body = memoryview(bytes(PIECE))
    buffer = bytearray(PIECE)
    while True:
        connection, _ = listener.accept()
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(65536)
                if not piece:
                    break
                head += piece
            if head.startswith(b"GET"):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % TOTAL)
                for _ in range(TOTAL // PIECE):
                    connection.sendall(body)
            elif head.startswith(b"PUT"):
                left = TOTAL - len(head.partition(b"\r\n\r\n")[2])
                while left > 0:
                    left -= connection.recv_into(buffer) or left
                connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


async def pieces() -> AsyncIterator[bytes]:
    """Yield TOTAL bytes as a blob arrives from elsewhere."""
    piece = bytes(PIECE)
    for _ in range(TOTAL // PIECE):
        yield piece


async def aiohttp_get(url: str) -> list[int]:
    """Download with aiohttp; return the sizes of the pieces."""
    import aiohttp

    async with aiohttp.ClientSession(auto_decompress=False, read_bufsize=PIECE) as session, session.get(url) as answer:
        return [len(piece) async for piece in answer.content.iter_any()]


async def aiohttp_put(url: str) -> list[int]:
    """Upload with aiohttp."""
    import aiohttp

    headers = {"Content-Length": str(TOTAL)}
    async with (
        aiohttp.ClientSession() as session,
        session.put(url, data=pieces(), headers=headers) as answer,
    ):
        assert answer.status == 201
        return [PIECE]


async def httpx_get(url: str) -> list[int]:
    """Download with httpx2; return the sizes of the pieces."""
    import httpx2

    async with httpx2.AsyncClient(timeout=60) as client, client.stream("GET", url) as answer:
        return [len(piece) async for piece in answer.aiter_raw()]


async def httpx_put(url: str) -> list[int]:
    """Upload with httpx2."""
    import httpx2

    async with httpx2.AsyncClient(timeout=60) as client:
        answer = await client.put(url, content=pieces(), headers={"Content-Length": str(TOTAL)})
        assert answer.status_code == 201
        return [PIECE]


def measured(transfer: Transfer, url: str, loop: str, queue: "multiprocessing.Queue[tuple[float, ...]]") -> None:
    """Run one transfer in this process; put seconds, processor seconds, median piece and peak memory."""
    importlib.import_module("aiohttp" if transfer.__name__.startswith("aiohttp") else "httpx2")
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    if loop == "uvloop":
        sizes = uvloop.run(transfer(url))
    else:
        sizes = asyncio.run(transfer(url))
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    queue.put((seconds, used, statistics.median(sizes), after.ru_maxrss / 1024 - before.ru_maxrss / 1024))


def importing(module: str) -> float:
    """Return the seconds that importing *module* takes in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(timed_import, (module,))


def timed_import(module: str) -> float:
    """Import and return the seconds."""
    started = time.perf_counter()
    importlib.import_module(module)
    return time.perf_counter() - started


def main() -> None:
    """Print a line a client, direction and loop."""
    listener = socket.create_server(("127.0.0.1", 0))
    context = multiprocessing.get_context("fork")
    server = context.Process(target=serve, args=(listener,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    for loop in ("asyncio", "uvloop"):
        for transfer in (aiohttp_get, httpx_get, aiohttp_put, httpx_put):
            found = []
            for _ in range(RUNS):
                queue: multiprocessing.Queue[tuple[float, ...]] = context.Queue()
                child = context.Process(target=measured, args=(transfer, url, loop, queue))
                child.start()
                found.append(queue.get(timeout=120))
                child.join()
            rates = sorted(TOTAL / 2**30 / row[0] for row in found)
            cpu = sorted(row[1] * 2**30 / TOTAL for row in found)
            pieces_kib = statistics.median(row[2] for row in found) / 1024
            memory = max(row[3] for row in found)
            print(
                f"{loop:8} {transfer.__name__:12} {rates[0]:.2f}-{rates[-1]:.2f} GiB/s,"
                f" median {statistics.median(rates):.2f}; cpu {statistics.median(cpu):.2f} s/GiB;"
                f" pieces {pieces_kib:.0f} KiB; memory +{memory:.0f} MiB"
            )
    for module in ("aiohttp", "httpx2"):
        print(f"import {module}: {min(importing(module) for _ in range(3)) * 1000:.0f} ms")
    server.kill()


if __name__ == "__main__":
    sys.exit(main())
