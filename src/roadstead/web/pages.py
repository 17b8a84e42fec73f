"""Pages, made of templates; loaded with the first one.

Nothing on them runs: no scripts, no styles but the one that the policy names by its digest, no frames, and forms go to
us alone. So whatever a name or a description holds, it is text.
"""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from roadstead.http.asgi import Headers, Response


def rendered(template: str, *, status: int = 200, headers: Headers = (), **values: Any) -> Response:
    """Return a page. No cache keeps it: it may be somebody's own."""
    text = _environment().get_template(template).render(values)
    return Response(status, [*_headers(), *headers], text.encode())


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("roadstead.web", "pages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.globals.update(style=_style(), version=version("roadstead"))
    return environment


@cache
def _style() -> str:
    return files("roadstead.web").joinpath("pages/style.css").read_text(encoding="utf-8")


@cache
def _headers() -> Headers:
    style = b64encode(sha256(_style().encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return (
        (b"content-type", b"text/html; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        # With no-referrer browsers would not say where a form comes from (Fetch, Origin header), and we want to know.
        (b"referrer-policy", b"same-origin"),
        (b"cross-origin-opener-policy", b"same-origin"),
    )
