"""Pulls below ``/v2/wt/TOKEN/IMAGE/``: the token says which image and what is added; nothing else is asked for."""

from collections.abc import Awaitable, Callable, Mapping

from roadstead.augment.container_token import ContainerPathError, ContainerToken
from roadstead.augment.containers import Containers
from roadstead.augment.ports import Served
from roadstead.auth.caller import Action
from roadstead.http.asgi import AnyResponse, Request, Response
from roadstead.http.context import Services
from roadstead.http.names import parse_digest, parse_wanted
from roadstead.http.routes import PathUnknownError, Route
from roadstead.http.upstreams import ASKED, freshened
from roadstead.http.v2 import blobs, listings, manifests
from roadstead.http.wave.door import ContainerDoor, TokenRights
from roadstead.oci.digest import Digest
from roadstead.oci.reference import CONTAINER_TOKENS, Tag
from roadstead.registry.errors import BlobUnknownError, ReadOnlyNameError

BEGINNING = f"{CONTAINER_TOKENS}/"


async def admitted(request: Request, route: Route, found: Mapping[str, str], services: Services) -> Mapping[str, str]:
    """Return what a path below a token says, with the repository's own name, and note whose token it is.

    Raises ReadOnlyNameError, ContainerPathError, and what `ContainerDoor.open` does.
    """
    named = found["name"]
    if route.needs is not Action.PULL:
        raise ReadOnlyNameError(f"{CONTAINER_TOKENS}/…")
    token, _ = await token_of(request, named, services)
    request.rights = TokenRights(token, named)
    return {**found, "name": str(token.repository)}


async def token_of(request: Request, named: str, services: Services) -> tuple[ContainerToken, Containers]:
    """Return the token that a name begins with, and what resolves it; raises the same."""
    door = _door(services, request)
    text, _, path = named.removeprefix(BEGINNING).partition("/")
    token = await door.open(text, request.client or "")
    if path != token.path:
        raise ContainerPathError(path, token.path)
    return token, door.containers


async def handled(request: Request, route: Route, found: Mapping[str, str], services: Services) -> AnyResponse:
    """Answer a request that `admitted` has let through."""
    rights, handler = request.rights, _HANDLERS.get(route.name)
    if handler is None or not isinstance(rights, TokenRights):
        raise PathUnknownError("/v2/wt/…")
    return await handler(request, found, services, rights)


async def _manifest(request: Request, found: Mapping[str, str], services: Services, rights: TokenRights) -> AnyResponse:
    """Give the image as the token has it by tag; by digest the exact bytes, of what was derived or of the image."""
    token, asked = rights.token, parse_wanted(found["reference"])
    containers = _door(services, request).containers
    reference = asked
    if services.lineage is not None and token.space is not None and isinstance(asked, Tag):
        reference = await manifests.signature_made_here(services, services.lineage, token.space, asked) or asked
    served = await containers.find_derived(token, reference) if isinstance(reference, Digest) else None
    if served is None:
        await freshened(services, token.repository, reference)
        record = await services.manifests.get(token.repository, reference)
        served = Served(record.digest, record.media_type, record.size)
        if services.admission is not None:
            await services.admission.check(token.repository, served.digest)
        if isinstance(reference, Tag):
            served = await containers.served(token, served)
    return await manifests.answered(request, services, token.repository, asked, served)


async def _blob(request: Request, found: Mapping[str, str], services: Services, rights: TokenRights) -> AnyResponse:
    """Give a blob of what was derived, or of the image's repository."""
    token, digest = rights.token, parse_digest(found["digest"])
    if token.space is not None:
        try:
            blob = await services.blobs.get(token.space, digest)
        except BlobUnknownError:
            pass
        else:
            return await blobs.answered(request, services, token.repository, digest, blob)
        if (derived := await _door(services, request).containers.find_derived(token, digest)) is not None:
            # containerd asks so for a manifest that it didn't find.
            return await manifests.answered(request, services, token.repository, digest, derived)
    return await blobs.read(request, found, services)


async def _tags(request: Request, found: Mapping[str, str], services: Services, rights: TokenRights) -> AnyResponse:
    """List the tags of the image's repository; each can be pulled, and is augmented alike."""
    response = await listings.tags(request, {**found, ASKED: rights.named}, services)
    return _below(response, rights)


async def _referrers(
    request: Request, found: Mapping[str, str], services: Services, rights: TokenRights
) -> AnyResponse:
    """List what refers to a digest: of the image's own what was pushed, of what was derived what we say of it."""
    digest, space = parse_digest(found["digest"]), rights.token.space
    if space is None or await _door(services, request).containers.find_derived(rights.token, digest) is None:
        return _below(await listings.referrers(request, found, services), rights)
    within = await listings.referrers(request, {**found, "name": str(space)}, services)
    return _below(within, rights, str(space))


def _below(response: Response, rights: TokenRights, listed: str | None = None) -> Response:
    """Return the answer with its link to the next page below the token, too, and not to the repository `listed`."""
    ours, theirs = f"</v2/{listed or rights.token.repository}/".encode(), f"</v2/{rights.named}/".encode()
    response.headers = [
        (name, value.replace(ours, theirs, 1) if name == b"link" else value) for name, value in response.headers
    ]
    return response


def _door(services: Services, request: Request) -> ContainerDoor:
    if services.containers is None:
        raise PathUnknownError(request.path)
    return services.containers


_Handler = Callable[[Request, Mapping[str, str], Services, TokenRights], Awaitable[AnyResponse]]
_HANDLERS: Mapping[str, _Handler] = {"end-3": _manifest, "end-2": _blob, "end-8": _tags, "end-12": _referrers}
