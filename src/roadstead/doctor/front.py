"""The address that clients use, asked as a client does: what comes back, and what TLS shows.

Nothing is changed there: an upload is started, which leaves nothing before its first byte (decision 7), and a large
body is begun for an upload that nobody has started.
"""

import http.client
import secrets
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from io import BytesIO
from time import monotonic
from urllib.parse import urlsplit

from roadstead.doctor.facts import Answer, Certificate, Clock, Failure, Front

PATIENCE_S = 5.0
ANNOUNCED = 1 << 30
"""The body that is announced, in bytes: larger than any limit that was set by mistake."""

PIECE, PIECE_EVERY_S = 16 << 10, 0.25
"""So much of it is sent, again and again until there is an answer, some 320 KiB at the most.

Proxies that stream hand a head on together with what first fills their buffer (4 KiB with Caddy and Traefik, 16 KiB
with others). And Go's servers, which these two are, answer before a body's end only as they read more of it.
"""

_LONGEST_HEAD = 64 << 10

_PROBE = "roadstead-doctor/probe"


def ask(
    url: str, method: str, path: str, headers: Mapping[str, str] | None = None, *, timeout_s: float = PATIENCE_S
) -> Answer:
    """Ask once, following nothing, with no body whatever the headers announce; raises OSError, HTTPException.

    Certificates aren't looked at: `look_at_certificate` does that.
    """
    with _asked(url, method, path, headers or {}, timeout_s) as connection:
        response = connection.getresponse()
        return Answer(status=response.status, headers=_lowered(response.getheaders()))


@contextmanager
def _asked(
    url: str, method: str, path: str, headers: Mapping[str, str], timeout_s: float
) -> Iterator[http.client.HTTPConnection]:
    """Give a connection on which a request's head was sent."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    if parts.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=timeout_s, context=_believing()
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    with closing(connection):
        connection.putrequest(method, f"{parts.path.rstrip('/')}{path}", skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        yield connection


def _lowered(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}


def _believing() -> ssl.SSLContext:
    """Return what takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@dataclass(frozen=True, slots=True)
class Gate:
    """A server that ends the handshake since it wants a client's certificate; ``shown`` is its own, if it came (DER).

    With TLS 1.3 it shows its own first, in a handshake that is whole for the client; with 1.2 nothing is left of one
    that fails.
    """

    shown: bytes | None


_WANTS_ONE = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE")  # RFC 8446 §6.2; before that there was only the second


