"""An image layout: images as files in a folder (image-spec image-layout.md), to copy from and to."""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkstemp
from typing import Any, BinaryIO

from roadstead.errors import InvalidError, NotFoundError
from roadstead.oci.descriptor import Descriptor, DescriptorInvalidError
from roadstead.oci.digest import Digest, Hasher
from roadstead.oci.mediatypes import OCI_INDEX
from roadstead.oci.reference import RepositoryName, Tag, TagInvalidError
from roadstead.oci.strict_json import JsonInvalidError, compact, parse_object
from roadstead.upstream.ports import FetchedManifest, ImageSource, ImageTarget, PushOutcome, Source

REFERENCE_NAME = "org.opencontainers.image.ref.name"
_PIECE = 1 << 20
_MAX_MANIFEST = 8 << 20
_MARKER = b'{"imageLayoutVersion":"1.0.0"}'


class LayoutInvalidError(InvalidError):
    """A folder isn't an image layout that can be read."""

    def __init__(self, directory: Path, reason: str) -> None:
        super().__init__(f"{directory} isn't an image layout: {reason}")
        self.directory = directory


class LayoutImageUnknownError(NotFoundError):
    """An image layout doesn't hold what was asked for."""

    def __init__(self, directory: Path, what: str) -> None:
        super().__init__(f"{directory}: {what} isn't there")
        self.what = what


