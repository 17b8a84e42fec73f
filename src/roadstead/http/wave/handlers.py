"""Wave's API over HTTP: tokens asked for, looked at and ended, and what else its clients ask."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import msgspec

from roadstead.augment.container_token import ContainerToken
from roadstead.augment.containers import Issued, Order
from roadstead.augment.plan import Plan
from roadstead.augment.ports import Served
from roadstead.auth.caller import Action, Caller
from roadstead.auth.errors import AccessDeniedError
from roadstead.errors import NotFoundError
from roadstead.http.api.mount import check_origin
from roadstead.http.asgi import Request, Response
from roadstead.http.bodies import read_whole
from roadstead.http.context import Services
from roadstead.http.names import RESERVED
from roadstead.http.rights import Rights
from roadstead.http.routes import PathUnknownError
from roadstead.http.upstreams import freshened, place_of
from roadstead.http.wave.door import ContainerDoor
from roadstead.http.wave.errors import ImageMissingError, RequestInvalidError
from roadstead.http.wave.images import Meant, meant
from roadstead.http.wave.requests import MAX_BODY, Wish, decode, redacted, wished
from roadstead.http.wave.wire import ContainerAnswer, ContainerBody, CredentialsBody, Described, JsonObject
from roadstead.limits.rates import source
from roadstead.oci.digest import Digest
from roadstead.upstream.errors import UpstreamDeniedError

MAX_SMALL_BODY = 64 << 10
STATUS = "status"

_JSON = (b"content-type", b"application/json")
_KEPT_BY_NOBODY = (b"cache-control", b"no-store")
_HEADERS = (_JSON, _KEPT_BY_NOBODY, (b"x-content-type-options", b"nosniff"))


class TokensClosedError(AccessDeniedError):
    """Nobody can sign in here, and tokens aren't for everybody."""

    def __init__(self) -> None:
        super().__init__("container tokens are not given to those who have not signed in")

    def advice(self) -> str:
        """Say what opens them."""
        return "Sign in, or have the operator set augment.anonymous_tokens, which lets everybody ask for them."


