"""``roadstead serve``: prepare, then hand the port to the supervisor."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import structlog
import typer

from roadstead.cli.apart import Apart
from roadstead.cli.certificate import LOOK_EVERY_S, TlsFromSettings
from roadstead.cli.run_directory import run_directory
from roadstead.clock import SystemClock
from roadstead.settings.address import ListenAddress
from roadstead.settings.database_url import without_password
from roadstead.settings.handover import Handover
from roadstead.settings.load import LoadedSettings, load
from roadstead.settings.model import LogFormat, LogLevel, Settings, StorageDriver, StorageSettings
from roadstead.supervisor import Renewal, Role, Supervisor, listen
from roadstead.telemetry.logs import LineWriter, configure_logging
from roadstead.tls.material import TlsMaterial

EXAMPLE = "Example: roadstead serve --data ./images --listen 127.0.0.1:5000"

_log = structlog.get_logger()


def serve(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="A TOML file, or distribution's config.yml; none is needed.")
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="The data directory (storage.path).")] = None,
    listen_at: Annotated[
        str | None, typer.Option("--listen", metavar="HOST:PORT", help="Where to listen (server.listen).")
    ] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Worker processes (server.workers).")] = None,
    tls: Annotated[
        str | None,
        typer.Option(metavar="self-signed", help="Speak TLS with a certificate made here (tls.self_signed)."),
    ] = None,
    open_to_network: Annotated[
        bool,
        typer.Option("--open-to-network", help="Let others in without authentication (server.open_to_network)."),
    ] = False,
    trace_upstream: Annotated[
        bool, typer.Option("--trace-upstream", help="Log each request to other registries (upstreams.trace).")
    ] = False,
    log_format: Annotated[LogFormat | None, typer.Option(help="How log lines are written (log.format).")] = None,
    log_level: Annotated[LogLevel | None, typer.Option(help="The least important lines (log.level).")] = None,
) -> None:
    """Serve images until SIGTERM or Ctrl-C; a second one ends it at once."""
    if tls not in (None, "self-signed"):
        raise typer.BadParameter(
            "expected self-signed; a certificate of yours is named by tls.certificate", param_hint="--tls"
        )
    given = {
        "storage.path": None if data is None else str(data),
        "server.listen": listen_at,
        "server.workers": workers,
        "tls.self_signed": True if tls else None,
        "server.open_to_network": open_to_network or None,
        "upstreams.trace": trace_upstream or None,
        "log.format": log_format,
        "log.level": log_level,
    }
    overrides = {key: value for key, value in given.items() if value is not None}
    raise typer.Exit(run(load(config, environment=os.environ, overrides=overrides)))


def run(loaded: LoadedSettings) -> int:
    """Prepare and serve with these settings until a signal; return the exit status."""
    if not loaded.settings.is_rebuildable:
        return _run(loaded)
    # What only this mode needs costs nobody else's start.
    from roadstead.app import writing

    with writing.working_alone(loaded.settings):
        try:
            return _run(loaded)
        finally:
            Apart(partial(_give_back, loaded.settings)).result()


async def _give_back(settings: Settings) -> str:
    # As above.
    from roadstead.app import writing

    await writing.give_the_right_back(settings)
    return "given back"


def _run(loaded: LoadedSettings) -> int:
    settings = loaded.settings
    _configure_logging(settings, threaded=False)
    for warning in loaded.warnings:
        _log.warning("setting", key=warning.key, where=warning.where, message=warning.message)
    # Until the supervisor listens to signals, SIGTERM ends like Ctrl-C: what was made so far is cleaned up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    listeners = listen(settings.server.listen, settings.server.workers)
    side_listeners = listen(settings.metrics.listen, 1) if settings.metrics.listen else []
    with run_directory() as directory:
        certificate = TlsFromSettings(settings, SystemClock()) if settings.speaks_tls else None
        preparation = Apart(partial(_prepare, settings, directory))
        # Meanwhile here: what the workers need, so that they have it the moment they are forked.
        from roadstead import worker
        from roadstead.app import applications, upkeep

        handover = Handover.parse(preparation.result())
        timeout_s = settings.server.shutdown_timeout.total_seconds()

        def answer(process: str, listener: socket.socket, ready: Callable[[], None]) -> int:
            application = applications.worker_application(handover, process)
            material = certificate.material if certificate else None
            return worker.serve(application, listener, shutdown_timeout_s=timeout_s, ready=ready, tls=material)

        def answering(name: str, listener: socket.socket, generation: int = 1) -> Role:
            process = name if generation == 1 else f"{name}.{generation}"
            role = _role(process, settings, partial(answer, process, listener), listener)
            return replace(role, successor=partial(answering, name, listener, generation + 1))

        def answer_aside(listener: socket.socket, ready: Callable[[], None]) -> int:
            application = applications.side_application(handover)
            return worker.serve(application, listener, shutdown_timeout_s=timeout_s, ready=ready)

        def work_behind(ready: Callable[[], None]) -> int:
            background = partial(upkeep.background, handover)
            return worker.run_background(background, shutdown_timeout_s=timeout_s, ready=ready)

        roles = [answering(name, listener) for name, listener in zip(_names(listeners), listeners, strict=True)]
        roles += [_role("side", settings, partial(answer_aside, listener), listener) for listener in side_listeners]
        roles.append(_role("background", settings, work_behind))
        address = ListenAddress(settings.server.listen.host, listeners[0].getsockname()[1])
        announce = partial(_announce, handover.settings, address, certificate.material if certificate else None)
        renewal = Renewal(certificate.look, LOOK_EVERY_S) if certificate else None
        return Supervisor(roles, shutdown_timeout_s=timeout_s, when_ready=announce, renewal=renewal).run()


def _configure_logging(settings: Settings, *, threaded: bool = True) -> LineWriter:
    log = settings.log
    return configure_logging(format=log.format, level=log.level, threaded=threaded, fields=log.fields.as_table())


def _names(listeners: Sequence[socket.socket]) -> Sequence[str]:
    return [f"worker-{number}" for number in range(1, len(listeners) + 1)]


async def _prepare(settings: Settings, run_directory: Path) -> str:
    # In a process of its own (apart.py): what it imports is gone with it.
    from roadstead.app.preparing import prepare

    return (await prepare(settings, run_directory)).as_json()


def _role(name: str, settings: Settings, work: Callable[[Callable[[], None]], int], *sockets: socket.socket) -> Role:
    def start(ready: Callable[[], None]) -> int:
        writer = _configure_logging(settings)
        try:
            return work(ready)
        finally:
            writer.close()

    return Role(name, start, sockets)


def _announce(settings: Settings, address: ListenAddress, tls: TlsMaterial | None) -> None:
    """Say on standard error where it listens and what to try first; in a log of JSON, as an event."""
    facts = _facts(settings, address)
    if settings.log.format is LogFormat.JSON:
        _log.info("ready", **facts)
        return
    lines = [
        f"roadstead listens at {facts['listens_at']} with {settings.server.workers} workers{_known_as(facts)}",
        f"images are in {facts['storage']}, facts in {facts['database']}",
        *_first_steps(settings, f"{_host(settings, address)}/team/app:1"),
    ]
    if tls is not None and settings.tls.self_signed:
        lines.append(f"the certificate vouches for itself; its SHA-256 is {tls.fingerprint}")
    if not settings.server.listen.is_loopback:
        if not settings.auth.is_on:
            lines.append("warning: nobody has to sign in; whoever reaches this port can write and delete")
        elif tls is None and not (settings.server.public_url or "").startswith("https://"):
            lines.append("warning: without TLS in front, passwords cross the network as they are")
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()


def _known_as(facts: Mapping[str, str]) -> str:
    return f", and is known as {facts['url']}" if facts["url"] != facts["listens_at"] else ""


def _first_steps(settings: Settings, image: str) -> Sequence[str]:
    """Return what to try first; nothing is pushed where nothing may be."""
    login = f"docker login {image.partition('/')[0]} && " if settings.auth.is_on else ""
    if settings.registry.read_only:
        return [
            "it is read-only: what is there can be pulled, and nothing is taken",
            f"try:  {login}docker pull {image}",
        ]
    return [
        f"try:  {login}docker tag IMAGE {image} && docker push {image}",
        f"      docker pull {image}",
    ]


def _facts(settings: Settings, address: ListenAddress) -> Mapping[str, str]:
    storage = settings.storage
    listens_at = f"{'https' if settings.speaks_tls else 'http'}://{address}"
    return {
        "url": (settings.server.public_url or listens_at).rstrip("/"),
        "listens_at": listens_at,
        "storage": _place(storage),
        "database": without_password(settings.database_url),
    }


def _place(storage: StorageSettings) -> str:
    if storage.driver is StorageDriver.FILESYSTEM:
        return str(storage.path)
    return "/".join(part for part in (f"s3://{storage.bucket}", storage.prefix.strip("/")) if part)


def _host(settings: Settings, address: ListenAddress) -> str:
    """Return what stands before an image's name."""
    if settings.server.public_url:
        return settings.server.public_url.partition("://")[2].rstrip("/")
    if address.host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return f"{socket.gethostname()}:{address.port}"
    # The name is what the pages use, and what clients take without TLS as they do the address.
    return f"localhost:{address.port}" if address.host == "127.0.0.1" else str(address)
