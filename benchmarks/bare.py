"""Roadstead's server, supervisor and workers with empty handlers: what is left of a figure once our code is gone.

    GET /manifest, /file-64k, /file-large   a few bytes from memory; the files of these names, sent by the server
    PUT, POST, PATCH                       the body is taken and thrown away

``python -m benchmarks.bare DIRECTORY PORT`` serves the files of a directory.
"""

import asyncio
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from roadstead.cli.serve import run
from roadstead.settings.address import ListenAddress
from roadstead.settings.handover import Handover
from roadstead.settings.model import ServerSettings, Settings, StorageSettings

MANIFEST_BYTES = 700


async def prepare(settings: Settings, run_directory: Path) -> Handover:
    """Prepare nothing."""
    return Handover(settings=settings, rules_json="", run_directory=run_directory)


async def background(_: Handover) -> None:
    """Do nothing until cancelled."""
    await asyncio.Event().wait()


def worker_application(handover: Handover) -> Any:
    """Return the ASGI application."""
    files = handover.settings.storage.path
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


if __name__ == "__main__":
    listen = ListenAddress("127.0.0.1", int(sys.argv[2]))
    server, storage = ServerSettings(listen=listen), StorageSettings(path=Path(sys.argv[1]))
    sys.exit(run(Settings(server=server, storage=storage), application="benchmarks.bare"))