async def first(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Give a token (``POST /container-token``)."""
    return await _issue(request, services, second=False)


async def second(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Give a token (``POST /v1alpha2/container``)."""
    return await _issue(request, services, second=True)


async def _issue(request: Request, services: Services, *, second: bool) -> Response:
    door = await opened(request, services)
    body = decode(ContainerBody, await read_whole(request, "the request", max_bytes=MAX_BODY))
    wish = wished(body, second=second)
    image = await meant(services, wish.image, own_hosts(request, door))
    await _admit(request, services, door, image, body.tower_access_token)
    source = await _source(services, image, wish.image)
    caller = request.rights.caller
    order = Order(
        creator=caller.principal,
        key_id=_key_of(caller),
        repository=image.repository,
        path=image.path,
        reference=image.reference,
        plan=await _plan(request, door, services, wish, image),
    )
    served = await door.containers.derived(order, source)
    described = _described(request, body, image, source, served)
    issued = await door.containers.issue(order, described)
    return answered(_told(issued, image, served, _host(request, door), second=second))


async def _plan(request: Request, door: ContainerDoor, services: Services, wish: Wish, image: Meant) -> Plan | None:
    """Have the layers, and return the plan: for all platforms of what is here, for the settings' of an upstream's."""
    place = place_of(services, image.repository)
    platforms = wish.platforms or (() if place is None else place.upstream.platforms)
    layers = await door.containers.layers(
        wish.layers,
        wish.includes,
        platforms=platforms,
        may_pull=partial(_may_pull, request.rights),
        who=request.rights.holder or source(request.client or ""),
        own_hosts=own_hosts(request, door),
    )
    plan = wish.plan(layers, door.profile)
    return plan if plan is None or not platforms else replace(plan, platforms=platforms)


def _may_pull(rights: Rights, repository: str) -> bool:
    """Say whether a caller may pull a repository; names below ``wt/`` and the like are none."""
    return repository.partition("/")[0] not in RESERVED and rights.may(Action.PULL, repository)


def _key_of(caller: Caller) -> str | None:
    return caller.via.removeprefix("key ") if caller.via.startswith("key ") else None


async def _admit(
    request: Request, services: Services, door: ContainerDoor, image: Meant, access_token: str | None
) -> None:
    """Let nobody through who may not pull and augment the image; before anybody looks whether it is there.

    An API key may come where Wave's clients put the access token of their platform.
    """
    repository = str(image.repository)
    guard = services.guard
    if guard is None:
        if not door.anonymous:
            raise TokensClosedError
        return
    authorization = f"Bearer {access_token}" if access_token else None
    await guard.admit_to(request, Action.PULL, repository, authorization=authorization)
    if not request.rights.may(Action.AUGMENT, repository):
        await guard.admit_to(request, Action.AUGMENT, repository, authorization=authorization)
    if request.rights.caller.is_anonymous and not door.anonymous:
        raise guard.ask(request, Action.AUGMENT, repository, "sign in to ask for a container token")
    if services.limits is not None:
        services.limits.admit_user(request)


async def _source(services: Services, image: Meant, asked: str) -> Served:
    """Return what the image is now; raises ImageMissingError."""
    try:
        await freshened(services, image.repository, image.reference)
        record = await services.manifests.get(image.repository, image.reference)
        if services.admission is not None:
            await services.admission.check(image.repository, record.digest)
    except (NotFoundError, UpstreamDeniedError) as error:
        raise ImageMissingError(asked, _where_else(services, image, asked)) from error
    return Served(record.digest, record.media_type, record.size)


def _where_else(services: Services, image: Meant, asked: str) -> str | None:
    if place_of(services, image.repository) is not None:
        return "Perhaps its registry has it for those alone who sign in: see username and password of [[upstreams]]."
    if services.proxy is None:
        return "Push it here first, or name its registry in [[upstreams]] to have it pulled from there."
    return "It was sought among the images that were pushed here; of another registry, write its host before it."


def _described(request: Request, body: ContainerBody, image: Meant, source: Served, served: Served) -> str:
    described = Described(
        container_image=body.container_image or "",
        container_config=redacted(body.container_config),
        platform=body.container_platform,
        workspace_id=body.tower_workspace_id,
        tower_endpoint=body.tower_endpoint,
        fingerprint=body.fingerprint,
        timestamp=body.timestamp,
        ip_address=request.client,
        source_image=image.target,
        source_digest=str(source.digest),
        wave_digest=str(served.digest),
    )
    return msgspec.json.encode(described).decode()


def _told(issued: Issued, image: Meant, served: Served, host: str, *, second: bool) -> ContainerAnswer:
    digest = served.digest
    answer = ContainerAnswer(
        container_token=issued.text,
        target_image=image.below(host, issued.text, digest),
        request_id=issued.text,
        expiration=_moment(issued.token.expires_at),
        container_image=image.target,
        target_digest=str(digest),
    )
    if second:
        answer.freeze, answer.mirror, answer.succeeded = False, False, True
    return answer


# Tokens that are there ---------------------------------------------------------------------------------------------


async def show(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Tell what a token is for (``GET /container-token/TOKEN``)."""
    door = await opened(request, services)
    text = found["rest"]
    token = await door.open(text, request.client or "")
    described = msgspec.json.decode(token.described, type=Described)
    asked = {
        "user": _user(token),
        "workspaceId": described.workspace_id,
        "containerImage": described.container_image,
        "containerConfig": described.container_config,
        "platform": described.platform,
        "towerEndpoint": described.tower_endpoint,
        "fingerprint": described.fingerprint,
        "timestamp": described.timestamp,
        "ipAddress": described.ip_address,
    }
    answer = {
        "token": text,
        "expiration": _moment(token.expires_at),
        "request": _said(asked),
        "build": {"buildNew": False, "freeze": False},
        "source": {"image": described.source_image, "digest": described.source_digest},
        "wave": {"image": _pulled_as(request, door, token, text, described), "digest": described.wave_digest},
    }
    return answered(answer)


async def describe(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Tell the same as one flat record, or only how far it is (``GET /v1alpha2/container/ID``, ``…/status``)."""
    door = await opened(request, services)
    text, slash, more = found["rest"].partition("/")
    if slash and more != STATUS:
        raise PathUnknownError("/v1alpha2/container/…")
    token = await door.open(text, request.client or "")
    if slash:  # nothing is built: what was answered is there
        moment = _moment(token.created_at)
        return answered({"id": text, "status": "DONE", "succeeded": True, "creationTime": moment, "duration": 0})
    described = msgspec.json.decode(token.described, type=Described)
    record = {
        "id": text,
        "user": _user(token),
        "workspaceId": described.workspace_id,
        "containerImage": described.container_image,
        "containerConfig": described.container_config,
        "platform": described.platform,
        "towerEndpoint": described.tower_endpoint,
        "fingerprint": described.fingerprint,
        "timestamp": described.timestamp or _moment(token.created_at),
        "ipAddress": described.ip_address,
        "sourceImage": described.source_image,
        "sourceDigest": described.source_digest,
        "waveImage": _pulled_as(request, door, token, text, described),
        "waveDigest": described.wave_digest,
        "expiration": _moment(token.expires_at),
        "buildNew": False,
        "freeze": False,
        "mirror": False,
    }
    return answered(_said(record))


async def end(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """End a token (``DELETE /container-token/TOKEN``): whoever made it may, and administrators."""
    door = await opened(request, services)
    check_origin(request, door.origin)
    token = await door.find(found["rest"], request.client or "")
    guard = services.guard
    if guard is not None:
        await guard.identify(request)
        if not _made(request, token) and not request.rights.may(Action.ADMIN, None):
            raise guard.refusal(request, "end this container token")
    await door.containers.end(token)
    return Response(200, _HEADERS, b"{}")


def _made(request: Request, token: ContainerToken) -> bool:
    """Say whether the sender made the token; of those who haven't signed in nobody knows."""
    principal = request.rights.principal
    same = (principal.kind, principal.name) == (token.creator.kind, token.creator.name)
    return same and not request.rights.caller.is_anonymous


def _user(token: ContainerToken) -> JsonObject | None:
    return {"id": str(token.creator)} if token.creator.name else None


def _pulled_as(request: Request, door: ContainerDoor, token: ContainerToken, text: str, described: Described) -> str:
    image = Meant(token.repository, token.path, token.reference)
    return image.below(_host(request, door), text, Digest.parse(described.wave_digest))


# What else is asked ------------------------------------------------------------------------------------------------


async def service_info(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Tell the version (``GET /service-info``)."""
    return answered({"serviceInfo": {"version": _version(), "commitId": "roadstead"}})


async def validate(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Say whether a registry takes a name and a password (``POST /validate-creds``): ``true`` or ``false``."""
    door = await opened(request, services)
    body = decode(CredentialsBody, await read_whole(request, "the request", max_bytes=MAX_SMALL_BODY))
    body = body.request or body
    for name, value in (("userName", body.user_name), ("password", body.password), ("registry", body.registry)):
        if value is None or not value.strip():
            raise RequestInvalidError(name, "it is missing or blank")
    door.asking.admit(request.client or "")
    good = await door.outward.accepts((body.registry or "").strip(), body.user_name or "", body.password or "")
    return answered(good)


# Shared -------------------------------------------------------------------------------------------------------------


async def opened(request: Request, services: Services) -> ContainerDoor:
    if services.containers is None:
        raise PathUnknownError(request.path)
    if not services.gate.is_open:
        await services.gate.check()
    if request.method == "POST":
        check_origin(request, services.containers.origin)
    return services.containers


def own_hosts(request: Request, door: ContainerDoor) -> frozenset[str]:
    """Return the hosts that are us: as we are known, and as this client calls us."""
    return frozenset({_host(request, door), (request.header(b"host") or "").lower()}) - {""}


def _host(request: Request, door: ContainerDoor) -> str:
    return urlsplit(door.origin).netloc.lower() or (request.header(b"host") or "").lower()


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _said(members: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def answered(value: object) -> Response:
    return Response(200, _HEADERS, msgspec.json.encode(value))


@cache
def _version() -> str:
    return version("roadstead")
