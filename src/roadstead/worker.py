"""What the children of the supervisor do: serve an ASGI application with Granian, or run the background's loops.

Docs: docs/decisions/0001-server.md says why Granian, ASGI and these options.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, Final

import uvloop
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from roadstead.supervisor import BACKLOG

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

_BUFFER: Final = 1 << 20  # bytes of a request's body that come in one piece at the most
_BACKPRESSURE: Final = 8192  # connections a worker holds open, idle ones included
_GRANIAN_LOG: Final[dict[str, Any]] = {
    "handlers": {},
    "loggers": {"_granian": {"handlers": [], "propagate": True}, "granian.access": {"handlers": [], "propagate": True}},
}


class StartFailedError(Exception):
    """The application's start-up (ASGI lifespan) failed; the log has the reason."""


def serve(
    application: Application, listener: socket.socket, *, shutdown_timeout_s: float, ready: Callable[[], None]
) -> int:
    """Answer requests that come to `listener` until SIGTERM; return the exit status.

    The application's lifespan must be answered; `ready` is called when its start-up is done. On SIGTERM no further
    connection is taken, and requests in flight have `shutdown_timeout_s` to end.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(application, listener, shutdown_timeout_s, ready))


def run_background(
    start: Callable[[], Coroutine[Any, Any, None]], *, shutdown_timeout_s: float, ready: Callable[[], None]
) -> int:
    """Run a coroutine that goes on until it is cancelled, which SIGTERM does; return the exit status."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run_background(start, shutdown_timeout_s, ready))


class _Server(Server):
    """Granian in this process's own loop, on a socket that is there already."""

    def __init__(self, application: Application, listener: socket.socket) -> None:
        host, port = listener.getsockname()[:2]
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


async def _serve(
    application: Application, listener: socket.socket, shutdown_timeout_s: float, ready: Callable[[], None]
) -> int:
    lifespan = _Lifespan(application, ready)
    server = _Server(lifespan, listener)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    stopped = asyncio.Event()

    def stop() -> None:
        stopped.set()
        _end_after(shutdown_timeout_s)
        server.stop()  # type: ignore[no-untyped-call]  # Granian's own

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
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
