"""Requests and answers over aiohttp: the one module that knows it. Import it where a connection is needed, it costs.

Whatever goes wrong on the wire is an UnreachableError; nothing here follows redirects, tries again or knows who we are.
"""

import asyncio
import re
import socket
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDictProxy
from yarl import URL

from roadstead.upstream.egress import EgressPolicy, check_public
from roadstead.upstream.errors import AddressForbiddenError, BadAnswerError, OtherProtocolError, UnreachableError
from roadstead.upstream.transport import masked

READ_BUFFER = 256 << 10
"""Bytes that wait in a connection before the sender is held up; a piece is twice that at the most."""

CONNECT_TIMEOUT_S = 20.0
READ_TIMEOUT_S = 60.0
"""Without a byte for so long an answer is taken for broken."""

COMMIT_TIMEOUT_S = 900.0
"""A registry over an object store may take minutes to put a large blob in its place before it answers."""

STALL_TIMEOUT_S = 60.0
"""Without a byte taken for so long an upload is taken for broken."""


class Answer:
    """An answer whose body hasn't been read yet."""

    def __init__(self, host: str, url: str, response: aiohttp.ClientResponse) -> None:
        self.host = host
        self.url = url
        self.status = response.status
        self._response = response

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """Return the headers; names are compared without case."""
        return self._response.headers

    @property
    def size(self) -> int | None:
        """Return what ``Content-Length`` says, in bytes."""
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdecimal() else None

    @property
    def media_type(self) -> str:
        """Return ``Content-Type`` without its parameters, in lower case; empty if there is none."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives. Raises UnreachableError when it breaks off."""
        try:
            async for piece in self._response.content.iter_any():
                yield piece
        except _BROKEN as error:
            raise UnreachableError(self.host, f"the answer broke off: {_reason(error)}") from error

    async def read(self, max_bytes: int) -> bytes:
        """Return the whole body, unpacked if it came as gzip. Raises BadAnswerError when it's larger."""
        body = bytearray()
        async for piece in self.pieces():
            body += piece
            if len(body) > max_bytes:
                raise BadAnswerError(self.host, f"an answer of more than {max_bytes} bytes")
        if body and self.headers.get("Content-Encoding", "").lower() in {"gzip", "x-gzip"}:
            # We never ask for it; some send lists so all the same.
            return self._unpacked(body, max_bytes)
        return bytes(body)

    async def read_start(self, max_bytes: int) -> bytes:
        """Return the beginning of the body, for a message; what breaks off is left at that."""
        body = bytearray()
        try:
            async for piece in self.pieces():
                body += piece
                if len(body) >= max_bytes:
                    break
        except UnreachableError:
            pass
        return bytes(body[:max_bytes])

    def _unpacked(self, body: bytearray, max_bytes: int) -> bytes:
        unpacker = zlib.decompressobj(wbits=31)
        try:
            unpacked = unpacker.decompress(body, max_bytes)
        except zlib.error as error:
            raise BadAnswerError(self.host, "an answer that says it is gzip and isn't") from error
        if unpacker.unconsumed_tail:
            raise BadAnswerError(self.host, f"an answer of more than {max_bytes} bytes")
        return unpacked


class Body:
    """A request's body of a known size, read from *pieces* as the connection takes it.

    ``error`` is what *pieces* raised: then the request fails, and that is why.
    """

    def __init__(self, pieces: AsyncGenerator[bytes, None], size: int) -> None:
        self.size = size
        self.error: Exception | None = None
        self._pieces = pieces
        self._writer: asyncio.Task[Any] | None = None

    async def sent(self, stall: asyncio.Timeout) -> AsyncGenerator[bytes, None]:
        """Yield the pieces; *stall* runs only while the other side is to take one."""
        self._writer = asyncio.current_task()
        left = self.size
        try:
            async for piece in self._pieces:
                left -= len(piece)
                if left < 0:
                    raise ValueError(f"the source gave {-left} bytes more than the {self.size} announced")
                _reschedule(stall, STALL_TIMEOUT_S)
                yield piece
                _reschedule(stall, None)
            if left:
                raise ValueError(f"the source gave {left} bytes less than the {self.size} announced")
        except Exception as error:
            self.error = error
            raise
        finally:
            _reschedule(stall, None)

    async def close(self) -> None:
        """Read no more of the source: an answer may have come before the body was sent."""
        if self._writer is not None and not self._writer.done():
            self._writer.cancel()
            await asyncio.wait([self._writer])
        await self._pieces.aclose()


def _reschedule(timeout: asyncio.Timeout, seconds: float | None) -> None:
    """Have the timeout end *seconds* from now, or never; one that is over stays so."""
    with suppress(RuntimeError):
        timeout.reschedule(None if seconds is None else asyncio.get_running_loop().time() + seconds)


