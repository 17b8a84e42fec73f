"""The routes of the token server; nothing is served there unless settings have tokens issued (``auth.issue``)."""

from collections.abc import Mapping
from typing import Protocol

from roadstead.http.asgi import Request, Response
from roadstead.http.routes import PathUnknownError, Route


class Door(Protocol):
    """What answers; ``token_door.TokenDoor`` is it."""

    async def by_query(self, request: Request) -> Response:
        """Answer a token request with a query."""
        ...

    async def by_form(self, request: Request) -> Response:
        """Answer a token request with a form."""
        ...

    async def key_set(self, request: Request) -> Response:
        """Answer with the keys that sign."""
        ...

    async def certificates(self, request: Request) -> Response:
        """Answer with the certificates of the keys that sign."""
        ...


class HasDoor(Protocol):
    """Services with a token server, or without one."""

    @property
    def tokens(self) -> Door | None:
        """The token server."""
        ...


def _door(request: Request, services: HasDoor) -> Door:
    if services.tokens is None:
        raise PathUnknownError(request.path)
    return services.tokens


async def by_query(request: Request, found: Mapping[str, str], services: HasDoor) -> Response:
    """Give a token (Docker token spec)."""
    return await _door(request, services).by_query(request)


async def by_form(request: Request, found: Mapping[str, str], services: HasDoor) -> Response:
    """Give a token (Docker token spec, OAuth2)."""
    return await _door(request, services).by_form(request)


async def key_set(request: Request, found: Mapping[str, str], services: HasDoor) -> Response:
    """Tell the keys that sign."""
    return await _door(request, services).key_set(request)


async def certificates(request: Request, found: Mapping[str, str], services: HasDoor) -> Response:
    """Tell the certificates of the keys that sign."""
    return await _door(request, services).certificates(request)


ROUTES = (
    Route("token", ("GET",), "/auth/token", by_query),
    Route("token", ("POST",), "/auth/token", by_form),
    Route("jwks", ("GET", "HEAD"), "/auth/jwks", key_set),
    Route("jwks", ("GET", "HEAD"), "/auth/certificates", certificates),
)
