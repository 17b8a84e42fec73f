"""Images from files, brought into the registry the way that a push brings them: verified, durable, with their links.

What is there already isn't read again, so loading twice does nothing twice. An image comes whole or not at all: where
something is missing or damaged it is left out, told, and the next one follows.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from roadstead.errors import ConflictError, DeniedError, InvalidError, NotFoundError
from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest, DigestMismatchError
from roadstead.oci.manifest import AnyManifest, ImageIndex, ManifestInvalidError, parse_manifest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.blobs import Blobs
from roadstead.registry.bundle import BundleInvalidError
from roadstead.registry.collision import Collides, never
from roadstead.registry.errors import BlobUnknownError, ManifestUnknownError, SizeMismatchError
from roadstead.registry.manifests import Manifests
from roadstead.registry.pump import BodyBrokenError
from roadstead.registry.saved_images import Saved, SavedImage
from roadstead.registry.told import Told
from roadstead.registry.uploads import Uploads

MAX_NESTING = 8
"""Indexes in indexes; nobody needs more than two."""

_PIECE = 1 << 20

Progress = Callable[[str, "LoadReport"], None]


class LoadFinding(StrEnum):
    """What loading tells of; its value is the key in the report."""

    UNUSABLE = "entries that are no image for a registry, left out"
    UNNAMED = "images without a repository's name, left out (--repository NAME gives them one)"
    CLAIMED_TWICE = "names that two images claim; the first has it"
    MISSING = "images of which something is missing, left out"
    PARTIAL = "indexes of which only one platform is here: that image has the name"
    CHILDREN = "indexes of which platforms are missing, left out; those that are here came by their digests"
    DAMAGED = "images of which something is damaged, left out"
    REFUSED = "images that this registry's settings refuse, left out"
    SHADOWING = "names that are an upstream's by default: they are ours now, its images have its host in front"

    @property
    def leaves_out(self) -> bool:
        """Say whether something was asked for and isn't here now."""
        return self not in {LoadFinding.PARTIAL, LoadFinding.SHADOWING}


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image that is here now."""

    repository: RepositoryName
    tag: Tag | None
    digest: Digest

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}" if self.tag else f"{self.repository}@{self.digest}"


@dataclass(slots=True)
class LoadReport(Told[LoadFinding]):
    """What was loaded, and what there is to tell."""

    images: list[LoadedImage] = field(default_factory=list)
    blobs: int = 0  # stored
    blob_bytes: int = 0
    blobs_there: int = 0  # that the registry had

    @property
    def is_whole(self) -> bool:
        """Say whether everything came."""
        return not any(finding.leaves_out for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "images": [
                {
                    "repository": str(image.repository),
                    "tag": None if image.tag is None else str(image.tag),
                    "digest": str(image.digest),
                }
                for image in self.images
            ],
            "blobs": self.blobs,
            "blob_bytes": self.blob_bytes,
            "blobs_there": self.blobs_there,
            "findings": self.findings_as_json(),
        }


class _MissingError(Exception):
    """Content that an image needs is neither in the bundle nor in the repository."""

    def __init__(self, missing: Sequence[Digest]) -> None:
        super().__init__(", ".join(str(digest) for digest in missing[:3]) + (" …" if len(missing) > 3 else ""))


class Loader:
    """Brings images into a registry. Any number may run at once, beside a server too."""

    def __init__(
        self,
        manifests: Manifests,
        blobs: Blobs,
        uploads: Uploads,
        *,
        check_name: Callable[[RepositoryName], None] = lambda _name: None,
        progress: Progress = lambda _where, _report: None,
        collides: Collides = never,
    ) -> None:
        """`check_name` raises what is in the way of a write to a repository; `progress` hears where it is."""
        self._check_name = check_name
        self._collides = collides
        self._manifests = manifests
        self._blobs = blobs
        self._uploads = uploads
        self._progress = progress
        self._report = LoadReport()

    async def run(self, saved: Saved, repository: RepositoryName | None = None) -> LoadReport:
        """Load every image of a bundle, into `repository` or where its name says. Safe to cancel and to repeat."""
        for unusable in saved.unusable:
            self._report.tell(LoadFinding.UNUSABLE, f"{unusable.what}: {unusable.reason}")
        default = repository or _only_repository(saved.images)
        taken: dict[tuple[RepositoryName, Tag], Digest] = {}
        for image in saved.images:
            name = repository or image.name.repository or default
            tag = image.name.tag
            if name is None:
                self._report.tell(LoadFinding.UNNAMED, f"{tag or ''}@{image.descriptor.digest}")
            elif tag is not None and taken.setdefault((name, tag), image.descriptor.digest) != image.descriptor.digest:
                self._report.tell(LoadFinding.CLAIMED_TWICE, f"{name}:{tag}")
            else:
                await self._image(saved, name, tag, image.descriptor)
        return self._report

    async def _image(self, saved: Saved, repository: RepositoryName, tag: Tag | None, top: Descriptor) -> None:
        what = f"{repository}:{tag}" if tag else f"{repository}@{top.digest}"
        self._progress(what, self._report)
        try:
            self._check_name(repository)
            await _Image(self, saved, repository).load(top, tag, what)
            collision = self._collides(repository)
            if collision is not None:
                self._report.tell(LoadFinding.SHADOWING, str(collision))
        except _MissingError as error:
            self._report.tell(LoadFinding.MISSING, f"{what}: {error}")
        except (BundleInvalidError, ManifestInvalidError) as error:
            self._report.tell(LoadFinding.DAMAGED, f"{what}: {error.reason}")
        except (DigestMismatchError, SizeMismatchError, BodyBrokenError) as error:
            self._report.tell(LoadFinding.DAMAGED, f"{what}: {error}")
        except (InvalidError, ConflictError, DeniedError, NotFoundError) as error:
            self._report.tell(LoadFinding.REFUSED, f"{what}: {error}")


class _Image:
    """One image on its way in, with everything below it."""

    def __init__(self, loader: Loader, saved: Saved, repository: RepositoryName) -> None:
        self._manifests = loader._manifests  # noqa: SLF001 -- the loader's own other half
        self._blobs = loader._blobs  # noqa: SLF001
        self._uploads = loader._uploads  # noqa: SLF001
        self._report = loader._report  # noqa: SLF001
        self._progress = loader._progress  # noqa: SLF001
        self._saved = saved
        self._repository = repository
        self._parsed: dict[Digest, AnyManifest] = {}
        self._missing: dict[Digest, Sequence[Digest]] = {}
        self._put: set[Digest] = set()

    async def load(self, top: Descriptor, tag: Tag | None, what: str) -> None:
        missing = await self._missing_of(top, MAX_NESTING)
        if missing and isinstance(self._parsed.get(top.digest), ImageIndex):
            await self._what_is_here(top, tag, what, missing)
        elif missing:
            raise _MissingError(missing)
        else:
            await self._keep(top, tag)

    async def _keep(self, descriptor: Descriptor, tag: Tag | None) -> None:
        await self._store(descriptor, tag)
        self._report.images.append(LoadedImage(self._repository, tag, descriptor.digest))

    async def _what_is_here(self, index: Descriptor, tag: Tag | None, what: str, missing: Sequence[Digest]) -> None:
        """Store the whole images of an index that isn't, the only one under its name."""
        children = self._parsed[index.digest].references()
        images = [child for child in children if not (self._missing[child.digest] or child.is_attestation)]
        if not images:
            raise _MissingError(missing)
        # An engine that keeps one platform of an index saves it under the index's name all the same.
        if tag is not None and len(images) == 1:
            await self._keep(images[0], tag)
            self._report.tell(LoadFinding.PARTIAL, f"{what}: {images[0].platform or images[0].digest}")
            return
        for child in images:
            await self._keep(child, None)
        self._report.tell(LoadFinding.CHILDREN, f"{what}: {_MissingError(missing)}")

    async def _missing_of(self, descriptor: Descriptor, nesting: int) -> Sequence[Digest]:
        """Return what is missing of a manifest and everything below it; it is read by the way."""
        known = self._missing.get(descriptor.digest)
        if known is None:
            self._missing[descriptor.digest] = ()  # an index can't list itself, but what is damaged may seem to
            known = self._missing[descriptor.digest] = await self._look(descriptor, nesting)
        return known

    async def _look(self, descriptor: Descriptor, nesting: int) -> Sequence[Digest]:
        if nesting == 0:
            raise ManifestInvalidError(f"indexes are nested more than {MAX_NESTING} deep")
        digest = descriptor.digest
        if await asyncio.to_thread(self._saved.size, digest) is None:
            return () if await self._has_manifest(digest) else (digest,)
        raw = await asyncio.to_thread(self._saved.read, digest)
        if Digest.of(raw, digest.algorithm) != digest:
            raise DigestMismatchError(digest, Digest.of(raw, digest.algorithm))
        manifest = self._parsed[digest] = parse_manifest(raw, descriptor.media_type)
        missing: list[Digest] = []
        for needed in manifest.references():
            if isinstance(manifest, ImageIndex):
                missing += await self._missing_of(needed, nesting - 1)
            elif await asyncio.to_thread(self._saved.size, needed.digest) is None and needed.is_distributable:
                missing += [] if await self._has_blob(needed.digest) else [needed.digest]
        return missing

    async def _store(self, descriptor: Descriptor, tag: Tag | None) -> None:
        """Store a manifest with everything below it, what it needs before itself."""
        manifest = self._parsed.get(descriptor.digest)
        if manifest is None:  # the repository has it, whole
            record = await self._manifests.get(self._repository, descriptor.digest)
            raw, media_type = await self._manifests.content(record.digest), record.media_type
        else:
            raw, media_type = manifest.raw, manifest.media_type
            for needed in manifest.references():
                if isinstance(manifest, ImageIndex):
                    if needed.digest not in self._put:
                        await self._store(needed, None)
                else:
                    await self._blob(needed)
        tags = () if tag is None else (tag,)
        await self._manifests.put(self._repository, descriptor.digest, raw, media_type=media_type, tags=tags)
        self._put.add(descriptor.digest)

    async def _blob(self, descriptor: Descriptor) -> None:
        digest = descriptor.digest
        if await self._has_blob(digest) or await self._blobs.mount(self._repository, digest, None) is not None:
            self._report.blobs_there += 1
            return
        size = await asyncio.to_thread(self._saved.size, digest)
        if size is None:  # a layer that lives elsewhere, under its own URLs
            return
        if size != descriptor.size:
            raise SizeMismatchError(descriptor.size, size)
        await self._uploads.push(self._repository, _FileBody(self._saved, digest, size), digest)
        self._report.blobs += 1
        self._report.blob_bytes += size
        self._progress(str(self._repository), self._report)

    async def _has_blob(self, digest: Digest) -> bool:
        try:
            await self._blobs.promise(self._repository, digest)
        except BlobUnknownError:
            return False
        return True

    async def _has_manifest(self, digest: Digest) -> bool:
        try:
            await self._manifests.get(self._repository, digest)
        except ManifestUnknownError:
            return False
        return True


class _FileBody:
    """A file as the body of an upload (``registry.pump.Body``)."""

    def __init__(self, saved: Saved, digest: Digest, size: int) -> None:
        self._saved = saved
        self._digest = digest
        self.announced: int | None = size

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the file's bytes; raises BodyBrokenError where it has become shorter."""
        left = self.announced or 0
        stream = await asyncio.to_thread(self._saved.open, self._digest)
        with closing(stream):
            while left:
                piece = await asyncio.to_thread(stream.read, min(left, _PIECE))
                if not piece:
                    raise BodyBrokenError((self.announced or 0) - left)
                left -= len(piece)
                yield piece


def _only_repository(images: Sequence[SavedImage]) -> RepositoryName | None:
    """Return the one repository that any image names, for those that name none."""
    named = {image.name.repository for image in images if image.name.repository is not None}
    return named.pop() if len(named) == 1 else None
