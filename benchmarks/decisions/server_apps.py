"""The application that server.py puts behind each server, once as ASGI and once as RSGI.

Run as a program it is one server: ``python server_apps.py KIND PORT WORKERS [KEY=VALUE …]``.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path

SMALL = b"s" * 1024
MEDIUM = b"m" * 65536
FILES = Path(os.environ.get("BENCH_FILES", "."))
SIZES = {"256k": 256 << 10, "1m": 1 << 20, "4m": 4 << 20}
SEEN: dict[str, list[str]] = {}


def summary(sizes: list[int], started: float) -> bytes:
    """Tell how a body arrived, as JSON."""
    facts = {
        "pid": os.getpid(),
        "total": sum(sizes),
        "chunks": len(sizes),
        "median": statistics.median(sizes) if sizes else 0,
        "max": max(sizes, default=0),
        "seconds": time.perf_counter() - started,
    }
    return json.dumps(facts).encode()


async def answer(send, body: bytes, status: int = 200, headers=()) -> None:
    """Send one whole answer."""
    headers = [(b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def start_file(send, path: Path) -> int:
    """Send the head of a file's answer; return the file's size."""
    size = path.stat().st_size
    headers = [(b"content-length", b"%d" % size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    return size


async def send_pieces(send, path: Path, piece: int) -> None:
    """Send a file as body messages that a thread reads."""
    size = await start_file(send, path)
    file = os.open(path, os.O_RDONLY)
    try:
        for start in range(0, size, piece):
            data = await asyncio.to_thread(os.pread, file, piece, start)
            await send({"type": "http.response.body", "body": data, "more_body": start + piece < size})
    finally:
        os.close(file)


async def take(receive, bytes_per_second: float = 0) -> bytes:
    """Read the body to its end, at most at the given rate."""
    sizes, total, started = [], 0, time.perf_counter()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"{}"
        sizes.append(len(message.get("body", b"")))
        total += sizes[-1]
        more = message.get("more_body", False)
        if bytes_per_second and (ahead := total / bytes_per_second - (time.perf_counter() - started)) > 0:
            await asyncio.sleep(ahead)
    return summary(sizes, started)


async def note_cut(receive, send, name: str) -> None:
    """Write down each message of a body under a name, for GET /seen/NAME."""
    seen = SEEN.setdefault(name, [])
    try:
        while True:
            message = await receive()
            note = f"{message['type']} body={len(message.get('body', b''))} more={message.get('more_body')}"
            if not seen or seen[-1] != note:
                seen.append(note)
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                break
        await answer(send, b"done")
        seen.append("send: no error")
    except BaseException as error:
        seen.append(f"{type(error).__module__}.{type(error).__name__}: {error}")
        raise


async def note_disconnect(receive, send) -> None:
    """Begin an answer, then note what a client that goes away looks like."""
    seen = SEEN.setdefault("gone", [])
    headers = [(b"content-length", b"1000000000")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    try:
        for _ in range(1000):
            await send({"type": "http.response.body", "body": bytes(1_000_000), "more_body": True})
        seen.append("sent everything without an error")
    except BaseException as error:
        seen.append(f"{type(error).__module__}.{type(error).__name__}: {error}")
        raise


async def note_watched(receive, send) -> None:
    """Send until ``receive`` tells that the client went away."""
    seen, started = SEEN.setdefault("watched", []), time.perf_counter()

    async def until_disconnect() -> dict:
        while (message := await receive())["type"] != "http.disconnect":
            pass
        return message

    gone = asyncio.ensure_future(until_disconnect())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000000000")]})
    for count in range(1000):
        if gone.done():
            message = gone.result()
            seen.append(f"{message} after {count} MB, {time.perf_counter() - started:.2f} s")
            return
        await send({"type": "http.response.body", "body": bytes(1_000_000), "more_body": True})
        await asyncio.sleep(0.001)
    seen.append("receive never told")


async def lifespan(receive, send) -> None:
    """Answer the lifespan protocol."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print(f"lifespan shutdown {os.getpid()}", file=sys.stderr, flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def asgi(scope, receive, send) -> None:  # noqa: C901 (a table would cost what is measured)
    """Answer whatever server.py asks."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    path, _, name = scope["path"][1:].partition("/")
    if path == "small":
        await answer(send, SMALL)
    elif path == "medium":
        await answer(send, MEDIUM)
    elif path == "file64":
        await start_file(send, FILES / "64k")
        await send({"type": "http.response.pathsend", "path": str(FILES / "64k")})
    elif path == "pieces64":
        await send_pieces(send, FILES / "64k", 1 << 20)
    elif path == "ingest":
        await answer(send, await take(receive))
    elif path == "slow":
        await answer(send, await take(receive, 50e6))
    elif path == "pathsend":
        await start_file(send, FILES / "256m")
        await send({"type": "http.response.pathsend", "path": str(FILES / "256m")})
    elif path == "pieces":
        await send_pieces(send, FILES / "256m", SIZES[name])
    elif path == "cut":
        await note_cut(receive, send, name)
    elif path == "gone":
        await note_disconnect(receive, send)
    elif path == "watched":
        await note_watched(receive, send)
    elif path == "early":
        await answer(send, b"denied", status=401)
    elif path == "head":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1234")]})
        await send({"type": "http.response.body", "body": b""})
    elif path == "seen":
        await answer(send, json.dumps(SEEN.get(name, [])).encode())
    elif path == "missing":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.pathsend", "path": str(FILES / "not-there")})
    elif path == "badheader":
        await answer(send, b"x", headers=[(b"x-note", b"a\r\nx-injected: 1")])
    elif path == "short":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"five!"})
    elif path == "broken":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"five!", "more_body": True})
        raise RuntimeError("on purpose")
    elif path == "broken-chunked":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"five!", "more_body": True})
        raise RuntimeError("on purpose")
    elif path == "raise":
        raise RuntimeError("on purpose")
    elif path == "sleep":
        await asyncio.sleep(float(name))
        await answer(send, b"slept")
    elif path == "pid":
        await answer(send, b"%d" % os.getpid())


async def rsgi(scope, protocol) -> None:  # noqa: C901 (as above)
    """Answer whatever server.py asks, over RSGI."""
    path, _, name = scope.path[1:].partition("/")
    if path == "small":
        protocol.response_bytes(200, [], SMALL)
    elif path == "medium":
        protocol.response_bytes(200, [], MEDIUM)
    elif path == "file64":
        protocol.response_file(200, [], str(FILES / "64k"))
    elif path == "pathsend":
        protocol.response_file(200, [], str(FILES / "256m"))
    elif path == "pieces":
        source = FILES / "256m"
        size, piece = source.stat().st_size, SIZES[name]
        transport = protocol.response_stream(200, [("content-length", str(size))])
        file = os.open(source, os.O_RDONLY)
        for start in range(0, size, piece):
            await transport.send_bytes(await asyncio.to_thread(os.pread, file, piece, start))
        os.close(file)
    elif path in {"ingest", "slow"}:
        sizes, total, started = [], 0, time.perf_counter()
        async for chunk in protocol:
            sizes.append(len(chunk))
            total += len(chunk)
            if path == "slow" and (ahead := total / 50e6 - (time.perf_counter() - started)) > 0:
                await asyncio.sleep(ahead)
        protocol.response_bytes(200, [], summary(sizes, started))
    elif path == "cut":
        seen = SEEN.setdefault(name, [])
        try:
            async for chunk in protocol:
                if not seen or seen[-1] != f"chunk {len(chunk)}":
                    seen.append(f"chunk {len(chunk)}")
            seen.append("end of iteration")
            protocol.response_bytes(200, [], b"done")
        except BaseException as error:
            seen.append(f"{type(error).__module__}.{type(error).__name__}: {error}")
            raise
    elif path == "seen":
        protocol.response_bytes(200, [], json.dumps(SEEN.get(name, [])).encode())
    elif path == "missing":
        protocol.response_file(200, [("content-length", "10")], str(FILES / "not-there"))
    elif path == "badheader":
        protocol.response_bytes(200, [("x-note", "a\r\nx-injected: 1")], b"x")
    elif path == "pid":
        protocol.response_bytes(200, [], b"%d" % os.getpid())
    else:
        protocol.response_empty(404, [])


def run_granian(kind: str, port: int, workers: int, options: dict) -> None:
    """Serve with Granian until SIGTERM."""
    from granian import Granian
    from granian.constants import Interfaces, Loops, RuntimeModes, TaskImpl
    from granian.http import HTTP1Settings

    interface = Interfaces.RSGI if kind == "granian-rsgi" else Interfaces.ASGI
    target = "server_apps:rsgi" if kind == "granian-rsgi" else "server_apps:asgi"
    Granian(
        target,
        port=port,
        workers=workers,
        interface=interface,
        loop=Loops(options.get("loop", "uvloop")),
        runtime_mode=RuntimeModes(options.get("runtime_mode", "auto")),
        runtime_threads=int(options.get("runtime_threads", 1)),
        task_impl=TaskImpl(options.get("task_impl", "asyncio")),
        backpressure=int(options["backpressure"]) if "backpressure" in options else None,
        http1_settings=HTTP1Settings(max_buffer_size=int(options.get("buffer", 8192 + 4096 * 100))),
        websockets=False,
        log_enabled=False,
        working_dir=Path(__file__).parent,
    ).serve()


def run_uvicorn(port: int, workers: int, options: dict) -> None:
    """Serve with uvicorn until SIGTERM."""
    import uvicorn

    uvicorn.run(
        "server_apps:asgi",
        port=port,
        workers=workers,
        http="httptools",
        loop=options.get("loop", "uvloop"),
        log_level="critical",
        access_log=False,
        app_dir=str(Path(__file__).parent),
    )


if __name__ == "__main__":
    kind, port, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    options = dict(word.split("=") for word in sys.argv[4:])
    if kind == "uvicorn":
        run_uvicorn(port, workers, options)
    else:
        run_granian(kind, port, workers, options)
