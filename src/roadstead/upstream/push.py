"""One blob on its way to a registry (distribution-spec end-4 to end-6, end-11, end-13)."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.upstream.errors import (
    BadAnswerError,
    RateLimitedError,
    UnreachableError,
    UpstreamDeniedError,
    UpstreamNotFoundError,
    UpstreamRefusedError,
)
from roadstead.upstream.ports import Source
from roadstead.upstream.session import Call, Session
from roadstead.upstream.transport import Transport, follow

if TYPE_CHECKING:
    # For its types only: it is imported with the first request.
    from roadstead.upstream.wire import Answer

CHUNK = 32 << 20
"""Bytes of a chunk, where a registry, or a proxy before it, won't take a blob whole."""

_BINARY = "application/octet-stream"


@dataclass(slots=True)
class Upload:
    """An upload session at a registry, made anew when it gets lost."""

    session: Session
    transport: Transport
    repository: RepositoryName
    digest: Digest
    size: int
    source: Source
    _url: str = ""
    _position: int = 0
    """How much the registry has, as far as it has said."""

    _chunk: int | None = None
    """Bytes a request may carry; None: all at once."""

    async def start(self, mount_from: RepositoryName | None = None) -> bool:
        """Begin; False if the registry had the blob in *mount_from* and gave it to us, so that there's nothing to do.

        A registry that doesn't mount, or not for us, is asked for a plain session.
        """
        if mount_from is not None and mount_from != self.repository:
            try:
                return await self._begin(mount_from)
            except (UpstreamDeniedError, UpstreamNotFoundError, UpstreamRefusedError):
                pass
        return await self._begin(None)

    async def run(self, present: Callable[[], Awaitable[int | None]]) -> None:
        """Send the bytes; *present* tells whether the blob got there although the answer didn't get here."""
        failures, reached = 0, 0
        while True:
            try:
                await self._send()
                return
            except (UnreachableError, RateLimitedError) as error:
                if error.host != self.session.host:
                    raise  # the source's own trouble, which it has tried to get over
                failed: UnreachableError | RateLimitedError = error
            except UpstreamNotFoundError as error:
                failed = UnreachableError(self.session.host, f"the upload session is gone: {error}")
            except UpstreamRefusedError as error:
                failed = self._adapted(error)
            failures = 1 if self._position > reached else failures + 1
            reached = max(reached, self._position)
            if not await self.transport.wait(failures, failed):
                raise failed
            if await present() is not None:
                return
            await self._resume()

    def _adapted(self, error: UpstreamRefusedError) -> UnreachableError:
        """Return what to try again: with chunks, or from another offset. Raises the refusal if it can't be helped."""
        if error.status == 413 and self._chunk is None:
            self._chunk = CHUNK
        elif error.status != 416:
            raise error
        return UnreachableError(self.session.host, str(error))

    async def _begin(self, mount_from: RepositoryName | None) -> bool:
        query, scopes = "", self._scopes()
        if mount_from is not None:
            query = "?" + urlencode({"mount": str(self.digest), "from": str(mount_from)}, safe=":/")
            scopes |= {f"repository:{mount_from}:pull"}
        path = f"/v2/{self.repository}/blobs/uploads/{query}"
        call = Call(
            "POST",
            path,
            f"an upload to {self.repository}",
            scopes,
            str(self.repository),
            {"Content-Length": "0"},
            accepted=(201, 202),
        )
        async with self.session.request(call) as answer:
            if answer.status == 201 and mount_from is not None:
                return False
            self._position = 0
            self._take_location(answer)
            least = answer.headers.get("OCI-Chunk-Min-Length", "")
            if self._chunk is not None and least.isascii() and least.isdecimal():
                self._chunk = max(self._chunk, int(least))
            return True

    async def _send(self) -> None:
        if self._position == 0 and (self._chunk is None or self.size <= self._chunk):
            async with aclosing(self.source(0)) as pieces:
                await self._put(pieces, self.size)
            return
        async with aclosing(self.source(self._position)) as pieces:
            reader = _Reader(pieces)
            while self._position < self.size:
                length = min(self._chunk or self.size, self.size - self._position)
                await self._patch(reader, length)
        await self._put(None, 0)

    async def _put(self, pieces: AsyncGenerator[bytes, None] | None, size: int) -> None:
        """Send what is left and have the blob committed (end-6)."""
        url = f"{self._url}{'&' if '?' in self._url else '?'}{urlencode({'digest': str(self.digest)}, safe=':')}"
        call = self._call("PUT", url, pieces, size, {}, (200, 201, 204))
        async with self.session.request(call):
            pass

    async def _patch(self, reader: "_Reader", length: int) -> None:
        """Send a chunk (end-5)."""
        span = {"Content-Range": f"{self._position}-{self._position + length - 1}"}
        call = self._call("PATCH", self._url, reader.take(length), length, span, (200, 201, 202, 204))
        async with self.session.request(call) as answer:
            self._take_location(answer)
            reached = _reached(answer)
            if reached is not None and reached != self._position + length:
                raise UnreachableError(self.session.host, f"it took {reached - self._position} bytes of {length}")
            self._position += length

    def _call(
        self,
        method: str,
        url: str,
        pieces: AsyncGenerator[bytes, None] | None,
        size: int,
        headers: dict[str, str],
        accepted: tuple[int, ...],
    ) -> Call:
        # Only who has bytes to send needs the module that sends them.
        from roadstead.upstream.wire import Body

        body = Body(pieces, size) if pieces is not None and size else b""
        what = f"the blob {self.repository}@{self.digest}"
        typed = {"Content-Type": _BINARY, **headers}
        return Call(method, url, what, self._scopes(), str(self.repository), typed, body, accepted)

    async def _resume(self) -> None:
        """Find out how far the session has got (end-13), or begin another."""
        call = Call(
            "GET",
            self._url,
            f"the upload to {self.repository}",
            self._scopes(),
            str(self.repository),
            accepted=(204, 200),
        )
        try:
            async with self.session.request(call) as answer:
                reached = _reached(answer)
                # One byte and none are both written 0-0.
                if reached is not None and 1 < reached <= self.size:
                    self._take_location(answer)
                    self._position = reached
                    return
        except (UpstreamNotFoundError, UpstreamRefusedError, UpstreamDeniedError, BadAnswerError):
            pass
        await self._begin(None)

    def _take_location(self, answer: "Answer") -> None:
        location = answer.headers.get("Location")
        if location is None and not self._url:
            raise BadAnswerError(self.session.host, "an upload without a Location")
        if location is not None:
            self._url = follow(self.session.host, self.session.address.url, answer.url, location)

    def _scopes(self) -> frozenset[str]:
        return frozenset({f"repository:{self.repository}:pull,push"})


class _Reader:
    """Cuts a source's pieces into chunks."""

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        self._pieces = pieces
        self._left = b""

    async def take(self, size: int) -> AsyncGenerator[bytes, None]:
        """Yield the next *size* bytes, fewer where the source ends."""
        while size > 0:
            piece = self._left or await anext(self._pieces, b"")
            if not piece:
                return
            taken, self._left = piece[:size], piece[size:]
            size -= len(taken)
            yield taken


def _reached(answer: "Answer") -> int | None:
    """Return how many bytes ``Range: 0-LAST`` says were taken; None if it doesn't say."""
    first, _, last = answer.headers.get("Range", "").strip().removeprefix("bytes=").partition("-")
    return int(last) + 1 if first == "0" and last.isascii() and last.isdecimal() else None
