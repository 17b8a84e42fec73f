"""What the server knows of an image that somebody may pull: read as their pull would be, and put together.

Who may is decided before. An image that isn't served for want of a signature is told of by its digest alone, and why.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from roadstead.augment.container_token import ContainerToken
from roadstead.augment.containers import Containers
from roadstead.augment.inspecting import Source
from roadstead.augment.ports import Served
from roadstead.http.context import Services
from roadstead.http.names import Named
from roadstead.http.upstreams import freshened, place_of
from roadstead.http.v2.manifests import found_served
from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.errors import BlobUnknownError
from roadstead.signatures.errors import ImageUnsignedError
from roadstead.signatures.ports import Verdict


class ImageServed:
    """An image as a pull of its name has it."""

    def __init__(self, services: Services, named: Named, asked: RepositoryName | None) -> None:
        """`asked` is the name that an upstream's repository was asked for by, where it is another."""
        self._services = services
        self._named = named
        self._asked = asked
        self._repository = named.repository

    @property
    def name(self) -> str:
        """Return the repository's name."""
        return str(self._repository)

    @property
    def origin(self) -> str:
        """Return whose image it is."""
        place = place_of(self._services, self._repository)
        return "hosted here" if place is None else f"pulled through from {place.upstream.host}"

    def rule(self, tag: Tag) -> str | None:
        """Return the pattern of the rule that a pull of this tag comes under."""
        if self._named.original:
            return None
        return self._services.augmenter.rule_for(self._repository, tag, also=self._asked)

    async def manifest(self, reference: Tag | Digest) -> tuple[str, bytes]:
        """Return media type and bytes of what a pull is answered with; raises ManifestUnknownError."""
        asked = None if self._asked is None else str(self._asked)
        try:
            served = await found_served(self._services, self._named, reference, asked)
        except ImageUnsignedError:  # nothing is made of it; what is wrong with it is told all the same
            record = await self._services.manifests.get(self._repository, reference)
            served = Served(record.digest, record.media_type, record.size)
        return served.media_type, await self._services.manifests.content(served.digest)

    async def original(self, tag: Tag) -> Digest | None:
        """Return what was pushed under a tag."""
        return (await self._services.manifests.get(self._repository, tag)).digest

    async def blob(self, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob whole; raises BlobUnknownError, ContentTooLargeError."""
        return await self._services.reading.blob(self._repository, digest, max_bytes=max_bytes)

    async def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """Return what refers to a manifest; of what was made here the upstream knows nothing."""
        if await self._services.augmenter.sources_of(self._repository, digest):
            return await listed_here(self._services, self._repository, digest)
        return await self._services.reading.referrers(self._repository, digest)

    async def verdicts(self, digest: Digest) -> Sequence[Verdict]:
        """Return what each policy for the repository says of a manifest."""
        if self._services.admission is None:
            return ()
        original = self._named.original and self._named.at is None
        return await self._services.admission.verdicts(self._repository, digest, original=original)


class ImageOfToken:
    """An image as a pull below a container token has it."""

    def __init__(self, services: Services, containers: Containers, token: ContainerToken) -> None:
        self._services = services
        self._containers = containers
        self._token = token
        self.name = str(token.repository)
        self.origin = "made for a container token"

    def rule(self, tag: Tag) -> str | None:
        """Return None: a token goes before rules."""
        return None

    async def manifest(self, reference: Tag | Digest) -> tuple[str, bytes]:
        """Return media type and bytes of what a pull is answered with; raises ManifestUnknownError."""
        token, served = self._token, None
        if isinstance(reference, Digest):
            served = await self._containers.find_derived(token, reference)
        if served is None:
            await freshened(self._services, token.repository, reference)
            record = await self._services.manifests.get(token.repository, reference)
            served = Served(record.digest, record.media_type, record.size)
            if isinstance(reference, Tag):
                served = await self._made_of(served)
        return served.media_type, await self._services.manifests.content(served.digest)

    async def _made_of(self, source: Served) -> Served:
        try:
            return await self._containers.served(self._token, source)
        except ImageUnsignedError:  # as above
            return source

    async def original(self, tag: Tag) -> Digest | None:
        """Return what was pushed under a tag."""
        return (await self._services.manifests.get(self._token.repository, tag)).digest

    async def blob(self, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob whole, of what was made or of the image's repository."""
        reading = self._services.reading
        if self._token.space is not None:
            try:
                return await reading.blob(self._token.space, digest, max_bytes=max_bytes)
            except BlobUnknownError:
                pass
        return await reading.blob(self._token.repository, digest, max_bytes=max_bytes)

    async def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """Return what refers to a manifest: of what was made, what is said here."""
        space = self._token.space
        if space is not None and await self._containers.find_derived(self._token, digest) is not None:
            return await listed_here(self._services, space, digest)
        return await self._services.reading.referrers(self._token.repository, digest)

    async def verdicts(self, digest: Digest) -> Sequence[Verdict]:
        """Return what each policy says of a manifest, or of what it was made of."""
        admission, space = self._services.admission, self._token.space
        if admission is None:
            return ()
        origins = () if space is None else await self._services.reading.made_from(space, digest)
        judged = [await admission.verdicts(self._token.repository, one) for one in origins or (digest,)]
        return min(judged, key=lambda verdicts: sum(not verdict.holds for verdict in verdicts))


async def listed_here(services: Services, repository: RepositoryName, digest: Digest) -> Sequence[Descriptor]:
    """Return what refers to a manifest, as far as it is here."""
    page = await services.catalog.referrers(repository, digest, artifact_type=None, after="", n=None)
    return [
        Descriptor(one.media_type, one.digest, one.size, annotations=one.annotations, artifact_type=one.artifact_type)
        for one in page.items
    ]


if TYPE_CHECKING:
    _: tuple[type[Source], type[Source]] = (ImageServed, ImageOfToken)
