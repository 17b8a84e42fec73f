"""Signing in and out with a browser: ``/auth/login``, ``/auth/callback``, ``/auth/logout``, ``/auth/session``."""

import re
from collections.abc import Mapping
from datetime import timedelta

import msgspec

from roadstead.acts import Asked
from roadstead.auth.web_sessions import caller_of
from roadstead.clock import SystemClock
from roadstead.http.asgi import Request, Response
from roadstead.http.headers import JSON
from roadstead.http.people import ATTEMPT, SESSION, Cookies, HasPeople, People, check_page
from roadstead.http.routes import PathUnknownError

CALLBACK = "auth/callback"
HOME = "/account"
_ATTEMPT_LASTS = timedelta(minutes=10)
_NO_TIME = timedelta()
_ONWARD = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,511}")
"""A path of ours: ``//host`` and ``/\\host`` would be other hosts, and browsers leave out tabs and line ends."""

_PARAMETERS = ("state", "code", "iss", "error", "error_description")
_PRIVATE = ((b"cache-control", b"no-store"), (b"referrer-policy", b"no-referrer"))


async def login(request: Request, found: Mapping[str, str], services: HasPeople) -> Response:
    """Send a browser to the issuer; where there are several, ask to which."""
    people = people_of(request, services)
    onward = onward_of(request.parameter("next"), people.front.prefix)
    chosen = request.parameter("issuer") or (people.ways[0].name if len(people.ways) == 1 else None)
    origin = people.front.origin(request)
    if chosen is None:
        # As in failure.py.
        from roadstead.web.pages import rendered

        return rendered("choose.html", root=people.front.prefix, ways=people.ways, onward=onward)
    begun = await (await people.sign_in()).begin(chosen, onward, people.front.address(request, CALLBACK))
    cookie = Cookies(request, origin).put(ATTEMPT, begun.cookie, _ATTEMPT_LASTS)
    return Response(303, [(b"location", begun.url.encode()), cookie, *_PRIVATE])


async def callback(request: Request, found: Mapping[str, str], services: HasPeople) -> Response:
    """Take a browser back from the issuer, and sign in whoever it vouches for."""
    people = people_of(request, services)
    cookies = Cookies(request, people.front.origin(request))
    said = {name: value for name in _PARAMETERS if (value := request.parameter(name)) is not None}
    before = cookies.get(SESSION)
    finished = await (await people.sign_in()).finish(
        cookies.get(ATTEMPT), said, people.front.address(request, CALLBACK), client=request.client or ""
    )
    if before is not None:  # it would go on beside the new one, in no browser
        await people.sessions.end(before)
    return Response(
        303,
        [
            (b"location", finished.onward.encode()),
            cookies.put(SESSION, finished.session, people.session_lifetime),
            cookies.put(ATTEMPT, "", _NO_TIME),
            *_PRIVATE,
        ],
    )


async def logout(request: Request, found: Mapping[str, str], services: HasPeople) -> Response:
    """Sign out: the session is over at once, everywhere."""
    people = people_of(request, services)
    origin = people.front.origin(request)
    check_page(request, origin)
    cookies = Cookies(request, origin)
    text = cookies.get(SESSION)
    session = None if text is None else await people.sessions.find(text)
    if text is not None:
        by = "anonymous" if session is None else str(session.account.principal)
        await people.sessions.end(text, Asked(by, SystemClock().now(), request.client or ""))
    # As in failure.py.
    from roadstead.web.pages import rendered

    forget = cookies.put(SESSION, "", _NO_TIME)
    return rendered("signed_out.html", headers=[forget], root=people.front.prefix)


async def session(request: Request, found: Mapping[str, str], services: HasPeople) -> Response:
    """Tell a page who is signed in with the browser it is in."""
    people = people_of(request, services)
    known = await people.session(request)
    told: dict[str, object] = {"signed_in": False}
    if known is not None:
        principal, vouched = caller_of(known).principal, known.account.vouched
        told = {
            "signed_in": True,
            "name": principal.name,
            "groups": sorted(principal.groups),
            "issuer": None if vouched is None else vouched.issuer,
            "since": known.created_at,
            "expires_at": known.expires_at,
        }
    return Response(200, [JSON, *_PRIVATE], msgspec.json.encode(told))


def people_of(request: Request, services: HasPeople) -> People:
    """Return the people of the services; PathUnknownError where nobody signs in with a browser."""
    if services.people is None:
        raise PathUnknownError(request.path)
    return services.people


def onward_of(text: str | None, prefix: str = "/") -> str:
    """Return where a browser goes once somebody has signed in: a path of ours, whatever was asked. Pure."""
    if text is not None and prefix != "/" and text.startswith(prefix):
        text = text[len(prefix) - 1 :]  # it is put before every answer's location
    return text if text is not None and _ONWARD.fullmatch(text) else HOME
