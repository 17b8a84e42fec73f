"""Roadstead's server, supervisor and workers with empty handlers: what is left of a figure once our code is gone.

    GET /manifest, /file-64k, /file-large   a few bytes from memory; the files of these names, sent by the server
    PUT, POST, PATCH                       the body is taken and thrown away

``python -m benchmarks.bare DIRECTORY PORT`` serves the files of a directory.
"""

import socket
import sys
from collections.abc import Callable, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

from roadstead import worker
from roadstead.settings.address import ListenAddress
from roadstead.supervisor import Role, Supervisor, listen
from roadstead.telemetry.logs import configure_logging

MANIFEST_BYTES = 700


def empty_application(files: Path) -> Any:
    """Return the ASGI application over a directory of files."""
    manifest = bytes(MANIFEST_BYTES)

    async def application(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["method"] in ("GET", "HEAD"):
            await _give(scope, send, files, manifest)
        else:
            while (await receive()).get("more_body"):
                pass
            await _start(send, 201, 0)
            await send({"type": "http.response.body", "body": b""})

    return application


async def _give(scope: MutableMapping[str, Any], send: Any, files: Path, manifest: bytes) -> None:
    name = scope["path"][1:]
    if name.startswith("file-"):
        path = files / name
        await _start(send, 200, path.stat().st_size)
        await send({"type": "http.response.pathsend", "path": str(path)})
    else:
        await _start(send, 200, len(manifest))
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else manifest})


async def _start(send: Any, status: int, size: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % size)]})


def main(files: Path, port: int) -> int:
    """Serve with two workers, as Roadstead does, until a signal."""
    configure_logging(format="text", level="warning", threaded=False)

    def answer(listener: socket.socket, ready: Callable[[], None]) -> int:
        return worker.serve(empty_application(files), listener, shutdown_timeout_s=5, ready=ready)

    listeners = listen(ListenAddress("127.0.0.1", port), 2)
    roles = [
        Role(f"worker-{number}", partial(answer, listener), (listener,)) for number, listener in enumerate(listeners, 1)
    ]
    return Supervisor(roles, shutdown_timeout_s=5).run()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
