"""One repository of a registry, as a place to copy from and to."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.oci.manifest import AnyManifest
from roadstead.oci.mediatypes import OCI_INDEX
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.oci.strict_json import compact
from roadstead.upstream.client import RegistryClient, fallback_tag
from roadstead.upstream.ports import FetchedManifest, ImageSource, ImageTarget, PushOutcome, Source


@dataclass(slots=True)
class RemoteRepository:
    """A repository that a client can reach."""

    client: RegistryClient
    repository: RepositoryName
    fallback: bool = True
    """Whether referrers are also looked for under fallback tags; not where all tags are copied as they are."""

    writing: bool = False
    """Whether it's copied to; see ``RegistryClient.find_manifest``."""

    originals: bool = False
    """Whether tags mean what was pushed under them, where a Roadstead serves what its rules make of it."""

    _native: bool = True  # until the registry turns out to have no referrers API
    _fallback_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def place(self) -> str:
        """Return ``HOST/NAME``."""
        return f"{self.client.host}/{self.repository}"

    @property
    def host(self) -> str:
        """Return the registry's name."""
        return self.client.host

    async def find(self, reference: Tag | Digest) -> Descriptor | None:
        """Return what a name points at, None if nothing is there."""
        if not self.originals or isinstance(reference, Digest):
            return await self.client.find_manifest(self.repository, reference, writing=self.writing)
        original = await self.client.find_original(self.repository, reference, writing=self.writing)
        if original is not None:
            return original
        served = await self.client.find_manifest(self.repository, reference, writing=self.writing)
        if served is not None:
            self.client.rule_out_originals()
        return served

    async def is_tagged(self, tag: Tag, digest: Digest, *, served: bool) -> bool:
        """Tell whether a manifest was pushed under a tag, although another one is served under it, or none."""
        original = await self.client.find_original(self.repository, tag, writing=self.writing)
        if original is None and served:
            self.client.rule_out_originals()
        return original is not None and original.digest == digest

    async def manifest(self, reference: Tag | Digest) -> FetchedManifest:
        """Return a manifest, checked."""
        return await self.client.manifest(self.repository, reference)

    def blob(self, digest: Digest, *, start: int, size: int) -> AsyncGenerator[bytes, None]:
        """Yield a blob's bytes from *start* on."""
        return self.client.blob(self.repository, digest, start=start, size=size)

    async def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """Return the manifests whose subject is *digest*."""
        if self._native:
            found = await self.client.native_referrers(self.repository, digest)
            if found is not None:
                return found
            self._native = False
        return await self.client.fallback_referrers(self.repository, digest) if self.fallback else ()

    async def push_blob(
        self, digest: Digest, size: int, source: Source, mount_from: RepositoryName | None
    ) -> PushOutcome:
        """Have a blob there."""
        return await self.client.push_blob(self.repository, digest, size, source, mount_from=mount_from)

    async def put_manifest(self, reference: Tag | Digest, manifest: FetchedManifest) -> None:
        """Write a manifest; list it under its subject's fallback tag if the registry doesn't do so itself."""
        parsed = manifest.parsed()
        noted = await self.client.put_manifest(self.repository, reference, manifest.raw, parsed.media_type)
        if parsed.subject is not None and not noted:
            await self._list_referrer(parsed.subject.digest, parsed)

    async def _list_referrer(self, subject: Digest, referrer: AnyManifest) -> None:
        """Add to the fallback tag's index (distribution-spec, Pushing Manifests with Subject).

        Clients that do so at the same time lose each other's entries; within this process they take turns.
        """
        async with self._fallback_lock:
            listed = await self.client.fallback_referrers(self.repository, subject)
            if any(one.digest == referrer.digest for one in listed):
                return
            entries = [one.as_json() for one in (*listed, referrer.referrer_descriptor())]
            index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
            await self.client.put_manifest(self.repository, fallback_tag(subject), compact(index), OCI_INDEX)


def _fits(repository: RemoteRepository) -> tuple[ImageSource, ImageTarget]:
    """Have the type checker compare it with its ports."""
    return repository, repository