class Wire:
    """A pool of connections. With *egress* only to public addresses, whatever a name says."""

    def __init__(self, *, tls: ssl.SSLContext, egress: EgressPolicy | None, user_agent: str) -> None:
        self._egress = egress
        connector = aiohttp.TCPConnector(
            limit=0,  # who calls bounds what runs at once; a limit here could have a copy wait for itself
            ssl=tls,
            resolver=_PublicResolver() if egress is not None else None,
            use_dns_cache=egress is None,
            socket_factory=public_socket if egress is not None else None,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": user_agent, "Accept-Encoding": "identity"},
            read_bufsize=READ_BUFFER,
            trust_env=False,  # it would also read credentials from ~/.netrc
        )

    @asynccontextmanager
    async def exchange(
        self, method: str, url: str, host: str, headers: Mapping[str, str], body: bytes | Body | None, proxy: str | None
    ) -> AsyncIterator[Answer]:
        """Send one request, give its answer. Raises UnreachableError, AddressForbiddenError, what *body* does."""
        if self._egress is not None:
            self._egress.check_host(_hostname(url))
        streamed = body if isinstance(body, Body) else None
        try:
            response = await self._respond(method, url, host, headers, body, proxy)
            try:
                yield Answer(host, url, response)
            finally:
                # What wasn't read to its end isn't worth reading: the connection goes, not the wait.
                if response.content.at_eof() and (streamed is None or response.status < 300):
                    response.release()
                else:
                    response.close()
        finally:
            if streamed is not None:
                await streamed.close()

    async def _respond(
        self, method: str, url: str, host: str, headers: Mapping[str, str], body: bytes | Body | None, proxy: str | None
    ) -> aiohttp.ClientResponse:
        streamed = body if isinstance(body, Body) else None
        try:
            async with asyncio.timeout(None) as stall:
                return await self._session.request(
                    method,
                    URL(url, encoded=True),
                    headers={**headers, "Content-Length": str(streamed.size)} if streamed else headers,
                    data=streamed.sent(stall) if streamed else body,
                    allow_redirects=False,
                    proxy=proxy,
                    timeout=aiohttp.ClientTimeout(
                        total=None,
                        sock_connect=CONNECT_TIMEOUT_S,
                        sock_read=READ_TIMEOUT_S if body is None else COMMIT_TIMEOUT_S,
                    ),
                )
        except _BROKEN as error:
            if streamed is not None:
                await streamed.close()
                if streamed.error is not None:
                    raise streamed.error from error
            if forbidden := _forbidden(error):
                raise forbidden from error
            if _is_other_protocol(error):
                raise OtherProtocolError(host, over_tls=url.startswith("https:")) from error
            raise UnreachableError(host, _reason(error), lasting=_is_lasting(error)) from error

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()


_ADDRESS = re.compile(r"https?://[^\s'\"]++")
_NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
_TLS_ALERT = r"\x15\x03"
"""How aiohttp shows the beginning of an alert (RFC 8446 §5.1) that it took for a status line."""

_BROKEN = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


class _ForbiddenAddressError(OSError):
    """Carries our error through aiohttp, which tries the next address after an OSError."""

    def __init__(self, error: AddressForbiddenError) -> None:
        super().__init__(str(error))
        self.error = error


class _PublicResolver(AbstractResolver):
    """Resolves names as the system does, and refuses those of which any address isn't public."""

    def __init__(self) -> None:
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        for result in found:
            check_public(host, result["host"])
        return found

    async def close(self) -> None:
        await self._resolver.close()


def public_socket(address: tuple[Any, ...]) -> socket.socket:
    """Make a socket for one of ``getaddrinfo``'s results; refuse one that isn't public. Nothing connects past this."""
    family, kind, protocol, _, target = address
    try:
        check_public(str(target[0]), str(target[0]))
    except AddressForbiddenError as error:
        raise _ForbiddenAddressError(error) from error
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)  # noqa: FBT003
    return made


def _forbidden(error: BaseException) -> AddressForbiddenError | None:
    inner = getattr(error, "os_error", error)
    return inner.error if isinstance(inner, _ForbiddenAddressError) else None


def _hostname(url: str) -> str:
    return URL(url, encoded=True).host or ""


def _reason(error: BaseException) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return f"no safe connection: {error}"
        case aiohttp.ClientConnectorDNSError():
            return f"its name isn't known: {error.os_error.strerror or error.os_error}"
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection without an answer"
        case aiohttp.ClientConnectorError():
            return f"no connection: {error.os_error.strerror or error.os_error}"
        case TimeoutError():
            return "it didn't answer in time"
        case _:
            return _ADDRESS.sub(lambda found: masked(found[0]), " ".join(str(error).split())) or type(error).__name__


def _is_other_protocol(error: BaseException) -> bool:
    """Tell whether TLS met plain HTTP: a record where a status line should be, or the other way round."""
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return any(sign in str(error) for sign in _NOT_TLS)
    return isinstance(error, aiohttp.ClientResponseError) and _TLS_ALERT in error.message


def _is_lasting(error: BaseException) -> bool:
    """Tell whether trying again is of no use: a certificate that isn't trusted, a name that doesn't exist."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return getattr(error.os_error, "errno", None) == socket.EAI_NONAME
    return isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError)
