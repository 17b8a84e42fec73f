"""A small server under the supervisor, for test_supervisor.py: ``python -m tests.integration.supervised``.

Prints its port, then a line for each thing that happens. Arguments: listen address, workers, what shall go wrong.
"""

import asyncio
import os
import sys
from functools import partial

from roadstead import supervisor, worker
from roadstead.settings.address import ListenAddress
from roadstead.telemetry.logs import configure_logging


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def application(scope, receive, send):
    """Answer with this process's id; ``/slow`` after a while, saying when it began."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    if scope["path"] == "/slow":
        say("slow request began")
        await asyncio.sleep(1)
    if scope["path"] == "/stuck":
        say("stuck request began")
        await asyncio.sleep(3600)
    if scope["path"] == "/error":
        raise RuntimeError("application failed")
    body = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def lifespan(receive, send):
    await receive()
    if "fail-start" in sys.argv:
        raise RuntimeError("no storage")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say(f"closed {os.getpid()}")
    await send({"type": "lifespan.shutdown.complete"})


async def background():
    say(f"background {os.getpid()}")
    try:
        await asyncio.Event().wait()
    finally:
        say("background ended")


def main() -> int:
    address, workers = ListenAddress.parse(sys.argv[1]), int(sys.argv[2])
    timeout_s = 0.5 if "short" in sys.argv else 10.0
    configure_logging(format="json", level="info", threaded=False)
    sockets = supervisor.listen(address, workers)

    def run_worker(listener, ready):
        return worker.serve(application, listener, shutdown_timeout_s=timeout_s, ready=ready)

    roles = [
        supervisor.Role(f"worker-{number}", partial(run_worker, listener), (listener,))
        for number, listener in enumerate(sockets, 1)
    ]
    roles.append(
        supervisor.Role(
            "background",
            lambda ready: worker.run_background(background, shutdown_timeout_s=timeout_s, ready=ready),
        )
    )
    port = sockets[0].getsockname()[1]
    return supervisor.Supervisor(roles, shutdown_timeout_s=timeout_s, when_ready=lambda: say(f"ready {port}")).run()


if __name__ == "__main__":
    sys.exit(main())
