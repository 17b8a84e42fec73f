"""What orchestrators, load balancers and Prometheus ask."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address

import msgspec

from roadstead.errors import RoadsteadError
from roadstead.http.asgi import Request, Response
from roadstead.http.context import Services
from roadstead.http.headers import JSON
from roadstead.http.routes import PathUnknownError, Route

_READ = ("GET", "HEAD")
_OF_PROXIES = (b"x-forwarded-for", b"forwarded", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip", b"via")


async def alive(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Say that this process answers; it says nothing of the database or the storage."""
    return Response(200, [JSON], b'{"status":"ok"}')


async def ready(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Say whether requests can be served: all is there, and the database answers. 503 with what is wrong otherwise."""
    await services.gate.check()
    await services.check()
    return Response(200, [JSON], b'{"status":"ready"}')


async def checks(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Tell which checks fail, as distribution does at its debug address: none is ``{}``, else 503."""
    try:
        await services.check()
    except RoadsteadError as error:
        return Response(503, [JSON], msgspec.json.encode({"server": str(error)}))
    return Response(200, [JSON], b"{}")


async def metrics(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Give the numbers of all workers in Prometheus' text format, to this machine only unless settings say more.

    Where access is controlled the guard has let an administrator in, from wherever.
    """
    if not services.metrics_open and services.guard is None and not is_local(request):
        raise PathUnknownError(request.path)
    return Response(200, [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")], services.render_metrics())


def side_table(metrics_path: str) -> Sequence[Route]:
    """Return the routes of the address that is for these alone."""
    return (
        Route("metrics", _READ, metrics_path, metrics),
        Route("checks", _READ, "/debug/health", checks),
        Route("alive", _READ, "/healthz", alive),
        Route("alive", _READ, "/health", alive),
        Route("ready", _READ, "/readyz", ready),
    )


def is_local(request: Request) -> bool:
    """Tell whether the request was made on this machine and not handed on by a proxy here."""
    client = request.client
    if client is None or any(request.header(name) for name in _OF_PROXIES):
        return False
    try:
        return ip_address(client).is_loopback
    except ValueError:
        return False
