"""What went wrong on a page, told as a page: what it was, and what to try."""

from roadstead.errors import RoadsteadError
from roadstead.http.asgi import Response
from roadstead.http.errors import answer_for, error_headers


def respond(error: BaseException) -> Response:
    """Return the page that tells of an error; what isn't ours is told without detail."""
    # Jinja2 is loaded with the first page: a worker that shows none need not wait for it.
    from roadstead.web.pages import rendered

    said, advice = "something went wrong on the server's side", "Its log says what."
    if isinstance(error, RoadsteadError):
        said, advice = error.told(), error.advice() or ""
    status, headers = answer_for(error).status, error_headers(error)
    return rendered("failure.html", status=status, headers=headers, said=_sentence(said), advice=advice)


def _sentence(said: str) -> str:
    """Begin with a capital, where the first word is one of ours and not an address or a name."""
    first = said.partition(" ")[0].rstrip(":,")
    return said[:1].upper() + said[1:] if first.replace("'", "").isalpha() else said
