"""How large a thread call should be when an upload is hashed and written as it passes.

``python benchmarks/decisions/hash_and_write.py [DIRECTORY]`` writes 256 MiB a figure into a temporary directory there.
"""

import asyncio
import ctypes
import ctypes.util
import hashlib
import os
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TOTAL = 256 << 20
RECEIVED = 417792  # the piece that Granian delivers: 0001-server.md
SIZES = (64 << 10, 256 << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20)
NETWORK = TOTAL / (1.5 * 2**30) / (TOTAL / RECEIVED)  # seconds a piece at the ingest rate of 0001


class Sink:
    """A file that is hashed as it's written."""

    def __init__(self, path: Path, *, hashed: bool = True, written: bool = True) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.hasher = hashlib.sha256() if hashed else None
        self.written = written

    def append(self, data: bytes | bytearray) -> None:
        """Take one piece: the work of one thread call."""
        if self.hasher:
            self.hasher.update(data)
        if self.written:
            os.write(self.file, data)


def best(run: Callable[[], float], times: int = 3) -> float:
    """Give the shortest time of a few."""
    return min(run() for _ in range(times))


def table(title: str, rows: list[tuple[str, float]]) -> None:
    """Print MiB/s and the ratio to the best."""
    print(f"\n## {title}")
    top = max(rate for _, rate in rows)
    for name, rate in rows:
        print(f"{name:<50}{rate:>9.0f} MiB/s  x{rate / top:.2f}")


