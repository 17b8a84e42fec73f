"""Requests and responses as this room sees them, over plain ASGI.

Nothing here knows about registries. A handler takes a ``Request`` and returns one of the ``Response`` kinds; the
application in ``application.py`` sends it.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from roadstead.errors import InvalidError
from roadstead.http.rights import EVERYTHING, Rights
from roadstead.registry.pump import BodyBrokenError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

BODY_IDLE_S = 900.0
"""How long a client may be silent in the middle of a body, unless settings say otherwise. Buffering proxies turn a
long PATCH into silence (registry spec §2.7), so this is generous; it only has to free what a dead client holds."""

MAX_PARAMETERS = 256

DRAIN_BYTES = 256 << 10
"""Of a body that nobody wants (the name was wrong, the session unknown) this much is read, so that the connection can
go on: a client that has sent it already would otherwise find its next request cut. More isn't worth reading."""

DRAIN_S = 5.0


class ParametersTooManyError(InvalidError):
    """The query has more parameters than any request needs (414)."""

    def __init__(self) -> None:
        super().__init__(f"the query has more than {MAX_PARAMETERS} parameters")


def peer_address(address: str) -> str:
    """Return the address of the other end of a socket, IPv4 as such where the socket takes both (``::ffff:127.0.0.1``).

    Pure.
    """
    return address.removeprefix("::ffff:")


class Request:
    """One request: the path is decoded once, everything else is read when it is asked for."""

    rights: Rights
    """What the sender may do: set where access is controlled, before the handler sees the request."""

    __slots__ = (
        "_body_idle_s",
        "_ended",
        "_first",
        "_query",
        "_receive",
        "is_broken",
        "method",
        "path",
        "received",
        "rights",
        "scope",
    )

    def __init__(self, scope: Scope, receive: Receive, body_idle_s: float = BODY_IDLE_S) -> None:
        self.scope = scope
        self._body_idle_s = body_idle_s
        self.rights = EVERYTHING
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.received = 0
        self._receive = receive
        self._first: dict[bytes, bytes] | None = None
        self._query: dict[str, list[str]] | None = None
        self.is_broken = False
        self._ended = False

    @property
    def client(self) -> str | None:
        """Return the address of the other end."""
        client = self.scope.get("client")
        return None if client is None else peer_address(str(client[0]))

    @property
    def scheme(self) -> str:
        """Return how the client speaks to us, ``http`` or ``https``, as far as we or a trusted proxy know."""
        scheme: str = self.scope.get("scheme") or "http"
        return scheme

    def header(self, name: bytes) -> str | None:
        """Return the first header of that (lower-case) name."""
        value = self.first_headers().get(name)
        return None if value is None else str(value, "latin-1")

    def octets(self, name: bytes) -> bytes | None:
        """Return the first header of that (lower-case) name, as it came."""
        return self.first_headers().get(name)

    def headers(self, name: bytes) -> list[str]:
        """Return every header of that (lower-case) name."""
        if name not in self.first_headers():
            return []
        return [str(value, "latin-1") for key, value in self.scope["headers"] if key == name]

    def first_headers(self) -> Mapping[bytes, bytes]:
        """Return the first header of each (lower-case) name: handlers ask for four or five, most not there."""
        if self._first is None:
            self._first = dict(reversed(self.scope["headers"]))
        return self._first

    @property
    def query(self) -> dict[str, list[str]]:
        """Return the query's parameters; a name may come several times. Raises ParametersTooManyError."""
        if self._query is None:
            self._query = _parsed(self.scope["query_string"])
        return self._query

    def parameter(self, name: str) -> str | None:
        """Return the first parameter of that name."""
        values = self.query.get(name)
        return values[0] if values else None

    @property
    def announced(self) -> int | None:
        """Return the body's length in bytes as Content-Length says; None for a chunked body."""
        text = self.header(b"content-length")
        if text is not None:
            # The server has refused a length that isn't a number before the request came here.
            return int(text)
        return None if self.header(b"transfer-encoding") else 0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes; raises BodyBrokenError when the client goes away before its end.

        A broken body can look like its end (decision 0001), so a body shorter than announced is broken too.
        """
        more = self.announced != 0
        while more:
            message = await self._next()
            if message["type"] != "http.request":
                raise self._broken()
            data = message.get("body", b"")
            more = message.get("more_body", False)
            self._ended = not more
            if data:
                self.received += len(data)
                yield data
        if self.announced is not None and self.received < self.announced:
            raise self._broken()

    @property
    def is_over(self) -> bool:
        """Tell whether all of the request has been read."""
        return not self.is_broken and (self._ended or self.announced == 0)

    async def drain(self) -> bool:
        """Read a short rest of the body that no handler wanted; False where there is more: then the connection ends."""
        if self.is_over:
            return True
        if self.is_broken:
            return False
        if self.header(b"expect") or (self.announced or 0) - self.received > DRAIN_BYTES:
            return False
        most = self.received + DRAIN_BYTES
        with suppress(TimeoutError, BodyBrokenError):
            async with asyncio.timeout(DRAIN_S), aclosing(self.chunks()) as rest:
                async for _ in rest:
                    if self.received > most:
                        break
        return self._ended

    def _broken(self) -> BodyBrokenError:
        self.is_broken, self._ended = True, False
        return BodyBrokenError(self.received)

    async def _next(self) -> MutableMapping[str, Any]:
        try:
            async with asyncio.timeout(self._body_idle_s):
                return await self._receive()
        except TimeoutError as error:
            raise self._broken() from error


def _parsed(query: bytes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    if query:
        text = str(query, "latin-1")
        if text.count("&") >= MAX_PARAMETERS:
            raise ParametersTooManyError
        for name, value in parse_qsl(text, keep_blank_values=True):
            found.setdefault(name, []).append(value)
    return found


@dataclass(slots=True)
class Response:
    """An answer whose body is at hand; ``content_length`` for HEAD, where no body is sent."""

    status: int
    headers: Headers = ()
    body: bytes = b""
    content_length: int | None = None


@dataclass(slots=True)
class StreamResponse:
    """An answer of known length whose body comes in pieces; the client's pace holds the reading back."""

    status: int
    headers: Headers
    pieces: AsyncGenerator[bytes, None]
    content_length: int


@dataclass(slots=True)
class FileResponse:
    """An answer that is a whole file, sent by the server itself."""

    status: int
    headers: Headers
    path: str
    content_length: int


AnyResponse = Response | StreamResponse | FileResponse
