"""Forms of our own pages (``application/x-www-form-urlencoded``)."""

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

from roadstead.errors import InvalidError
from roadstead.http.asgi import MAX_PARAMETERS, ParametersTooManyError, Request
from roadstead.http.bodies import read_whole

MAX_FORM = 16 << 10


class FormUnreadableError(InvalidError):
    """A form can't be read, or lacks something (400)."""


async def read_form(request: Request) -> Mapping[str, Sequence[str]]:
    """Return a form's fields with all their values; raises FormUnreadableError."""
    kind = (request.header(b"content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise FormUnreadableError(f"expected application/x-www-form-urlencoded, got {kind[:100]!r}")
    body = await read_whole(request, "form", max_bytes=MAX_FORM)
    if body.count(b"&") >= MAX_PARAMETERS:
        raise ParametersTooManyError
    try:
        return parse_qs(body.decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise FormUnreadableError("the form isn't in UTF-8") from error
