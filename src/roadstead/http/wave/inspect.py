"""``POST /v1alpha1/inspect``: an image's manifest and config, of ours, of an upstream's, or of a public registry's."""

from collections.abc import Mapping
from dataclasses import dataclass

from roadstead.auth.caller import Action
from roadstead.errors import NotFoundError
from roadstead.http.asgi import Request, Response
from roadstead.http.bodies import read_whole
from roadstead.http.context import Services
from roadstead.http.upstreams import freshened, place_of
from roadstead.http.wave.door import ContainerDoor
from roadstead.http.wave.errors import ImageUnknownError, RequestInvalidError
from roadstead.http.wave.handlers import MAX_SMALL_BODY, answered, opened, own_hosts
from roadstead.http.wave.images import meant
from roadstead.http.wave.requests import decode, image_name, platforms
from roadstead.http.wave.wire import InspectBody, JsonObject
from roadstead.oci import mediatypes
from roadstead.oci.descriptor import Platform
from roadstead.oci.digest import Digest
from roadstead.oci.manifest import ImageIndex, ImageManifest, parse_manifest
from roadstead.oci.reference import DEFAULT_TAG, ImageReference, ReferenceInvalidError, RepositoryName, Tag
from roadstead.oci.strict_json import parse_object
from roadstead.upstream.address import RegistryAddress
from roadstead.upstream.errors import UpstreamDeniedError

MAX_CONFIG = 4 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """A manifest: its bytes, type and digest."""

    raw: bytes
    media_type: str
    digest: Digest


class _Ours:
    """An image of a repository that is here, or is had from its upstream."""

    def __init__(self, services: Services, repository: RepositoryName, asked: str) -> None:
        self._services = services
        self._repository = repository
        self._asked = asked

    async def manifest(self, reference: Tag | Digest) -> Found:
        try:
            await freshened(self._services, self._repository, reference)
            record = await self._services.manifests.get(self._repository, reference)
        except (NotFoundError, UpstreamDeniedError) as error:
            raise ImageUnknownError(self._asked) from error
        return Found(await self._services.manifests.content(record.digest), record.media_type, record.digest)

    async def blob(self, digest: Digest) -> bytes:
        place = place_of(self._services, self._repository)
        if place is not None and self._services.proxy is not None:
            await self._services.proxy.have(place, digest)
        blob = await self._services.blobs.get(self._repository, digest)
        if blob.size > MAX_CONFIG:
            raise ImageUnknownError(self._asked)
        return await self._services.blobs.content(blob)


class _Theirs:
    """An image of a registry that settings don't name, asked as nobody."""

    def __init__(self, door: ContainerDoor, image: ImageReference) -> None:
        self._door = door
        self._image = image

    async def manifest(self, reference: Tag | Digest) -> Found:
        digest = reference if isinstance(reference, Digest) else None
        fetched = await self._door.outward.manifest(self._image, digest)
        return Found(fetched.raw, fetched.media_type, fetched.digest)

    async def blob(self, digest: Digest) -> bytes:
        return await self._door.outward.blob(self._image, digest, max_bytes=MAX_CONFIG)


async def inspect(request: Request, found: Mapping[str, str], services: Services) -> Response:
    """Tell of an index which manifests it lists, of an image its manifest and config."""
    door = await opened(request, services)
    body = decode(InspectBody, await read_whole(request, "the request", max_bytes=MAX_SMALL_BODY))
    text = image_name(body.container_image)
    platform = _platform(request.parameter("platform"))
    door.asking.admit(request.client or "")
    image = _named(text)
    source: _Ours | _Theirs
    if _is_elsewhere(services, door, request, image, text):
        source, host, name = _Theirs(door, image), image.host, image.repository
        reference = image.digest or image.tag or Tag(DEFAULT_TAG)
    else:
        ours = await meant(services, text, own_hosts(request, door))
        if services.guard is not None:
            said = f"Bearer {body.tower_access_token}" if body.tower_access_token else None
            await services.guard.admit_to(request, Action.PULL, str(ours.repository), authorization=said)
        place = place_of(services, ours.repository)
        host = place.upstream.host if place is not None else next(iter(sorted(own_hosts(request, door))), "")
        source, name, reference = (
            _Ours(services, ours.repository, text),
            RepositoryName.parse(ours.path),
            ours.reference,
        )
    manifest = await source.manifest(reference)
    parsed = parse_manifest(manifest.raw, manifest.media_type)
    if isinstance(parsed, ImageIndex):
        if platform is None:
            return answered({"index": {**parse_object(manifest.raw), "digest": str(manifest.digest)}})
        manifest = await source.manifest(_chosen(parsed, platform, text))
        parsed = parse_manifest(manifest.raw, manifest.media_type)
    if not isinstance(parsed, ImageManifest):
        raise ImageUnknownError(text)
    container: JsonObject = {
        "registry": host,
        "hostName": RegistryAddress.parse(host).url if host else "",
        "imageName": str(name),
        "reference": str(reference),
        "digest": str(manifest.digest),
        "config": parse_object(await source.blob(parsed.config.digest)) if parsed.is_image else None,
        "manifest": parse_object(manifest.raw),
        "v1": False,
        "v2": parsed.media_type in mediatypes.DOCKER_MANIFESTS,
        "oci": parsed.media_type not in mediatypes.DOCKER_MANIFESTS,
    }
    return answered({"container": container})


def _is_elsewhere(services: Services, door: ContainerDoor, request: Request, image: ImageReference, text: str) -> bool:
    """Say whether a name has a host that is neither ours nor one that settings name."""
    first = text.partition("/")[0]
    has_host = image.host == first or first in ("index.docker.io", "docker.io")
    if not has_host or image.host in own_hosts(request, door):
        return False
    proxy = services.proxy
    return proxy is None or ":" in image.host or image.host not in proxy.hosts


def _named(text: str) -> ImageReference:
    try:
        return ImageReference.parse(text)
    except ReferenceInvalidError as error:
        raise RequestInvalidError("containerImage", str(error), error.advice()) from error


def _platform(text: str | None) -> Platform | None:
    found = platforms(text or None)
    if len(found) > 1:
        raise RequestInvalidError("platform", "it names several; an image is for one")
    return found[0] if found else None


def _chosen(index: ImageIndex, platform: Platform, text: str) -> Digest:
    for entry in index.manifests:
        if entry.platform is not None and platform.matches(entry.platform):
            return entry.digest
    raise ImageUnknownError(f"{text} for {platform}")
