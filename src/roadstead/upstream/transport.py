"""What every request to another registry goes through: egress rules, proxies, redirects, waits, and who is told.

One ``Transport`` serves all registries that a process talks to; credentials are ``session.py``'s.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit, urlunsplit

from roadstead.upstream.address import is_loopback
from roadstead.upstream.egress import EgressPolicy, is_address, is_machine_local
from roadstead.upstream.errors import (
    AddressForbiddenError,
    BadAnswerError,
    CredentialsError,
    RateLimitedError,
    UnreachableError,
)
from roadstead.upstream.proxies import Proxies
from roadstead.upstream.ratelimit import Budget, parse_budget
from roadstead.upstream.retry import Backoff, parse_retry_after

if TYPE_CHECKING:
    # For its types only: it is imported with the first request.
    from roadstead.upstream.wire import Answer, Body, Wire

MAX_REDIRECTS = 5
_SMALL = 16 << 10  # bytes
_FOLLOWED = frozenset({301, 302, 303, 307, 308})
_AS_WRITTEN = "!#$%&'()*+,/:;=?@[]~"  # signatures are over the address as it is written
_HARMLESS = frozenset({"n", "last", "digest", "mount", "from", "service", "scope", "artifactType", "account", "ns"})


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a request came to, for those who want to watch; it holds no secret."""

    method: str
    url: str
    """With the values of parameters that may be secrets masked: signatures, upload states, tokens."""

    status: int | None
    """None: there was no answer."""

    duration_s: float
    """Until the answer's head was there."""


Trace = Callable[[Exchange], None]


@dataclass(slots=True)
class Transport:
    """Sends requests; an async context manager, which closes every connection in the end."""

    ca_file: Path | None = None
    """PEM certificates to trust beside the system's."""

    proxies: Proxies = field(default_factory=Proxies)
    egress: EgressPolicy | None = None
    """None: wherever the caller says. With one no proxy is used, unless `by_proxy`: it'd connect for us, unchecked."""

    by_proxy: bool = False
    """Whether a proxy may connect for us, to where its owner lets it, though what we reach directly is checked."""

    redirects: int = MAX_REDIRECTS
    """How many are followed; with none, who redirects has answered badly."""

    backoff: Backoff = field(default_factory=Backoff)
    trace: Trace | None = None
    user_agent: str = "roadstead"
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    budgets: dict[str, Budget] = field(default_factory=dict)
    """What is left at each host that tells, by its name."""

    _wires: "dict[bool, Wire]" = field(default_factory=dict)  # by whether addresses are checked
    _paused_until: dict[str, float] = field(default_factory=dict)  # on the monotonic clock

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._wires:
            await self._wires.popitem()[1].close()

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        url: str,
        *,
        host: str,
        headers: Mapping[str, str],
        authorization: str | None = None,
        body: "bytes | Body | None" = None,
    ) -> "AsyncIterator[Answer]":
        """Send a request and give its answer, whatever its status; redirects are followed, nothing is tried again.

        *authorization* goes to *url*'s own origin only. *host* is the registry's name, for messages. Raises
        UnreachableError, BadAnswerError for a redirect that can't be followed, AddressForbiddenError.
        """
        origin = url
        for _ in range(self.redirects + 1):
            sent = dict(headers)
            if authorization is not None and same_origin(origin, url):
                sent["Authorization"] = authorization
            async with self._one(method, url, host, sent, body) as answer:
                target = answer.headers.get("Location")
                if answer.status not in _FOLLOWED or target is None:
                    yield answer
                    return
                if body is not None or (method not in {"GET", "HEAD"} and answer.status < 307):
                    raise BadAnswerError(host, f"a redirect in answer to {method}, which can't be sent twice")
                await answer.read_start(_SMALL)  # so that the connection can be used again
                url = follow(host, origin, url, target)
        many = f"more than {self.redirects} redirects" if self.redirects else f"a redirect, to {masked(url)[:120]}"
        raise BadAnswerError(host, many)

    async def wait(self, attempt: int, error: RateLimitedError | UnreachableError) -> bool:
        """Wait after an error before try number *attempt* + 1; False, at once, if there should be none.

        What a registry asked for holds for every request to it.
        """
        host, asked_s = error.host, error.asked_to_wait_s
        seconds = self.backoff.wait_s(attempt, asked_s)
        if seconds is None or (isinstance(error, UnreachableError) and error.lasting):
            return False
        if asked_s is not None:
            until = time.monotonic() + asked_s
            self._paused_until[host] = max(until, self._paused_until.get(host, 0.0))
        await self.sleep(seconds)
        return True

    @asynccontextmanager
    async def _one(
        self, method: str, url: str, host: str, headers: Mapping[str, str], body: "bytes | Body | None"
    ) -> "AsyncIterator[Answer]":
        if (left := self._paused_until.get(host, 0.0) - time.monotonic()) > 0:
            await self.sleep(left)
        proxy = self.proxies.proxy_for(url) if self.egress is None or self.by_proxy else None
        checked = proxy is None and self.egress is not None and not self.egress.trusts(url)
        started = time.monotonic()
        try:
            async with self._wire(checked=checked).exchange(method, url, host, headers, body, proxy) as answer:
                self._tell(method, url, answer.status, started)
                if budget := parse_budget(answer.headers):
                    self.budgets[host] = budget
                yield answer
        except UnreachableError:
            self._tell(method, url, None, started)
            raise

    def _tell(self, method: str, url: str, status: int | None, started: float) -> None:
        if self.trace is not None:
            self.trace(Exchange(method, masked(url), status, time.monotonic() - started))

    def _wire(self, *, checked: bool) -> "Wire":
        if checked not in self._wires:
            # aiohttp takes a tenth of a second to import, which a server that asks nobody need not spend.
            from roadstead.upstream.wire import Wire

            egress = self.egress if checked else None
            self._wires[checked] = Wire(tls=self._tls(), egress=egress, user_agent=self.user_agent)
        return self._wires[checked]

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self.ca_file is not None:
            try:
                context.load_verify_locations(self.ca_file)
            except OSError as error:  # ssl.SSLError is one
                raise CredentialsError(str(self.ca_file), f"no certificates can be read from it: {error}") from error
        return context


