"""What supervision.py starts: workers under one of three ways of supervising Granian.

``python supervision_app.py WAY PORT WORKERS KILL_TIMEOUT START_METHOD``; WAY is ``serve`` (Granian's own supervisor
with the background process in its hooks) or ``embed`` (processes of ours, each with Granian's embedded server).
"""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass

from granian import Granian
from granian.constants import Interfaces, Loops
from granian.http import HTTP1Settings

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Settings:
    """Stands for a configuration that was read once, before any worker."""

    greeting: str
    parent: int


def end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the thread that started this process ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def background() -> None:
    """The process beside the workers."""
    end_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"background {os.getpid()}", flush=True)
    while True:
        time.sleep(60)


def make_app(settings: Settings):
    """Build the application of one worker."""
    in_flight = 0

    async def app(scope, receive, send):
        nonlocal in_flight
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            print(f"lifespan shutdown, {in_flight} answers still in flight", flush=True)
            await send({"type": "lifespan.shutdown.complete"})
            return
        in_flight += 1
        if scope["path"].startswith("/sleep/"):
            await asyncio.sleep(float(scope["path"][7:]))
        elif scope["path"] == "/take":
            more = True
            while more:
                message = await receive()
                more = message.get("more_body", False)
                await asyncio.sleep(0.01)
        body = f"{os.getpid()} {settings.greeting} {settings.parent}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})
        in_flight -= 1

    return app


def load(settings: Settings, target: str):  # Granian adds the name
    """The loader each worker calls."""
    return make_app(settings)


@dataclass(frozen=True)
class Loader:
    """A loader that pickles, for workers that are spawned."""

    settings: Settings

    def __call__(self, target: str = ""):
        end_with_parent()
        return make_app(self.settings)


def by_serve(port: int, workers: int, kill_timeout: float | None, settings: Settings) -> None:
    """Granian supervises the workers; a hook starts and stops the process beside them."""
    server = Granian(
        "roadstead",
        port=port,
        workers=workers,
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        websockets=False,
        backlog=1024,
        backpressure=8192,
        http1_settings=HTTP1Settings(max_buffer_size=1 << 20),
        respawn_failed_workers=True,
        workers_kill_timeout=kill_timeout,
        log_enabled=True,
    )
    context = multiprocessing.get_context("spawn")
    state = {"stopping": False}

    def watch() -> None:
        while not state["stopping"]:
            process = context.Process(target=background, name="background")
            process.start()
            state["process"] = process
            process.join()

    @server.on_startup
    def start() -> None:
        threading.Thread(target=watch, daemon=True).start()

    @server.on_shutdown
    def stop() -> None:
        state["stopping"] = True
        state["process"].terminate()
        state["process"].join()

    server.serve(target_loader=Loader(settings), wrap_loader=False)


def embedded(port: int, settings: Settings) -> None:
    """One worker as a process of ours, Granian embedded in its loop."""
    import uvloop
    from granian.server.embed import Server

    end_with_parent()

    async def main() -> None:
        server = Server(make_app(settings), port=port, interface=Interfaces.ASGI, websockets=False, log_enabled=False)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, server.stop)
        await server.serve()

    uvloop.run(main())


def by_embed(port: int, workers: int, settings: Settings) -> None:
    """We supervise everything."""
    context = multiprocessing.get_context("spawn")
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    jobs = [(embedded, (port, settings))] * workers + [(background, ())]

    def start(job):
        process = context.Process(target=job[0], args=job[1])
        process.start()
        return process

    processes = [start(job) for job in jobs]
    while not stopping.wait(0.05):
        for index, process in enumerate(processes):
            if not process.is_alive():
                processes[index] = start(jobs[index])
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(10)


if __name__ == "__main__":
    way, port, workers, kill_timeout, method = sys.argv[1:]
    multiprocessing.set_start_method(method)
    settings = Settings("hello", os.getpid())
    if way == "serve":
        by_serve(int(port), int(workers), float(kill_timeout) or None, settings)
    else:
        by_embed(int(port), int(workers), settings)
