"""Requests and responses as this room sees them, over plain ASGI.

Nothing here knows about registries. A handler takes a ``Request`` and returns one of the ``Response`` kinds; the
application in ``application.py`` sends it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

from roadstead.registry.pump import BodyBrokenError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

BODY_IDLE_S = 900.0
"""How long a client may be silent in the middle of a body. Buffering proxies turn a long PATCH into silence
(registry spec §2.7), so this is generous; it only has to free what a dead client holds."""


class Request:
    """One request: the path is decoded once, everything else is read when it is asked for."""

    __slots__ = ("__dict__", "_receive", "method", "path", "received", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.received = 0
        self._receive = receive

    def header(self, name: bytes) -> str | None:
        """Return the first header of that (lower-case) name."""
        for key, value in self.scope["headers"]:
            if key == name:
                return str(value, "latin-1")
        return None

    def headers(self, name: bytes) -> list[str]:
        """Return every header of that (lower-case) name."""
        return [str(value, "latin-1") for key, value in self.scope["headers"] if key == name]

    @cached_property
    def query(self) -> dict[str, list[str]]:
        """Return the query's parameters; a name may come several times."""
        found: dict[str, list[str]] = {}
        raw = self.scope["query_string"]
        if raw:
            for name, value in parse_qsl(str(raw, "latin-1"), keep_blank_values=True, max_num_fields=256):
                found.setdefault(name, []).append(value)
        return found

    def parameter(self, name: str) -> str | None:
        """Return the first parameter of that name."""
        values = self.query.get(name)
        return values[0] if values else None

    @cached_property
    def announced(self) -> int | None:
        """Return the body's length in bytes as Content-Length says; None for a chunked body."""
        text = self.header(b"content-length")
        if text is not None:
            # The server has refused a length that isn't a number before the request came here.
            return int(text)
        return None if self.header(b"transfer-encoding") else 0

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes; raises BodyBrokenError when the client goes away before its end.

        A broken body can look like its end (decision 0001), so a body shorter than announced is broken too.
        """
        more = self.announced != 0
        while more:
            message = await self._next()
            if message["type"] != "http.request":
                raise BodyBrokenError(self.received)
            data = message.get("body", b"")
            more = message.get("more_body", False)
            if data:
                self.received += len(data)
                yield data
        if self.announced is not None and self.received < self.announced:
            raise BodyBrokenError(self.received)

    async def _next(self) -> MutableMapping[str, Any]:
        try:
            async with asyncio.timeout(BODY_IDLE_S):
                return await self._receive()
        except TimeoutError as error:
            raise BodyBrokenError(self.received) from error


@dataclass(slots=True)
class Response:
    """An answer whose body is at hand; ``content_length`` for HEAD, where no body is sent."""

    status: int
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    content_length: int | None = None


@dataclass(slots=True)
class StreamResponse:
    """An answer of known length whose body comes in pieces; the client's pace holds the reading back."""

    status: int
    headers: list[tuple[bytes, bytes]]
    pieces: AsyncGenerator[bytes, None]
    content_length: int


@dataclass(slots=True)
class FileResponse:
    """An answer that is a whole file, sent by the server itself."""

    status: int
    headers: list[tuple[bytes, bytes]]
    path: str
    content_length: int


AnyResponse = Response | StreamResponse | FileResponse