@dataclass(slots=True)
class Layout:
    """A folder with ``index.json`` and ``blobs/``. A folder that isn't there is an empty layout."""

    directory: Path
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _index: list[dict[str, Any]] | None = None

    @property
    def place(self) -> str:
        """Return ``oci:DIR``."""
        return f"oci:{self.directory}"

    @property
    def host(self) -> str | None:
        """Return None: it's in no registry."""
        return None

    @property
    def repository(self) -> RepositoryName | None:
        """Return None: it's in no registry."""
        return None

    def only_image(self) -> Digest:
        """Return the digest of the one image that is there. Raises LayoutInvalidError if there are several."""
        found = {one.digest for one in self._entries() if not self._is_referrer(one)}
        if not found:
            what = "it holds no image" if self.directory.is_dir() else "there is no such folder"
            raise LayoutInvalidError(self.directory, what)
        if len(found) != 1:
            names = sorted(name for one in self._entries() if (name := one.annotations.get(REFERENCE_NAME)))
            told = f": {', '.join(names[:20])}" if names else ""
            raise LayoutInvalidError(self.directory, f"it holds {len(found)} images, say which one{told}")
        return found.pop()

    def tag_of(self, digest: Digest) -> Tag | None:
        """Return the tag that an image has there, None if it has none or several."""
        names = {one.annotations.get(REFERENCE_NAME, "") for one in self._entries() if one.digest == digest}
        try:
            # Some programs write the whole name, whose tag stands at the end.
            tags = {Tag.parse(name.rpartition(":")[2]) for name in names}
        except TagInvalidError:
            return None
        return tags.pop() if len(tags) == 1 else None

    async def find(self, reference: Tag | Digest) -> Descriptor | None:
        """Return what a name points at, None if nothing is there."""
        if isinstance(reference, Tag):
            return next((one for one in reversed(self._entries()) if _is_named(one, reference)), None)
        if not self._path(reference).is_file():
            return None
        listed = next((one for one in self._entries() if one.digest == reference), None)
        if listed is not None:
            return listed
        parsed = (await self.manifest(reference)).parsed()
        return Descriptor(parsed.media_type, reference, parsed.size)

    async def is_tagged(self, tag: Tag, digest: Digest, *, served: bool) -> bool:
        """Return False: what `find` gives is what is there."""
        return False

    async def manifest(self, reference: Tag | Digest) -> FetchedManifest:
        """Return a manifest, checked. Raises LayoutImageUnknownError, LayoutInvalidError."""
        digest, media_type = reference, ""
        if isinstance(reference, Tag):
            found = await self.find(reference)
            if found is None:
                raise LayoutImageUnknownError(self.directory, f"the name {reference}")
            digest, media_type = found.digest, found.media_type
        assert isinstance(digest, Digest)  # noqa: S101 (a tag has been replaced)
        raw = await asyncio.to_thread(self._read, digest)
        if Digest.of(raw, digest.algorithm) != digest:
            raise LayoutInvalidError(self.directory, f"{self._path(digest)} holds something else than its name says")
        return FetchedManifest(raw, media_type, digest)

    async def blob(self, digest: Digest, *, start: int, size: int) -> AsyncGenerator[bytes, None]:
        """Yield a blob's bytes from *start* on. Raises LayoutImageUnknownError, LayoutInvalidError for another size."""
        path = self._path(digest)
        try:
            file = path.open("rb")
        except FileNotFoundError as error:
            raise LayoutImageUnknownError(self.directory, f"the blob {digest}") from error
        with file:
            if os.fstat(file.fileno()).st_size != size:
                raise LayoutInvalidError(self.directory, f"{path} hasn't the {size} bytes that the manifest says")
            file.seek(start)
            while piece := await asyncio.to_thread(file.read, _PIECE):
                yield piece

    async def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """Return the manifests of ``index.json`` whose subject is *digest*."""
        return [one for one in self._entries() if self._is_referrer(one, digest)]

    async def push_blob(
        self, digest: Digest, size: int, source: Source, mount_from: RepositoryName | None
    ) -> PushOutcome:
        """Have a blob there: written beside its place, compared with its digest, then renamed."""
        path = self._path(digest)
        if path.is_file() and path.stat().st_size == size:
            return PushOutcome.PRESENT
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = mkstemp(dir=path.parent, prefix=".arriving-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                hasher = Hasher(digest.algorithm)
                async for piece in source(0):
                    await asyncio.to_thread(_append, file, hasher, piece)
                hasher.verify(digest)
            await asyncio.to_thread(_settle, Path(name), path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(name).unlink()
            raise
        return PushOutcome.PUSHED

    async def put_manifest(self, reference: Tag | Digest, manifest: FetchedManifest) -> None:
        """Write a manifest, and list it if it has a name or a subject."""
        parsed = manifest.parsed()
        await self.push_blob(manifest.digest, len(manifest.raw), lambda start: _once(manifest.raw[start:]), None)
        if not isinstance(reference, Tag) and parsed.subject is None:
            return
        entry = parsed.referrer_descriptor().as_json() if parsed.subject else parsed.descriptor().as_json()
        entry["digest"] = str(manifest.digest)
        if isinstance(reference, Tag):
            entry["annotations"] = {REFERENCE_NAME: str(reference)}
        async with self._lock:
            self._entries()
            assert self._index is not None  # noqa: S101 (just read)
            others = [one for one in self._index if not _replaces(entry, one)]
            self._index = [*others, entry]
            await asyncio.to_thread(self._write_index)

    def _entries(self) -> list[Descriptor]:
        if self._index is None:
            path = self.directory / "index.json"
            try:
                document = parse_object(path.read_bytes())
                entries = document.get("manifests") or []
                self._index = [one for one in entries if Descriptor.parse(one)]
            except FileNotFoundError:
                self._index = []
            except (OSError, JsonInvalidError, DescriptorInvalidError, TypeError) as error:
                raise LayoutInvalidError(self.directory, f"index.json: {error}") from error
        return [Descriptor.parse(one) for one in self._index]

    def _is_referrer(self, entry: Descriptor, subject: Digest | None = None) -> bool:
        try:
            parsed = FetchedManifest(self._read(entry.digest), entry.media_type, entry.digest).parsed()
        except (InvalidError, LayoutImageUnknownError):
            return False
        return parsed.subject is not None and subject in {None, parsed.subject.digest}

    def _write_index(self) -> None:
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self._index}
        for name, content in (("oci-layout", _MARKER), ("index.json", compact(index))):
            descriptor, temporary = mkstemp(dir=self.directory, prefix=".arriving-")
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            _settle(Path(temporary), self.directory / name)

    def _read(self, digest: Digest) -> bytes:
        try:
            with self._path(digest).open("rb") as file:
                return file.read(_MAX_MANIFEST)
        except FileNotFoundError as error:
            raise LayoutImageUnknownError(self.directory, f"the manifest {digest}") from error

    def _path(self, digest: Digest) -> Path:
        return self.directory / "blobs" / digest.algorithm.value / digest.encoded


def _is_named(entry: Descriptor, tag: Tag) -> bool:
    """Tell whether an entry has the name: by itself, or at the end of a whole one, as some programs write it."""
    name = entry.annotations.get(REFERENCE_NAME, "")
    return name == str(tag) or name.endswith(f":{tag}")


def _replaces(entry: dict[str, Any], other: dict[str, Any]) -> bool:
    name = entry.get("annotations", {}).get(REFERENCE_NAME)
    other_name = (other.get("annotations") or {}).get(REFERENCE_NAME)
    if name is not None and other_name == name:
        return True
    return other_name == name and bool(other["digest"] == entry["digest"])


def _append(file: BinaryIO, hasher: Hasher, piece: bytes) -> None:
    file.write(piece)
    hasher.update(piece)


def _settle(temporary: Path, path: Path) -> None:
    temporary.chmod(0o644)  # mkstemp's files are for their owner alone
    temporary.replace(path)


async def _once(data: bytes) -> AsyncGenerator[bytes, None]:
    if data:
        yield data


def _fits(layout: Layout) -> tuple[ImageSource, ImageTarget]:
    """Have the type checker compare it with its ports."""
    return layout, layout
