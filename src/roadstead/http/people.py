"""Browsers of people: how they reach us, the cookie that says who is signed in, and where it counts.

It counts for the pages and for the API alone. `/v2/` and `/auth/token` look at the Authorization header and at nothing
else, and what changes something is taken only from our own pages: a cookie comes along wherever a page of somebody
else's sends a browser (CSRF).
"""

import ipaddress
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol
from urllib.parse import urlsplit

from roadstead.auth.own_keys import OwnKeys
from roadstead.auth.ports import WebSession
from roadstead.auth.web_sessions import WebSessions
from roadstead.errors import DeniedError, InvalidError
from roadstead.http.asgi import Request

_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")

SESSION = "roadstead-session"
ATTEMPT = "roadstead-sign-in"
_BOUND = "__Host-"
"""Browsers take a cookie of such a name only over TLS, and only from the very host it is for (RFC 6265bis §4.1.3)."""


class AddressUnsafeError(InvalidError):
    """A browser has come in a way on which it could not be signed in safely, or not come back."""

    def __init__(self, host: str) -> None:
        super().__init__(f"people can't sign in at the address {host[:255]!r}")

    def advice(self) -> str:
        """Say which address it takes."""
        return "On the machine itself open http://localhost with its port; elsewhere server.public_url has to be set."


class PageForeignError(DeniedError):
    """Something that changes comes with the cookie of somebody signed in, and not from a page of ours."""

    def __init__(self, origin: str | None) -> None:
        said = "a request without the header Origin" if origin is None else f"a page of {origin[:200]}"
        super().__init__(f"what changes something is not taken from {said} while one is signed in with a browser")

    def advice(self) -> str:
        """Say where it is taken from."""
        return "Use this registry's own page; programs sign in with a key."


class Begun(Protocol):
    """Where a browser is to go, and what it is to keep."""

    @property
    def url(self) -> str:
        """The issuer's address."""
        ...

    @property
    def cookie(self) -> str:
        """What it keeps meanwhile."""
        ...


class Finished(Protocol):
    """Somebody has signed in."""

    @property
    def session(self) -> str:
        """What their browser keeps."""
        ...

    @property
    def onward(self) -> str:
        """Where it goes on."""
        ...


class SignsIn(Protocol):
    """What signs people in; ``auth.oidc.flow.SignIn`` is it."""

    async def begin(self, provider_name: str, onward: str, redirect_uri: str) -> Begun:
        """Begin."""
        ...

    async def finish(
        self, cookie: str | None, parameters: Mapping[str, str], redirect_uri: str, *, client: str
    ) -> Finished:
        """Finish what was begun."""
        ...

    async def aclose(self) -> None:
        """Close every connection to issuers."""
        ...


@dataclass(frozen=True, slots=True)
class Way:
    """An issuer, as people are shown it."""

    name: str
    shown: str
    issuer: str = ""


@dataclass(frozen=True, slots=True)
class Front:
    """How browsers reach us: ``public_url`` is ``https://host`` where settings name it, ``prefix`` before each path."""

    public_url: str = ""
    prefix: str = "/"

    def origin(self, request: Request) -> str:
        """Return scheme and host of our own pages; raises AddressUnsafeError.

        Without a public address it is the loopback one that the browser used: the Host header, which anybody may send,
        is believed of nothing else.
        """
        if self.public_url:
            return self.public_url
        host = request.header(b"host") or ""
        if not _is_loopback(host):
            raise AddressUnsafeError(host)
        return f"{request.scheme}://{host.lower()}"

    def address(self, request: Request, path: str) -> str:
        """Return the whole address of one of our paths (``auth/callback``)."""
        return f"{self.origin(request)}{self.prefix}{path}"


