"""What the document says of answers that aren't the wanted one."""

from collections.abc import Mapping

from litestar.openapi.datastructures import ResponseSpec

from roadstead.http.api.errors import MEDIA_TYPE
from roadstead.http.api.wire import Problem

PAGE = 500
"""The most that one page holds."""

_SAID = {
    400: "Path, query or body aren't as described here.",
    401: "Nobody has signed in, or with something that isn't right.",
    403: "The caller may not, or a page of another origin asks.",
    404: "There is nothing of that name.",
    405: "The registry is set not to, or the name only reads.",
    409: "It doesn't fit what is there.",
    413: "The body is too large.",
    414: "Path or query are too long.",
    415: "The body isn't `application/json`.",
    421: "The server is called by a name that isn't one of its own (`server.hosts`).",
    429: "Too many requests or wrong passwords came from there; Retry-After says when to try again.",
    500: "Something went wrong on the server's side.",
    503: "The database or the storage doesn't answer, or images are being taken up; see Retry-After.",
}
_ALWAYS = (400, 401, 403, 413, 414, 421, 429, 500, 503)


def problems(*statuses: int) -> Mapping[int, ResponseSpec]:
    """Return the answers that every operation may give, and these."""
    return {
        status: ResponseSpec(Problem, generate_examples=False, description=_SAID[status], media_type=MEDIA_TYPE)
        for status in sorted({*_ALWAYS, *statuses})
    }
