"""What an event says of the request it happened for."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_address
from time import time_ns
from typing import Protocol
from uuid import uuid4

from roadstead.acts import Asked
from roadstead.clock import SystemClock
from roadstead.events.event import UNPROMPTED, Cause, Event
from roadstead.http.asgi import Request, peer_address
from roadstead.http.forwarded import parse_host
from roadstead.oci.digest import Digest

_LONGEST_AGENT = 256
_LONGEST_HOST = 260  # no name with its port is as long (RFC 1035 §2.3.4)
_LONGEST_ADDRESS = 45  # IPv6 with an IPv4 inside


class Pulls(Protocol):
    """Whoever takes note of pulls, which waits for nothing: thousands come a second, most like one before."""

    def note(self, like: Hashable, micros: int, address: str) -> bool:
        """Take note of one, `micros` microseconds after the beginning of 1970; False where it isn't known what pulls of
        this likeness have in common.
        """
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


def noted(request: Request, telling: Telling, digest: Digest) -> bool:
    """Take note of a pull, where somebody wants to hear of pulls; False where one like it has to be learnt first.

    The digest is that of what the path stands for now: a tag moves.
    """
    pulls = telling.pulls
    if pulls is None:
        return True
    headers = request.first_headers()  # looked at here and not by methods: each pull passes
    client = request.scope.get("client")
    if client is None or b"x-forwarded-for" in headers or b"x-real-ip" in headers:
        address = address_of(request)
    else:
        address = _peer(*client)
    return pulls.note(_likeness(request, digest, headers), time_ns() // 1000, address)


def learn(request: Request, telling: Telling, digest: Digest, event: Event) -> None:
    """Take note of a pull that is the first of its likeness: of what its event says, and that it was."""
    if telling.pulls is not None:
        telling.pulls.learn(_likeness(request, digest, request.first_headers()), event)
        noted(request, telling, digest)


def _likeness(request: Request, digest: Digest, headers: Mapping[bytes, bytes]) -> Hashable:
    """Return what is the same for all requests of which events say the same, but for their ids, times and addresses."""
    return (
        request.path,
        digest.encoded,
        request.method,
        request.rights.caller.principal.name,
        request.scope.get("scheme"),
        # No more of them than is told: a thousand likenesses are remembered.
        headers.get(b"host", b"")[:_LONGEST_HOST],
        headers.get(b"user-agent", b"")[:_LONGEST_AGENT],
    )


def common_cause_of(request: Request, telling: Telling) -> Cause:
    """Return what events say of a request and of all that are alike: no id, and not where it came from."""
    host = parse_host(request.header(b"host"))
    # As for Location and realm: what anybody may write into a forwarded header leads no receiver anywhere.
    origin = telling.origin or (f"{request.scheme}://{host}" if host else "")
    return Cause(
        host=host or "",
        method=request.method,
        agent=(request.header(b"user-agent") or "")[:_LONGEST_AGENT],
        actor=request.rights.principal.name,
        origin=origin and origin + telling.prefix.rstrip("/"),
    )


def deliberate(request: Request, telling: Telling | None) -> Cause:
    """Return the same for what the audit log tells of: deletes, and what is put back by hand."""
    return replace(cause_of(request, telling), asked=asked_by(request))


def asked_by(request: Request) -> Asked:
    """Return who asks, as the audit log names them; the address is the other end's, or whom a trusted proxy names."""
    return Asked(str(request.rights.principal), SystemClock().now(), request.client or "")


def address_of(request: Request) -> str:
    """Return where the request is said to come from, as distribution does: first whom proxies name, where that is an
    address, else the other end with its port. Anybody can name any; nothing is decided by it.
    """
    first = (request.header(b"x-forwarded-for") or "").partition(",")[0].strip(" ")
    for named in (first, request.header(b"x-real-ip") or ""):
        if 0 < len(named) <= _LONGEST_ADDRESS and _is_address(named):
            return named
    client = request.scope.get("client")
    return "" if client is None else _peer(*client)


@lru_cache(maxsize=4096)
def _is_address(text: str) -> bool:
    if "%" in text:  # a zone, which is an address on one machine alone
        return False
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=4096)
def _peer(address: str, port: int) -> str:
    address = peer_address(address)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
