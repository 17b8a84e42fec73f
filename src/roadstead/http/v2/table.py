"""The table of routes of the registry's API, each with the spec's name of the endpoint."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from roadstead.auth.caller import Action
from roadstead.http import health
from roadstead.http.asgi import AnyResponse, Request
from roadstead.http.context import Services
from roadstead.http.routes import Route
from roadstead.http.v2 import base, blobs, listings, manifests, uploads
from roadstead.registry.errors import ReadOnlyError

READ = ("GET", "HEAD")

ROUTES = (
    Route("end-1", READ, "/v2/", base.ping, Action.PULL),
    # A redirect to the slash would lose the credentials of some clients.
    Route("end-1", READ, "/v2", base.ping, Action.PULL),
    Route("catalog", READ, "/v2/_catalog", listings.repositories, Action.CATALOG),
    Route("end-2", READ, "/v2/{name}/blobs/{digest}", blobs.read, Action.PULL),
    Route("end-10", ("DELETE",), "/v2/{name}/blobs/{digest}", blobs.delete, Action.DELETE),
    Route("end-4", ("POST",), "/v2/{name}/blobs/uploads/", uploads.start, Action.PUSH),
    Route("end-4", ("POST",), "/v2/{name}/blobs/uploads", uploads.start, Action.PUSH),
    Route("end-13", READ, "/v2/{name}/blobs/uploads/{upload_id}", uploads.status, Action.PUSH),
    Route("end-5", ("PATCH",), "/v2/{name}/blobs/uploads/{upload_id}", uploads.append, Action.PUSH),
    Route("end-6", ("PUT",), "/v2/{name}/blobs/uploads/{upload_id}", uploads.commit, Action.PUSH),
    Route("end-14", ("DELETE",), "/v2/{name}/blobs/uploads/{upload_id}", uploads.cancel, Action.PUSH),
    Route("end-3", READ, "/v2/{name}/manifests/{reference}", manifests.read, Action.PULL),
    Route("end-7", ("PUT",), "/v2/{name}/manifests/{reference}", manifests.write, Action.PUSH),
    Route("end-9", ("DELETE",), "/v2/{name}/manifests/{reference}", manifests.delete, Action.DELETE),
    Route("end-8", READ, "/v2/{name}/tags/list", listings.tags, Action.PULL),
    Route("end-12", READ, "/v2/{name}/referrers/{digest}", listings.referrers, Action.PULL),
    Route("alive", READ, "/healthz", health.alive),
    Route("alive", READ, "/health", health.alive),
    Route("ready", READ, "/readyz", health.ready),
    Route("metrics", READ, "/metrics", health.metrics, Action.ADMIN),
)


def read_only(routes: Iterable[Route]) -> Iterator[Route]:
    """Yield the routes with every one that isn't for reading answered 405."""
    for route in routes:
        yield route if route.methods == READ else replace(route, handler=_refuse)


async def _refuse(request: Request, found: Mapping[str, str], services: Services) -> AnyResponse:
    raise ReadOnlyError
