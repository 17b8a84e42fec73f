"""What can be wrong with a request to the API, and how it is told: problem documents (RFC 9457)."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from roadstead.errors import ConflictError, DeniedError, InvalidError, NotFoundError, RoadsteadError
from roadstead.http.asgi import Response
from roadstead.http.errors import answer_for, error_headers

MEDIA_TYPE = "application/problem+json"


class ParametersInvalidError(InvalidError):
    """Query, path or body aren't what the document of the API says (400)."""

    def __init__(self, said: str, wrong: Sequence[str] = ()) -> None:
        super().__init__(f"{said}: {'; '.join(wrong)}" if wrong else said)

    def advice(self) -> str:
        """Say where it is written."""
        return "GET /api/schema says what each operation takes."


class MediaTypeUnknownError(InvalidError):
    """The body isn't JSON (415): forms are what a page of somebody else's could send."""

    def __init__(self, said: str | None) -> None:
        super().__init__(f"the body has to be application/json, not {(said or 'without a type')[:100]!r}")


class OriginForeignError(DeniedError):
    """A page of another origin has its visitor's browser change something here."""

    def __init__(self, origin: str) -> None:
        super().__init__(f"requests that change something are not taken from pages of {origin[:200]!r}")

    def advice(self) -> str:
        """Say what settles it."""
        return "If that is this registry, set server.public_url to how browsers reach it."


class NotAtHomeError(DeniedError):
    """Access isn't controlled, and administration is for this machine alone then."""

    def __init__(self) -> None:
        super().__init__("access is not controlled here, so administration is for requests from this machine alone")

    def advice(self) -> str:
        """Say how others get in."""
        return "Add a user in the group admins (roadstead user add NAME --group admins), and restart."


class ThingUnknownError(NotFoundError):
    """There is no such account, key or event."""


class AccountTakenError(ConflictError):
    """There is an account of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is an account {name} already")

    def advice(self) -> str:
        """Say how it is changed."""
        return "With replace it gets the groups and the password that you say; its keys stay."


class AccountsNotKeptError(ConflictError):
    """The database is built anew at a start, and accounts are in nothing else."""

    def __init__(self) -> None:
        super().__init__("accounts are kept in the database alone, and database.mode = rebuildable would lose them")


_STATUSES: dict[type[BaseException], int] = {MediaTypeUnknownError: 415}


def respond(error: BaseException) -> Response:
    """Return the problem document of an error; what isn't ours is told without detail."""
    status = _STATUSES.get(type(error)) or answer_for(error).status
    problem: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    if isinstance(error, RoadsteadError):
        problem["detail"] = error.told()
        if advice := error.advice():
            problem["advice"] = advice
    else:
        problem["detail"] = "something went wrong on the server's side; its log says what"
    headers = [(b"content-type", MEDIA_TYPE.encode()), *error_headers(error)]
    return Response(status, headers, msgspec.json.encode(problem))
