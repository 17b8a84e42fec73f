"""Images in the data of a registry, read beside its server, for `roadstead inspect`."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from roadstead.app.adoption import open_taken_up
from roadstead.app.plugs import Plugs
from roadstead.app.services import build_contents
from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.oci.pattern import Pattern
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.errors import ManifestUnknownError
from roadstead.registry.images import Images
from roadstead.registry.signed import SignedHere
from roadstead.settings.model import Settings


class ImageHere:
    """One repository of the data: what is served is what was derived last, where a rule matches."""

    def __init__(self, repository: RepositoryName, plugs: Plugs, settings: Settings) -> None:
        manifests, blobs = build_contents(plugs, settings)
        self._images = SignedHere(Images(manifests, blobs), plugs.database.catalog, plugs.database.lineage)
        self._lineage = plugs.database.lineage
        self._settings = settings
        self.repository = repository

    @property
    def origin(self) -> str:
        """Return whose image it is."""
        hosts = {upstream.host for upstream in self._settings.upstreams.registries}
        first = self.repository.components[0]
        return f"pulled through from {first}" if first in hosts else "hosted here"

    def rule(self, tag: Tag) -> str | None:
        """Return the pattern of the rule that a pull of this tag comes under."""
        rules = (rule.match for rule in self._settings.augment.rules)
        return next((text for text in rules if Pattern.parse(text).matches(self.repository, tag)), None)

    async def manifest(self, reference: Tag | Digest) -> tuple[str, bytes]:
        """Return media type and bytes of what a pull is answered with; raises ManifestUnknownError."""
        found = await self._images.manifest(self.repository, reference)
        if found is None:
            raise ManifestUnknownError(self.repository, reference)
        if isinstance(reference, Tag) and self.rule(reference) is not None:
            derived = await self._lineage.latest(self.repository, Digest.of(found[1]))
            made = None if derived is None else await self._images.manifest(self.repository, derived)
            found = made or found
        return found

    async def original(self, tag: Tag) -> Digest | None:
        """Return what was pushed under a tag."""
        found = await self._images.manifest(self.repository, tag)
        return None if found is None else Digest.of(found[1])

    async def blob(self, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob whole; raises BlobUnknownError, ContentTooLargeError."""
        return await self._images.blob(self.repository, digest, max_bytes=max_bytes)

    async def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """Return what refers to a manifest."""
        return await self._images.referrers(self.repository, digest)


@asynccontextmanager
async def image_here(repository: RepositoryName, settings: Settings) -> AsyncGenerator[ImageHere, None]:
    """Open database and storage for looking at one repository."""
    async with open_taken_up(settings) as plugs:
        yield ImageHere(repository, plugs, settings)
