"""What went wrong, as Wave's clients read it outside ``/v2/``: ``{"message": "…"}`` with the status."""

import secrets

import msgspec
import structlog

from roadstead.errors import InvalidError, NotFoundError, RoadsteadError
from roadstead.http.asgi import Response
from roadstead.http.errors import answer_for, error_headers

_log = structlog.get_logger()


class RequestInvalidError(InvalidError):
    """A request that can't be carried out as it is; ``member`` says which part of it."""

    def __init__(self, member: str, reason: str, advice: str | None = None) -> None:
        super().__init__(f"{member}: {reason}")
        self.member = member
        self._advice = advice

    def advice(self) -> str | None:
        """Return what to do instead."""
        return self._advice


class ImageMissingError(InvalidError):
    """The image that somebody wants to pull isn't there, as far as we know (400, as Wave says)."""

    def __init__(self, image: str, advice: str | None = None) -> None:
        super().__init__(f"the image {image} is not there, or may not be pulled from here")
        self.image = image
        self._advice = advice

    def advice(self) -> str | None:
        """Return what may be wrong."""
        return self._advice


class HostRefusedError(InvalidError):
    """A registry that isn't asked, or can't be: which of these it is tells of networks that aren't the caller's."""

    def __init__(self, host: str) -> None:
        super().__init__(f"the registry {host[:255]!r} can't be asked from here")
        self.host = host

    def advice(self) -> str:
        """Say which are asked."""
        return "Registries at public addresses are asked, and those that the settings name in [[upstreams]]."


class ImageUnknownError(NotFoundError):
    """The image that somebody wants to look at isn't there (404)."""

    def __init__(self, image: str) -> None:
        super().__init__(f"the image {image} is not there, or may not be read")


def respond(error: BaseException) -> Response:
    """Return the answer that tells of an error; one that nobody expected has a number that is in the log, too."""
    headers = [(b"content-type", b"application/json"), *error_headers(error)]
    return Response(answer_for(error).status, headers, msgspec.json.encode({"message": _message(error)}))


def _message(error: BaseException) -> str:
    if isinstance(error, RoadsteadError):
        advice = error.advice()
        return f"{error.told()}. {advice}" if advice else error.told()
    number = secrets.token_hex(6)
    _log.error("a request failed", error_id=number, error=type(error).__name__)
    return f"something went wrong on the server's side; its log says what. Error ID: {number}"
