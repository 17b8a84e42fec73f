"""``/v2/``: this is a registry (distribution-spec end-1)."""

from collections.abc import Mapping

from roadstead.http.asgi import Request, Response
from roadstead.http.context import Services
from roadstead.http.headers import JSON


async def ping(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Say that the API is here; the body is exactly ``{}``."""
    return Response(200, [JSON], b"{}")