def look_at_gate(url: str) -> Gate | None:
    """Return the gate that an https address is behind; None for another, or where it can't be told."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        return None
    shown = None
    try:
        with (
            socket.create_connection((parts.hostname, parts.port or 443), PATIENCE_S) as plain,
            _believing().wrap_socket(plain, server_hostname=parts.hostname) as secured,
        ):
            shown = secured.getpeercert(binary_form=True)
            # Nothing is sent: what a server hasn't read when it closes takes its alert along.
            secured.recv(1)
    except ssl.SSLError as error:
        return Gate(shown) if any(alert in (error.reason or "") for alert in _WANTS_ONE) else None
    except (OSError, ValueError):
        return None
    return None


def look_at_front(url: str, *, internal: str | None = None) -> Front:
    """Ask everything of the public address; `internal` is a location that only the proxy itself may use."""
    url = url.rstrip("/")
    try:
        base = ask(url, "GET", "/v2/")
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, ssl.SSLError | ConnectionError) and look_at_gate(url) is not None:
            return Front(url=url, wants_certificate=True)
        return Front(url=url, failure=_told(error, url))
    if base.status not in (200, 401):
        return Front(url=url, base=base)
    announced, waited = _announce(url)
    return Front(
        url=url,
        base=base,
        session=_tried(url, "POST", f"/v2/{_PROBE}/blobs/uploads/", {"Content-Length": "0"}),
        announced=announced,
        waited_for_body=waited,
        internal=None if internal is None else _tried(url, "GET", f"{internal}probe"),
    )


def _announce(url: str) -> tuple[Answer | None, bool]:
    """Begin a large body that the registry refuses by its head, and say whether somebody before it wants the rest.

    The registry itself answers such a head at once, and reads nothing of so large a body (`Request.drain`). Where no
    answer comes although bytes of the body do, the head hasn't got there.
    """
    path = f"/v2/{_PROBE}/blobs/uploads/{secrets.token_hex(16)}"
    headers = {"Content-Length": str(ANNOUNCED), "Content-Type": "application/octet-stream"}
    try:
        with _asked(url, "PATCH", path, headers, PATIENCE_S) as connection:
            return _answer_to_pieces(connection.sock), False
    except TimeoutError:
        return None, True
    except (OSError, http.client.HTTPException):
        return None, False


def _answer_to_pieces(connection: socket.socket) -> Answer:
    """Send pieces of a body until the head of an answer is there; raises TimeoutError where none comes, OSError,
    HTTPException.
    """
    connection.settimeout(PIECE_EVERY_S)
    heard, ends = b"", monotonic() + PATIENCE_S
    while b"\r\n\r\n" not in heard:
        if monotonic() > ends:
            raise TimeoutError
        with suppress(OSError):  # who has refused the head may be gone, and its answer is there all the same
            connection.sendall(bytes(PIECE))
        with suppress(TimeoutError):
            heard += (more := connection.recv(_LONGEST_HEAD))
            if not more or len(heard) > _LONGEST_HEAD:
                raise http.client.BadStatusLine("")
    line, _, rest = heard.partition(b"\r\n")
    _, _, status = line.partition(b" ")
    if not status[:3].isdigit():
        raise http.client.BadStatusLine(str(line, "latin-1"))
    return Answer(status=int(status[:3]), headers=_lowered(http.client.parse_headers(BytesIO(rest)).items()))


def _tried(url: str, method: str, path: str, headers: Mapping[str, str] | None = None) -> Answer | None:
    try:
        return ask(url, method, path, headers)
    except (OSError, http.client.HTTPException):
        return None


def _told(error: Exception, url: str) -> Failure:
    match error:
        case socket.gaierror():
            return Failure(message="its name can't be found", advice="Look at its DNS record, from this machine.")
        case ConnectionRefusedError():
            return Failure(message="nothing listens there", advice="Is the proxy running, and is the port right?")
        case TimeoutError():
            return Failure(
                message=f"no answer within {PATIENCE_S:g} s",
                advice="Look for a firewall in between. Some routers don't let a machine reach its own public address.",
            )
        case ssl.SSLError():
            is_plain = "WRONG_VERSION" in str(error) or "RECORD_LAYER" in str(error)
            advice = "Is it http://, not https://?" if is_plain else "Look at what speaks TLS there."
            return Failure(message=f"TLS fails ({error.reason or error})", advice=advice)
        case _ if isinstance(error, http.client.HTTPException) and url.startswith("http:"):
            return Failure(message="what answers isn't HTTP", advice="Does it speak TLS? Then the address is https://…")
        case _:
            return Failure(message=str(error) or type(error).__name__)


def look_at_certificate(url: str) -> Certificate | None:
    """Return what TLS shows at an https address; None for another, or where nothing answers."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        return None
    context = ssl.create_default_context()
    try:
        with (
            socket.create_connection((parts.hostname, parts.port or 443), PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as secured,
        ):
            found = secured.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        return Certificate(host=parts.hostname, problem=error.verify_message)
    except (OSError, ValueError):
        return None
    expires = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(found["notAfter"])), UTC)
    return Certificate(host=parts.hostname, expires=expires)


def clock_of(url: str, whose: str, now: datetime) -> Clock | None:
    """Return the time that a server's Date header tells (to the second); None without one."""
    answer = _tried(url, "HEAD", "/")
    if answer is None or "date" not in answer.headers:
        return None
    try:
        theirs = parsedate_to_datetime(answer.headers["date"])
    except ValueError:
        return None
    return Clock(whose=whose, theirs=theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC), ours=now, exact_s=2.0)
