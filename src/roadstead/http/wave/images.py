"""Which repository of ours a request for an image means (design decision 9): by its name, never by what is there."""

from dataclasses import dataclass

from roadstead.augment.locations import HERE
from roadstead.http.context import Services
from roadstead.http.names import RESERVED
from roadstead.http.wave.errors import RequestInvalidError
from roadstead.oci.digest import Digest
from roadstead.oci.reference import (
    CONTAINER_TOKENS,
    ImageReference,
    NameInvalidError,
    ReferenceInvalidError,
    RepositoryName,
    Tag,
)


@dataclass(frozen=True, slots=True)
class Meant:
    """An image: the repository that it has here, its name without a host, and its tag or digest."""

    repository: RepositoryName
    path: str
    reference: Tag | Digest

    @property
    def target(self) -> str:
        """Return the image's whole name here."""
        return f"{self.repository}{_behind(self.reference)}"

    def below(self, host: str, token: str, digest: Digest) -> str:
        """Return the name to pull below a token; one that was asked for by digest is pinned to what it became."""
        reference = self.reference if isinstance(self.reference, Tag) else digest
        return f"{host}/{CONTAINER_TOKENS}/{token}/{self.path}{_behind(reference)}"


def _behind(reference: Tag | Digest) -> str:
    return f":{reference}" if isinstance(reference, Tag) else f"@{reference}"


async def meant(services: Services, text: str, own_hosts: frozenset[str]) -> Meant:
    """Return what an image's name stands for; raises RequestInvalidError.

    With a host it is that registry's, which settings must name. Without one, or with ours, it is what the name stands
    for in a pull from here: one of ours, or an upstream's for which it is a default. Without a host a single word is
    first sought below ``library/``, as Docker does.
    """
    try:
        reference = ImageReference.parse(text, default_host=HERE)
    except ReferenceInvalidError as error:
        raise RequestInvalidError("containerImage", str(error), error.advice()) from error
    wanted = reference.reference
    if wanted is None:
        raise RequestInvalidError("containerImage", f"{text[:120]!r} has neither tag nor digest")
    name = reference.repository
    if reference.host in own_hosts or reference.host == HERE:
        if name.components[0] in RESERVED:
            raise RequestInvalidError(
                "containerImage", f"names below {name.components[0]}/ are not images of their own"
            )
        repository = await (_of_default if reference.host == HERE else _as_pulled)(services, name)
    else:
        repository = _of_upstream(services, reference.host, name)
    place = None if services.proxy is None else services.proxy.place(repository)
    return Meant(repository, str(repository if place is None else place.remote), wanted)


async def _of_default(services: Services, name: RepositoryName) -> RepositoryName:
    if services.proxy is None:
        return name
    if len(name.components) == 1:
        found = await services.proxy.route(f"library/{name}", None, writing=False)
        if found.asked is not None:
            return RepositoryName.parse(found.name)
    return await _as_pulled(services, name)


async def _as_pulled(services: Services, name: RepositoryName) -> RepositoryName:
    if services.proxy is None:
        return name
    return RepositoryName.parse((await services.proxy.route(str(name), None, writing=False)).name)


def _of_upstream(services: Services, host: str, name: RepositoryName) -> RepositoryName:
    unknown = RequestInvalidError(
        "containerImage",
        f"the registry {host} is not one that images are pulled from here",
        "Its operator adds it to the settings: [[upstreams]] with its host.",
    )
    if services.proxy is None or ":" in host:
        raise unknown
    try:
        repository = RepositoryName.parse(f"{host}/{name}")
    except NameInvalidError as error:  # a host in capitals is no upstream's
        raise unknown from error
    if services.proxy.place(repository) is None:
        raise unknown
    return repository