def retry_after_s(answer: "Answer") -> float | None:
    """Return the seconds that an answer's ``Retry-After`` asks to wait, if it says."""
    return parse_retry_after(answer.headers.get("Retry-After"), datetime.now(UTC))


def same_origin(one: str, two: str) -> bool:
    """Tell whether two URLs have scheme, host and port in common: only then credentials may go with both."""
    return _origin(one) == _origin(two)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def follow(host: str, origin: str, url: str, target: str) -> str:
    """Return where *target*, which the registry at *origin* named in its answer from *url*, leads to. Pure.

    What it may not name: other schemes, plain http when it was asked over TLS, addresses that only this machine has. A
    registry behind a proxy often doesn't know that it was asked over TLS, and names itself with http: that is
    understood as https.
    """
    target = quote(target, safe=_AS_WRITTEN)
    try:
        found = urljoin(url, target)
        parts = urlsplit(found)
        name, _ = parts.hostname, parts.port  # the port is checked when it's read
    except ValueError as error:
        raise BadAnswerError(host, "it names an address that isn't one") from error
    asked = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not name or parts.username is not None:
        raise BadAnswerError(host, f"it names {masked(found)[:120]}, which isn't an address we follow")
    if asked.scheme == "https" and parts.scheme == "http":
        if parts.netloc.removesuffix(":80").lower() != asked.netloc.lower():
            raise BadAnswerError(host, f"from https it sends us to plain http: {masked(found)[:120]}")
        found = urlunsplit(parts._replace(scheme="https", netloc=asked.netloc))
    check_hop(host, origin, found)
    return found


def check_hop(host: str, origin: str, target: str) -> None:
    """Raise AddressForbiddenError where a registry with a name sends us to loopback or link-local addresses. Pure.

    Private ones are let pass: a registry's object store may be there, and an egress policy forbids them if it's to.
    """
    here, there = urlsplit(origin).hostname or "", urlsplit(target).hostname or ""
    if here == there or is_loopback(here) or is_address(here):
        return
    if is_loopback(there) or (is_address(there) and is_machine_local(there)):
        raise AddressForbiddenError(host, there, "only this machine answers there")


def masked(url: str) -> str:
    """Return a URL to be shown: no user, and no values of parameters but of those known to be harmless. Pure."""
    parts = urlsplit(url)
    query = [
        (name, value if name in _HARMLESS else "***") for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    netloc = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=netloc, query=urlencode(query, safe="*:/,"), fragment=""))
