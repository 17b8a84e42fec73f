"""The API's place in the table of routes: all below ``/api/`` goes to one application, made when it is asked for.

Litestar costs a worker half a second and 12 MiB, and most never serve a request of the API: it is loaded with the
first one, in a thread, so that pulls go on meanwhile (docs/decisions/0026-api.md).
"""

import asyncio
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from roadstead.http.api import errors
from roadstead.http.asgi import Request, Response
from roadstead.http.bodies import read_whole
from roadstead.http.context import Services
from roadstead.http.routes import Route

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "CONNECT")
"""All that HTTP knows: which of them an operation has, the application says."""

MAX_BODY = 64 << 10

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "QUERY"})
_HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


class Mount:
    """Hands requests to the application of the API, and its answers back."""

    def __init__(self) -> None:
        self._application: Any = None
        self._making = asyncio.Lock()

    def routes(self) -> Sequence[Route]:
        """Return the lines of the table."""
        return (Route("api", METHODS, "/api/{rest}", self.serve, tell=errors.respond),)

    async def serve(self, request: Request, found: Mapping[str, str], services: Services) -> Response:
        """Answer a request; the application raises what goes wrong, as handlers of `/v2/` do."""
        if not services.gate.is_open:
            await services.gate.check()
        if request.method not in _SAFE:
            check_origin(request, services.administration.origin)
        body = await read_whole(request, "request", max_bytes=MAX_BODY)
        if body and request.method not in _SAFE:
            _check_media_type(request)
        answer = _Answer()
        scope = _scope(request, f"/api/{found['rest']}", services)
        await (await self._made())(scope, _Body(body).receive, answer.send)
        failed = scope["state"].get("failed")
        if failed is not None:
            raise failed
        return Response(answer.status, [*answer.headers, *_HEADERS], bytes(answer.body))

    async def _made(self) -> Any:
        if self._application is None:
            async with self._making:
                if self._application is None:
                    self._application = await asyncio.to_thread(_make)
        return self._application


def _make() -> Any:
    # Half a second, which only those wait for who ask the API first (see above).
    from roadstead.http.api.application import build_application

    return build_application()


def check_origin(request: Request, public: str) -> None:
    """Refuse what a browser sends for a page of another origin: it may add a password that it remembers (Basic).

    Programs send neither header. Raises OriginForeignError.
    """
    site = request.header(b"sec-fetch-site")
    origin = request.header(b"origin")
    if origin is None:
        if site not in (None, "same-origin", "none"):
            raise errors.OriginForeignError(site)
        return
    host = (request.header(b"host") or "").lower()
    # A proxy may have ended TLS, so the schemes may differ; hosts with their ports may not.
    if _host(origin) not in {host, _host(public)} - {""}:
        raise errors.OriginForeignError(origin)


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _check_media_type(request: Request) -> None:
    said = request.header(b"content-type")
    if said is None or said.partition(";")[0].strip().lower() != "application/json":
        raise errors.MediaTypeUnknownError(said)


def _scope(request: Request, path: str, services: Services) -> MutableMapping[str, Any]:
    """Return what the application is told of a request; HEAD is GET without its body, which the server leaves out."""
    scope = dict(request.scope)
    scope.update(
        method="GET" if request.method == "HEAD" else request.method,
        path=path,
        raw_path=path.encode(),
        root_path="",
        state={"request": request, "services": services},
    )
    return scope


class _Body:
    """A body that is at hand."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def receive(self) -> dict[str, Any]:
        body, self._body = self._body, b""
        return {"type": "http.request", "body": body, "more_body": False}


class _Answer:
    """An answer as it comes."""

    def __init__(self) -> None:
        self.status = 500
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()

    async def send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = [pair for pair in message["headers"] if pair[0].lower() != b"content-length"]
        else:
            self.body += message.get("body", b"")
