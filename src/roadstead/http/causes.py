"""What an event says of the request it happened for."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import uuid4

from roadstead.acts import Asked
from roadstead.clock import SystemClock
from roadstead.events.event import UNPROMPTED, Cause, Event
from roadstead.http.asgi import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """How this worker's requests are told of, where anybody wants to hear.

    ``origin`` is ``https://host`` where settings name it, ``prefix`` what stands before every path. ``pull`` takes
    note of a pull without waiting for anything; None where nobody wants to hear of pulls.
    """

    now: Callable[[], datetime]
    origin: str = ""
    prefix: str = "/"
    references: bool = False
    pull: Callable[[Event], None] | None = None


def cause_of(request: Request, telling: Telling | None) -> Cause:
    """Return what events say of a request; nothing where nobody wants to hear."""
    if telling is None:
        return UNPROMPTED
    host = request.header(b"host") or ""
    return Cause(
        id=str(uuid4()),
        address=_address(request),
        host=host,
        method=request.method,
        agent=request.header(b"user-agent") or "",
        actor=request.rights.principal.name,
        # As for Location and realm: what anybody may write into a forwarded header leads no receiver anywhere.
        origin=(telling.origin or f"{request.scheme}://{host}") + telling.prefix.rstrip("/"),
    )


def deliberate(request: Request, telling: Telling | None) -> Cause:
    """Return the same for what the audit log tells of: deletes, and what is put back by hand."""
    return replace(cause_of(request, telling), asked=asked_by(request))


def asked_by(request: Request) -> Asked:
    """Return who asks, as the audit log names them; the address is the other end's, or whom a trusted proxy names."""
    return Asked(str(request.rights.principal), SystemClock().now(), request.client or "")


def _address(request: Request) -> str:
    """Return where the request is said to come from, as distribution does: first whom proxies name, else the other end
    with its port. Anybody can say anything here; nothing is decided by it.
    """
    forwarded = (request.header(b"x-forwarded-for") or "").partition(",")[0].strip()
    if forwarded or (forwarded := (request.header(b"x-real-ip") or "").strip()):
        return forwarded
    client = request.scope.get("client")
    if client is None:
        return ""
    address = request.client or ""
    return f"[{address}]:{client[1]}" if ":" in address else f"{address}:{client[1]}"