class Cookies:
    """The cookies of a request, and those of its answer; ``origin`` decides how they are called."""

    def __init__(self, request: Request, origin: str) -> None:
        self._request = request
        self._over_tls = origin.startswith("https:")

    def get(self, name: str) -> str | None:
        """Return a cookie of ours; None where it isn't there, or is there twice: then one is of somebody else."""
        name = self._named(name)
        pairs = [pair.strip() for header in self._request.headers(b"cookie") for pair in header.split(";")]
        found = [value for key, _, value in (pair.partition("=") for pair in pairs) if key == name]
        return found[0] if len(found) == 1 and found[0] else None

    def put(self, name: str, value: str, lasts: timedelta) -> tuple[bytes, bytes]:
        """Return the header that has a browser keep a cookie; with an empty value, forget it."""
        age = int(lasts.total_seconds()) if value else 0
        parts = [f"{self._named(name)}={value}", "Path=/", "HttpOnly", "SameSite=Lax", f"Max-Age={age}"]
        if self._over_tls:
            parts.append("Secure")
        return b"set-cookie", "; ".join(parts).encode()

    def _named(self, name: str) -> str:
        return f"{_BOUND}{name}" if self._over_tls else name


class People:
    """People with browsers: who is signed in, and how others do so."""

    def __init__(
        self,
        front: Front,
        ways: Sequence[Way],
        sessions: WebSessions,
        own_keys: OwnKeys,
        sign_in: Callable[[], Awaitable[SignsIn]],
        *,
        session_lifetime: timedelta,
    ) -> None:
        self.front = front
        self.ways = tuple(ways)
        self.sessions = sessions
        self.own_keys = own_keys
        self.session_lifetime = session_lifetime
        self._load = sign_in
        self._sign_in: SignsIn | None = None

    def shown(self, issuer: str) -> str:
        """Return what people know an issuer by; its address where settings name it no more."""
        return next((way.shown for way in self.ways if way.issuer == issuer), issuer)

    async def sign_in(self) -> SignsIn:
        """Return what signs people in: loaded with the first who does, as its libraries are heavy."""
        if self._sign_in is None:
            self._sign_in = await self._load()
        return self._sign_in

    async def session(self, request: Request) -> WebSession | None:
        """Return who is signed in with the browser that a request comes from.

        None where it has an Authorization header: that is who asks then. Raises PageForeignError.
        """
        if request.header(b"authorization") is not None or request.header(b"cookie") is None:
            return None
        try:
            origin = self.front.origin(request)
        except AddressUnsafeError:
            return None
        text = Cookies(request, origin).get(SESSION)
        session = None if text is None else await self.sessions.find(text)
        if session is not None and request.method not in ("GET", "HEAD"):
            check_page(request, origin)
        return session

    async def aclose(self) -> None:
        """Close every connection to issuers."""
        if self._sign_in is not None:
            await self._sign_in.aclose()


class HasPeople(Protocol):
    """Services of a registry where people sign in with a browser, or of one where they don't."""

    @property
    def people(self) -> People | None:
        """They."""
        ...

    @property
    def guard(self) -> Any:
        """What lets requests through."""
        ...


def check_page(request: Request, origin: str) -> None:
    """Let through what a page of `origin` has sent; raises PageForeignError.

    Browsers say where it comes from in one header or both. What says nothing isn't let through.
    """
    said, site = request.header(b"origin"), request.header(b"sec-fetch-site")
    if said is not None and _compared(said) != _compared(origin):
        raise PageForeignError(said)
    if said is None and site != "same-origin":
        raise PageForeignError(None)
    if site not in (None, "same-origin"):
        raise PageForeignError(said)


def _compared(origin: str) -> str:
    """Return an origin as browsers write it: in small letters, without the port that its scheme has anyway."""
    origin = origin.lower()
    for scheme, port in (("https:", ":443"), ("http:", ":80")):
        if origin.startswith(scheme):
            return origin.removesuffix(port)
    return origin


def _is_loopback(host: str) -> bool:
    """Say whether a Host header names this machine itself."""
    if not _HOST.fullmatch(host):
        return False
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