def calls(path: Path, size: int, pool: ThreadPoolExecutor | None) -> float:
    """Hash and write in calls of one size, one after another."""

    async def run() -> float:
        sink, data, loop = Sink(path), os.urandom(size), asyncio.get_running_loop()
        started = time.perf_counter()
        for _ in range(TOTAL // size):
            if pool is None:
                await asyncio.to_thread(sink.append, data)
            else:
                await loop.run_in_executor(pool, sink.append, data)
        seconds = time.perf_counter() - started
        os.close(sink.file)
        return seconds

    return asyncio.run(run())


def beside(path: Path, size: int, pool: ThreadPoolExecutor) -> float:
    """Hash and write each piece in two threads at once."""

    async def run() -> float:
        sink, data, loop = Sink(path), os.urandom(size), asyncio.get_running_loop()
        started = time.perf_counter()
        for _ in range(TOTAL // size):
            hashed = loop.run_in_executor(pool, sink.hasher.update, data)
            await loop.run_in_executor(pool, os.write, sink.file, data)
            await hashed
        seconds = time.perf_counter() - started
        os.close(sink.file)
        return seconds

    return asyncio.run(run())


def piped(path: Path, size: int, *, double: bool, wait: bool = True) -> float:
    """Take pieces as a server delivers them, gather them, and work in calls of about one size.

    The network is a sleep for its share of the time (or none); with *double* the next call's
    pieces are taken while the thread works on the last ones.
    """

    async def run() -> float:
        piece, loop = os.urandom(RECEIVED), asyncio.get_running_loop()
        sink, pool = Sink(path), ThreadPoolExecutor(1)
        started, got, pending = time.perf_counter(), 0, None
        due = started
        while got < TOTAL:
            buffer = bytearray()
            while len(buffer) < size and got < TOTAL:
                if wait:
                    due = max(due, time.perf_counter() - 4 * NETWORK) + NETWORK  # the socket buffers a few pieces
                    if (rest := due - time.perf_counter()) > 0:
                        await asyncio.sleep(rest)
                buffer += piece
                got += RECEIVED
            if pending is not None:
                await pending
            pending = loop.run_in_executor(pool, sink.append, buffer)
            if not double:
                await pending
        await pending
        seconds = time.perf_counter() - started
        os.close(sink.file)
        pool.shutdown()
        return seconds

    return asyncio.run(run())


def inline(path: Path, size: int) -> float:
    """Hash and write without any thread: what the hop costs."""
    sink, data = Sink(path), os.urandom(size)
    started = time.perf_counter()
    for _ in range(TOTAL // size):
        sink.append(data)
    os.close(sink.file)
    return time.perf_counter() - started


def parts(path: Path) -> None:
    """What the work is made of: the hash, the write, the sync."""
    rows = []
    for name, hashed, written in (("hash", True, False), ("write to the page cache", False, True)):
        sink, data = Sink(path, hashed=hashed, written=written), os.urandom(1 << 20)
        started = time.perf_counter()
        for _ in range(TOTAL >> 20):
            sink.append(data)
        rows.append((f"{name} alone, 1 MiB pieces", TOTAL / 2**20 / (time.perf_counter() - started)))
        if written:
            started = time.perf_counter()
            os.fdatasync(sink.file)
            rows.append(("fdatasync of 256 MiB after it", TOTAL / 2**20 / (time.perf_counter() - started)))
        os.close(sink.file)
    table("the parts", rows)
    print("\n## making one blob durable, ms, median of 20 (fdatasync of data, rename, fsync of the directory)")
    for size in (1 << 10, 64 << 10, 1 << 20, 16 << 20):
        data, syncs, renames = os.urandom(size), [], []
        directory = os.open(path.parent, os.O_RDONLY)
        for _ in range(20 if size < 16 << 20 else 5):
            sink = Sink(path)
            sink.append(data)
            started = time.perf_counter()
            os.fdatasync(sink.file)
            synced = time.perf_counter()
            path.rename(path.with_suffix(".done"))
            os.fsync(directory)
            syncs.append(synced - started)
            renames.append(time.perf_counter() - synced)
            os.close(sink.file)
        os.close(directory)
        data_ms, name_ms = (statistics.median(times) * 1e3 for times in (syncs, renames))
        print(f"{size >> 10:>6} KiB: data {data_ms:.2f}, name {name_ms:.2f}")


def exported() -> None:
    """Hashing anew at a resume against a state kept from before (libcrypto's SHA256_CTX)."""
    rows, data = [], os.urandom(1 << 20)
    count = TOTAL >> 20
    hasher = hashlib.sha256()
    started = time.perf_counter()
    for _ in range(count):
        hasher.update(data)
    rows.append(("hashlib", count / (time.perf_counter() - started)))
    library = ctypes.CDLL(ctypes.util.find_library("crypto"))
    state = ctypes.create_string_buffer(112)
    library.SHA256_Init(state)
    started = time.perf_counter()
    for _ in range(count):
        library.SHA256_Update(state, data, ctypes.c_size_t(len(data)))
    rows.append(("SHA256_CTX through ctypes, 1 MiB pieces", count / (time.perf_counter() - started)))
    started = time.perf_counter()
    for _ in range(1000):
        saved = bytes(state)
        ctypes.create_string_buffer(saved, 112)
    each = (time.perf_counter() - started) / 1000
    digest = ctypes.create_string_buffer(32)
    library.SHA256_Final(digest, state)
    table(f"hash at resume ({ssl.OPENSSL_VERSION}; same digest: {digest.raw == hasher.digest()})", rows)
    print(f"saving and restoring the state: {each * 1e6:.1f} us, 112 bytes")
    for size in (1024, 65536):
        small, repeat = data[:size], 2000
        started = time.perf_counter()
        for _ in range(repeat):
            library.SHA256_Update(state, small, ctypes.c_size_t(size))
        middle = time.perf_counter()
        for _ in range(repeat):
            hasher.update(small)
        end = time.perf_counter()
        foreign, own = ((span / repeat * 1e6) for span in (middle - started, end - middle))
        print(f"{size} bytes: ctypes {foreign:.2f} us, hashlib {own:.2f} us")


def reread(path: Path) -> None:
    """Reading a file again to hash it, from the page cache."""
    path.write_bytes(os.urandom(1 << 20) * 256)
    started = time.perf_counter()
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")
    print(f"hashing 256 MiB again from the page cache: {time.perf_counter() - started:.2f} s")


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as directory:
        path = Path(directory) / "blob"
        mebibytes = TOTAL / 2**20
        parts(path)
        own = ThreadPoolExecutor(4)
        rows = [("no thread, 1 MiB", mebibytes / best(lambda: inline(path, 1 << 20)))]
        for size in SIZES:
            for name, pool in (("to_thread", None), ("own pool", own)):
                seconds = best(lambda s=size, p=pool: calls(path, s, p), 2)
                rows.append((f"{size >> 10} KiB, {name}", mebibytes / seconds))
            seconds = best(lambda s=size: beside(path, s, own), 2)
            rows.append((f"{size >> 10} KiB, hash and write in two threads", mebibytes / seconds))
        table("one call after another, nothing received meanwhile", rows)
        for wait in (True, False):
            rows = []
            for size in (RECEIVED, 1 << 20, 2 << 20, 4 << 20):
                for double in (False, True):
                    seconds = best(lambda s=size, d=double, w=wait: piped(path, s, double=d, wait=w), 2)
                    how = "next received while it works" if double else "alternating"
                    rows.append((f"{size >> 10} KiB, {how}", mebibytes / seconds))
            table(f"pieces of 408 KiB gathered, {'network at 1.5 GiB/s' if wait else 'network for nothing'}", rows)
        exported()
        reread(path)


if __name__ == "__main__":
    main()
