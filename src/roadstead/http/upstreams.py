"""Names of upstreams' images over HTTP: what a path stands for, and the answers that the upstream has a part in."""

from collections.abc import Mapping

from roadstead.http.asgi import AnyResponse, Request
from roadstead.http.context import Services
from roadstead.http.names import split
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.proxy.errors import UpstreamReadOnlyError
from roadstead.proxy.spaces import Place

ASKED = "asked"
"""What a path names an upstream's repository by, where that isn't the name it has here."""

_NAMESPACE = "namespace"
_READ_ONLY = "read only"
_WRITES = frozenset({"POST", "PUT", "PATCH"})  # DELETE removes what is kept here, never anything there


async def routed(request: Request, found: Mapping[str, str], services: Services) -> Mapping[str, str]:
    """Return what a path says, with the name that an upstream's repository has here."""
    text = found.get("name")
    if services.proxy is None or text is None:
        return found
    before, name = split(text)
    namespace = request.parameter("ns") if request.scope["query_string"] else None
    route = await services.proxy.route(name, namespace, writing=request.method in _WRITES)
    if route.read_only is not None:
        # Told only once the caller is known to be allowed: it depends on what is here.
        return {**found, _READ_ONLY: route.read_only}
    if route.asked is None:
        return found
    more = {_NAMESPACE: route.namespace} if route.namespace is not None else {}
    return {**found, **more, "name": f"{before}{route.name}", ASKED: route.asked}


def asked_by(found: Mapping[str, str]) -> str | None:
    """Return the name that a client has a token for, where a default name is an upstream's (`library/app`).

    Not with ``?ns=``: there the same name may be one of ours, and its token isn't one for the upstream's.
    """
    asked = found.get(ASKED)
    return None if asked is None or _NAMESPACE in found else asked


def check_writable(found: Mapping[str, str]) -> None:
    """Raise UpstreamReadOnlyError for a write to what isn't ours."""
    host = found.get(_READ_ONLY)
    if host is not None:
        raise UpstreamReadOnlyError(found["name"], host)


def answered_for(response: AnyResponse, found: Mapping[str, str]) -> AnyResponse:
    """Say for which registry an answer is, where the client named one (distribution-spec, ``OCI-Namespace``)."""
    namespace = found.get(_NAMESPACE)
    if namespace is not None:
        response.headers = [*response.headers, (b"oci-namespace", namespace.encode())]
    return response


def place_of(services: Services, repository: RepositoryName) -> Place | None:
    """Return where a repository comes from; None for one of ours."""
    return None if services.proxy is None else services.proxy.place(repository)


def may_become_ours(services: Services, repository: RepositoryName, found: Mapping[str, str]) -> bool:
    """Say whether a name that is an upstream's by default would be ours once it is pushed to.

    Who pushes asks first which blobs are here, and then doesn't send them: the upstream's would be missing from ours.
    """
    place = None if asked_by(found) is None else place_of(services, repository)
    return place is not None and place.upstream.allow_push


async def freshened(services: Services, repository: RepositoryName, reference: Tag | Digest) -> Place | None:
    """Have an upstream's manifest here; return where it comes from, None for ours."""
    if services.proxy is None:
        return None
    place = services.proxy.place(repository)
    if place is not None:
        await services.proxy.freshen(place, reference)
    return place
