"""What an event says of the request it happened for."""

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Protocol
from uuid import uuid4

from roadstead.acts import Asked
from roadstead.clock import SystemClock
from roadstead.events.event import UNPROMPTED, Cause, Event
from roadstead.http.asgi import Request
from roadstead.oci.digest import Digest

_FORWARDED_FOR = (b"x-forwarded-for", b"x-real-ip")
_SAID = (
    b"host",
    b"user-agent",
    b"forwarded",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    *_FORWARDED_FOR,
)
"""The headers that events tell of."""

_FORWARDED = re.compile(r"(?:^|[;,\s])(proto|host)=\"?([^\";,\s]+)", re.IGNORECASE)


class Pulls(Protocol):
    """Whoever takes note of pulls, which waits for nothing: thousands come a second, most like one before."""

    def note(self, like: Hashable, at: datetime, address: str) -> bool:
        """Take note of one; False where it isn't known what pulls of this likeness have in common."""
        ...

    def learn(self, like: Hashable, event: Event) -> None:
        """Take note of that: of an event without a request's id and address."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """How this worker's requests are told of, where anybody wants to hear.

    ``origin`` is ``https://host`` where settings name it, ``prefix`` what stands before every path. ``pulls`` is
    None where nobody wants to hear of pulls.
    """

    now: Callable[[], datetime]
    origin: str = ""
    prefix: str = "/"
    references: bool = False
    pulls: Pulls | None = None


def cause_of(request: Request, telling: Telling | None) -> Cause:
    """Return what events say of a request; nothing where nobody wants to hear."""
    if telling is None:
        return UNPROMPTED
    return replace(common_cause_of(request, telling), id=str(uuid4()), address=address_of(request))


def likeness(request: Request, digest: Digest) -> Hashable:
    """Return what is the same for all requests of which events say the same, but for their ids, times and addresses.

    The digest is that of what the path stands for now: a tag moves.
    """
    return (
        request.path,
        digest.encoded,
        request.method,
        request.rights.principal.name,
        request.scope.get("scheme"),
        request.values(_SAID),
    )


def common_cause_of(request: Request, telling: Telling) -> Cause:
    """Return what events say of a request and of all that are alike: no id, and not where it came from."""
    host = request.header(b"host") or ""
    return Cause(
        host=host,
        method=request.method,
        agent=request.header(b"user-agent") or "",
        actor=request.rights.principal.name,
        origin=(telling.origin or _origin(request, host)) + telling.prefix.rstrip("/"),
    )


def deliberate(request: Request, telling: Telling | None) -> Cause:
    """Return the same for what the audit log tells of: deletes, and what is put back by hand."""
    return replace(cause_of(request, telling), asked=asked_by(request))


def asked_by(request: Request) -> Asked:
    """Return who asks, as the audit log names them; the address is the other end's, or whom a trusted proxy names."""
    return Asked(str(request.rights.principal), SystemClock().now(), request.client or "")


def address_of(request: Request) -> str:
    """Return where the request is said to come from, as distribution does: first whom proxies name, else the other end
    with its port. Anybody can say anything here; nothing is decided by it.
    """
    if any(request.values(_FORWARDED_FOR)):
        forwarded = (request.header(b"x-forwarded-for") or "").partition(",")[0].strip()
        if forwarded or (forwarded := (request.header(b"x-real-ip") or "").strip()):
            return forwarded
    client = request.scope.get("client")
    return "" if client is None else _peer(request.client or "", client[1])


@lru_cache(maxsize=4096)
def _peer(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _origin(request: Request, host: str) -> str:
    """Return scheme and host as the client used them, as far as proxies tell (RFC 7239, and the headers before it)."""
    said = {name.lower(): value for name, value in _FORWARDED.findall(request.header(b"forwarded") or "")}
    scheme = said.get("proto") or _first(request, b"x-forwarded-proto") or request.scope.get("scheme") or "http"
    return f"{scheme}://{said.get('host') or _first(request, b'x-forwarded-host') or host}"


def _first(request: Request, name: bytes) -> str:
    return (request.header(name) or "").partition(",")[0].strip()
