"""The ASGI application: find the route, run its handler, send what it gives, tell the observer."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

from roadstead.errors import RoadsteadError
from roadstead.http.asgi import (
    BODY_IDLE_S,
    AnyResponse,
    FileResponse,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    StreamResponse,
)
from roadstead.http.context import Services
from roadstead.http.errors import respond
from roadstead.http.forwarded import TrustedProxies
from roadstead.http.hosts import Hosts
from roadstead.http.outside import Outside
from roadstead.http.routes import MethodUnknownError, Route, Router
from roadstead.http.upstreams import answered_for, asked_by, check_writable, routed
from roadstead.http.wave import pulls
from roadstead.http.wave.door import TokenRights
from roadstead.registry.pump import BodyBrokenError

API_VERSION = (b"docker-distribution-api-version", b"registry/2.0")
CLOSE = (b"connection", b"close")
_HEAD = (API_VERSION,)
_LAST_HEAD = (API_VERSION, CLOSE)
CLIENT_GONE = 499
_WITHOUT_LENGTH = (204, 304)  # RFC 9110 §8.6: 204 must not carry one; 304's would be that of a body nobody sends


@dataclass(slots=True)
class Finished:
    """One request, when it is over: what the access log and the metrics tell of it."""

    request: Request
    route: str
    status: int
    started: float  # perf_counter
    sent: int = 0  # bytes of the body
    error: str | None = None
    reason: str | None = None  # what the error says, for the operator

    @property
    def duration_s(self) -> float:
        """Return how long it has taken by now, in seconds."""
        return perf_counter() - self.started


class Observer(Protocol):
    """Somebody who wants to know of every request; must not raise, and costs every request what it takes."""

    def began(self) -> None:
        """Take note of a request that has come in."""
        ...

    def finished(self, finished: Finished) -> None:
        """Take note of a request that is over."""
        ...

    def failed(self, finished: Finished, error: BaseException) -> None:
        """Take note of an error that isn't one of ours: somebody has to look at it."""
        ...


class Application:
    """ASGI 3: HTTP and lifespan. The services are opened at start-up and closed after the last request."""

    def __init__(
        self,
        router: Router,
        open_services: Callable[[], AbstractAsyncContextManager[Services]],
        observer: Observer,
        outside: Outside | None = None,
        proxies: TrustedProxies | None = None,
        *,
        hosts: Hosts | None = None,
        body_idle_s: float = BODY_IDLE_S,
    ) -> None:
        self._hosts = hosts
        self._body_idle_s = body_idle_s
        self._router = router
        self._outside = outside or Outside()
        self._proxies = proxies or None
        self._open_services = open_services
        self._observer = observer
        self._services: Services | None = None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Serve one request, or the life of the server."""
        if scope["type"] == "lifespan":
            return self._live(receive, send)
        if self._proxies is not None:
            self._proxies.see_through(scope)
        return self._serve(Request(scope, receive, self._body_idle_s), receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with self._open_services() as services:
                self._services = services
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, request: Request, receive: Receive, send: Send) -> None:
        finished = Finished(request, "none", 500, perf_counter())
        self._observer.began()
        try:
            response = await self._respond(request, finished)
            head = _HEAD if request.is_over or await request.drain() else _LAST_HEAD
            # Most broken bodies are of clients that are gone; one whose chunks can't be read hears our answer.
            finished.status = CLIENT_GONE if request.is_broken else response.status
            headers = [*head, *response.headers]
            if not self._outside.is_plain:
                headers = self._outside.dressed(headers)
            await _send(request, response, headers, receive, send, finished)
        except asyncio.CancelledError:
            finished.status = CLIENT_GONE
            raise
        except BodyBrokenError:
            finished.status = CLIENT_GONE
        except Exception as error:
            # The head is out: all that is left is to cut the connection, so that nobody takes a part for the whole.
            finished.error = type(error).__name__
            self._observer.failed(finished, error)
            raise
        finally:
            self._observer.finished(finished)

    async def _respond(self, request: Request, finished: Finished) -> AnyResponse:
        tell: Callable[[BaseException], Response] = respond
        try:
            path = self._outside.inside(request.path)
            route, found = self._router.match(request.method, path)
            finished.route = route.name
            tell = route.tell or respond
            if self._hosts is not None and route.is_for_clients:
                self._hosts.check(request)
            services = self._services
            if services is not None:
                if not services.gate.is_open and path.startswith("/v2"):
                    await services.gate.check()
                if services.limits is not None:
                    return await services.limits.serve(request, route, found, services, _admitted, _handled)
                found = await _admitted(request, route, found, services)
                return await _handled(request, route, found, services)
            return await route.handler(request, found, services)
        except MethodUnknownError as error:
            finished.error = None if request.method == "OPTIONS" else type(error).__name__
            return _options(error) if request.method == "OPTIONS" else tell(error)
        except RoadsteadError as error:
            finished.error = type(error).__name__
            finished.reason = str(error)
            return tell(error)
        except BodyBrokenError:
            raise
        except Exception as error:  # noqa: BLE001 -- the outermost place: an answer, a log line, and on we go
            finished.error = type(error).__name__
            self._observer.failed(finished, error)
            return tell(error)


async def _admitted(request: Request, route: Route, found: Mapping[str, str], services: Services) -> Mapping[str, str]:
    """Return what a path says, once it is known that the caller may have it."""
    if services.containers is not None and found.get("name", "").startswith(pulls.BEGINNING):
        return await pulls.admitted(request, route, found, services)
    if services.proxy is not None:
        found = await routed(request, found, services)
    if services.guard is not None:
        await services.guard.admit(request, route, found, asked=asked_by(found))
    if services.proxy is not None:
        check_writable(found)
    return found


async def _handled(request: Request, route: Route, found: Mapping[str, str], services: Services) -> AnyResponse:
    if isinstance(request.rights, TokenRights):
        return await pulls.handled(request, route, found, services)
    response = await route.handler(request, found, services)
    return response if services.proxy is None else answered_for(response, found)


def _options(error: MethodUnknownError) -> Response:
    """Say what is served here: browsers ask before they let a page of another origin read (Fetch, CORS preflight)."""
    return Response(200, [(b"allow", ", ".join(error.allowed).encode())])


async def _send(
    request: Request,
    response: AnyResponse,
    headers: list[tuple[bytes, bytes]],
    receive: Receive,
    send: Send,
    finished: Finished,
) -> None:
    match response:
        case Response(body=body, content_length=length):
            head_only = request.method == "HEAD"
            size = length if length is not None else len(body)
            if response.status not in _WITHOUT_LENGTH:
                headers.append((b"content-length", b"%d" % size))
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if head_only else body})
            finished.sent = 0 if head_only else len(body)
        case FileResponse(path=path, content_length=size):
            headers.append((b"content-length", b"%d" % size))
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            await send({"type": "http.response.pathsend", "path": path})
            finished.sent = size
        case StreamResponse():
            headers.append((b"content-length", b"%d" % response.content_length))
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            await _send_pieces(response, receive, send, finished)


async def _send_pieces(response: StreamResponse, receive: Receive, send: Send, finished: Finished) -> None:
    """Send the pieces until the body is out or the client is gone; only ``receive`` tells of that (decision 0001)."""
    gone = asyncio.ensure_future(_gone(receive))
    try:
        async with aclosing(response.pieces) as pieces:
            async for piece in pieces:
                if gone.done():
                    raise BodyBrokenError(finished.sent)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                finished.sent += len(piece)
        await send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
