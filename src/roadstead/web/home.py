"""``/``: a page for people, and what load balancers ask: 200 without sign-in or redirect while ready."""

from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.metadata import version
from importlib.resources import files
from string import Template

from roadstead.errors import RoadsteadError
from roadstead.http.asgi import Request, Response
from roadstead.http.context import Services
from roadstead.http.errors import respond

_HEADERS = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
]


_OWN = '<dt><a href="{}account">Your account</a></dt><dd>sign in, and make keys for docker</dd>\n'


async def home(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Say what this is and how to push to it; 503 with what is wrong while requests can't be served."""
    try:
        await services.check()
    except RoadsteadError as error:
        return respond(error)
    host = request.header(b"host") or "localhost:5000"
    own = "" if services.people is None else _OWN.format(services.people.front.prefix)
    page = _page().substitute(host=escape(host[:255]), version=escape(version("roadstead")), own=own)
    return Response(200, _HEADERS, page.encode())


@cache
def _page() -> Template:
    return Template(files("roadstead.web").joinpath("pages/home.html").read_text(encoding="utf-8"))
