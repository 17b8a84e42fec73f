"""``roadstead serve``: prepare, then hand the port to the supervisor."""

import dataclasses
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer

from roadstead.cli.apart import Apart
from roadstead.settings.address import ListenAddress
from roadstead.settings.handover import Handover
from roadstead.settings.load import load
from roadstead.settings.model import LogFormat, LogLevel, Settings, StorageDriver
from roadstead.settings.plain import without_password
from roadstead.supervisor import Role, Supervisor, listen
from roadstead.telemetry.logs import configure_logging

EXAMPLE = "Example: roadstead serve --data ./images --listen 127.0.0.1:5000"

_APPLICATION = "roadstead.app"
"""The module that builds everything: ``prepare``, ``worker_application`` and ``background``."""

_log = structlog.get_logger()


def serve(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="A TOML file; none is needed.")] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="The data directory (storage.path).")] = None,
    listen_at: Annotated[
        str | None, typer.Option("--listen", metavar="HOST:PORT", help="Where to listen (server.listen).")
    ] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Worker processes (server.workers).")] = None,
    open_to_network: Annotated[
        bool,
        typer.Option("--open-to-network", help="Let others in without authentication (server.open_to_network)."),
    ] = False,
    log_format: Annotated[LogFormat | None, typer.Option(help="How log lines are written (log.format).")] = None,
    log_level: Annotated[LogLevel | None, typer.Option(help="The least important lines (log.level).")] = None,
) -> None:
    """Serve images until SIGTERM or Ctrl-C; a second one ends it at once."""
    given = {
        "storage.path": None if data is None else str(data),
        "server.listen": listen_at,
        "server.workers": workers,
        "server.open_to_network": open_to_network or None,
        "log.format": log_format,
        "log.level": log_level,
    }
    overrides = {key: value for key, value in given.items() if value is not None}
    settings = load(config, environment=os.environ, overrides=overrides).settings
    raise typer.Exit(run(settings))


def run(settings: Settings, *, application: str = _APPLICATION) -> int:
    """Prepare and serve with these settings until a signal; return the exit status.

    `application` names the module with ``prepare(settings, run_directory)``, ``worker_application(handover)`` and
    ``background(handover)``.
    """
    configure_logging(format=settings.log.format, level=settings.log.level, threaded=False)
    listeners = listen(settings.server.listen, settings.server.workers)
    with tempfile.TemporaryDirectory(prefix="roadstead-") as directory:
        preparation = Apart(partial(_prepare, application, settings, Path(directory)))
        # Meanwhile here: what the workers need, so that they have it the moment they are forked.
        entries = import_module(application)
        worker = import_module("roadstead.worker")
        handover = Handover.parse(preparation.result())
        roles = [
            _role(f"worker-{number}", handover, partial(_worker, worker, entries, listener), listener)
            for number, listener in enumerate(listeners, 1)
        ]
        roles.append(_role("background", handover, partial(_background, worker, entries)))
        address = ListenAddress(settings.server.listen.host, listeners[0].getsockname()[1])
        return Supervisor(
            roles,
            shutdown_timeout_s=settings.server.shutdown_timeout.total_seconds(),
            when_ready=partial(_announce, settings, address),
        ).run()


async def _prepare(application: str, settings: Settings, run_directory: Path) -> str:
    handover: Handover = await import_module(application).prepare(settings, run_directory)
    return handover.as_json()


def _role(
    name: str,
    handover: Handover,
    work: Callable[[Handover, Callable[[], None]], int],
    *sockets: socket.socket,
) -> Role:
    own = dataclasses.replace(handover, process=name)

    def start(ready: Callable[[], None]) -> int:
        log = own.settings.log
        writer = configure_logging(format=log.format, level=log.level)
        try:
            return work(own, ready)
        finally:
            writer.flush()

    return Role(name, start, sockets)


def _worker(worker: Any, entries: Any, listener: socket.socket, handover: Handover, ready: Callable[[], None]) -> int:
    status: int = worker.serve(
        entries.worker_application(handover), listener, shutdown_timeout_s=_timeout_s(handover), ready=ready
    )
    return status


def _background(worker: Any, entries: Any, handover: Handover, ready: Callable[[], None]) -> int:
    status: int = worker.run_background(
        partial(entries.background, handover), shutdown_timeout_s=_timeout_s(handover), ready=ready
    )
    return status


def _timeout_s(handover: Handover) -> float:
    return handover.settings.server.shutdown_timeout.total_seconds()


def _announce(settings: Settings, address: ListenAddress) -> None:
    """Say on standard error where it listens and what to try first; in a log of JSON, as an event."""
    facts = _facts(settings, address)
    if settings.log.format is LogFormat.JSON:
        _log.info("ready", **facts)
        return
    image = f"{_host(settings, address)}/library/hello:1"
    version = metadata.version("roadstead")
    lines = [
        f"roadstead {version} listens at {facts['url']} with {settings.server.workers} workers",
        f"images are in {facts['storage']}, facts in {facts['database']}",
        f"try:  docker tag IMAGE {image} && docker push {image}",
        f"      docker pull {image}",
    ]
    if not settings.server.listen.is_loopback:
        lines.append("warning: there is no authentication; whoever reaches this port can write and delete")
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()


def _facts(settings: Settings, address: ListenAddress) -> Mapping[str, str]:
    storage = settings.storage
    return {
        "url": settings.server.public_url or f"http://{address}",
        "storage": str(storage.path) if storage.driver is StorageDriver.FILESYSTEM else f"s3://{storage.bucket}",
        "database": without_password(settings.database_url),
    }


def _host(settings: Settings, address: ListenAddress) -> str:
    """Return what stands before an image's name."""
    if settings.server.public_url:
        return settings.server.public_url.partition("://")[2].rstrip("/")
    if address.host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return f"{socket.gethostname()}:{address.port}"
    return str(address)
