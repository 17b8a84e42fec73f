"""What the children of the supervisor do: serve an ASGI application with Granian, or run the background's loops.

Docs: docs/decisions/0001-server.md says why Granian, ASGI and these options.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from pathlib import Path
from typing import Any, Final

import uvloop
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from roadstead.supervisor import BACKLOG, RETIRE
from roadstead.tls.material import ClientCertificates, TlsMaterial

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

HANDSHAKES_END_WITHIN_S: Final = 3.0
_BUFFER: Final = 1 << 20  # bytes of a request's body that come in one piece at the most
_BACKPRESSURE: Final = 8192  # connections a worker holds open, idle ones included
_GRANIAN_LOG: Final[dict[str, Any]] = {
    "handlers": {},
    "loggers": {"_granian": {"handlers": [], "propagate": True}, "granian.access": {"handlers": [], "propagate": True}},
}


class StartFailedError(Exception):
    """The application's start-up (ASGI lifespan) failed; the log has the reason."""


def serve(
    application: Application,
    listener: socket.socket,
    *,
    shutdown_timeout_s: float,
    ready: Callable[[], None],
    tls: TlsMaterial | None = None,
) -> int:
    """Answer requests that come to `listener` until SIGTERM; return the exit status.

    The application's lifespan must be answered; `ready` is called when its start-up is done. On SIGTERM no further
    connection is taken, and requests in flight have `shutdown_timeout_s` to end. On RETIRE the same, but connections
    that wait are left to the successor, and those that are being opened are opened first.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(application, listener, shutdown_timeout_s, ready, tls))


def run_background(
    start: Callable[[], Coroutine[Any, Any, None]], *, shutdown_timeout_s: float, ready: Callable[[], None]
) -> int:
    """Run a coroutine that goes on until it is cancelled, which SIGTERM does; return the exit status."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run_background(start, shutdown_timeout_s, ready))


class _Server(Server):
    """Granian in this process's own loop, on a socket that is there already."""

    def __init__(self, application: Application, listener: socket.socket, tls: TlsMaterial | None = None) -> None:
        host, port = listener.getsockname()[:2]
        self._tls = tls
        super().__init__(
            application,
            address=host,
            port=port,
            interface=Interfaces.ASGI,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(max_buffer_size=_BUFFER),
            websockets=False,
            backlog=BACKLOG,
            backpressure=_BACKPRESSURE,
            log_dictconfig=_GRANIAN_LOG,
            log_level=LogLevels.error,
        )
        self._listener = listener
        self._descriptor = listener.fileno()

    def build_ssl_context(self, *_: object, **__: object) -> None:
        """Say what the server takes for TLS: plain paths, which `_kept` makes of memory (Granian resolves them)."""
        tls = self._tls
        if tls is None:
            self.ssl_ctx = (False, None, None, None, "tls1.2", None, [], False)
            return
        authorities = _kept(tls.client_authorities) if tls.client_authorities else None
        required = tls.client_certificates is ClientCertificates.REQUIRED and authorities is not None
        certificate, key = _kept(tls.certificate), _kept(tls.key.reveal())
        version = f"tls{tls.minimum_version}"
        context: Any = (True, certificate, key, None, version, authorities, [], required)
        self.ssl_ctx = context  # its type is that of a server without TLS

    def accept_no_more(self) -> None:
        """Leave further connections to whoever else has the listening socket.

        Granian has no such word: its stop cuts TLS handshakes that are under way. So its descriptor becomes that of a
        socket where nobody ever knocks.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as nobodys:
            nobodys.bind("")  # a name of the kernel's choice (unix(7), autobind)
            nobodys.listen(1)
            os.dup2(nobodys.fileno(), self._descriptor, inheritable=False)

    def _init_shared_socket(self) -> None:
        # Granian takes the descriptor over and closes it when it stops listening.
        holder: Any = SocketHolder
        self._shd = holder(self._listener.detach(), False, BACKLOG)  # noqa: FBT003 - not a Unix socket


class _Lifespan:
    """An application that tells how its start-up went."""

    def __init__(self, application: Application, ready: Callable[[], None]) -> None:
        self._application = application
        self._ready = ready
        self.failure: BaseException | None = None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["type"] == "lifespan":
            return self._lifespan(scope, receive, send)
        return self._application(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def listening(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._ready()
            elif message["type"] == "lifespan.startup.failed":
                self.failure = StartFailedError(message.get("message", ""))
            await send(message)

        try:
            await self._application(scope, receive, listening)
        except BaseException as error:
            # Granian would take it for an application without a lifespan, and serve without having started it.
            self.failure = error
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise


def _kept(text: str) -> str:
    """Return the path of a file with this text that is in memory alone (memfd_create(2)), for this process."""
    descriptor = os.memfd_create("tls")
    with os.fdopen(os.dup(descriptor), "w", encoding="ascii") as file:
        file.write(text)
    return str(Path("/proc/self/fd") / str(descriptor))


async def _serve(
    application: Application,
    listener: socket.socket,
    shutdown_timeout_s: float,
    ready: Callable[[], None],
    tls: TlsMaterial | None,
) -> int:
    lifespan = _Lifespan(application, ready)
    server = _Server(lifespan, listener, tls)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    stopped = asyncio.Event()

    def stop() -> None:
        stopped.set()
        _end_after(shutdown_timeout_s)
        server.stop()  # type: ignore[no-untyped-call]  # Granian's own

    def retire() -> None:
        server.accept_no_more()
        loop.call_later(HANDSHAKES_END_WITHIN_S if tls else 0, stop)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(RETIRE, retire)
    await server.serve()
    if lifespan.failure is not None:
        raise lifespan.failure
    return 0 if stopped.is_set() else 1


async def _run_background(
    start: Callable[[], Coroutine[Any, Any, None]], shutdown_timeout_s: float, ready: Callable[[], None]
) -> int:
    task = asyncio.ensure_future(start())
    stopped = asyncio.Event()

    def stop() -> None:
        stopped.set()
        _end_after(shutdown_timeout_s)
        task.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    ready()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return 0 if stopped.is_set() else 1


def _end_after(timeout_s: float) -> None:
    """Have the kernel end this process when the time is over, whatever it is stuck in (SIGALRM's default action)."""
    signal.setitimer(signal.ITIMER_REAL, max(timeout_s, 0.001))
