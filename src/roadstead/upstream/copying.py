"""What it takes to copy an image: its children and blobs before it, what refers to it after it, nothing twice."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from roadstead.errors import InvalidError, NotFoundError
from roadstead.oci.descriptor import Descriptor, Platform
from roadstead.oci.digest import Digest
from roadstead.oci.image_config import ImageConfig
from roadstead.oci.manifest import ImageIndex, ImageManifest
from roadstead.oci.mediatypes import IMAGE_MANIFESTS
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.upstream.each import for_each
from roadstead.upstream.ports import ImageSource, ImageTarget, PushOutcome

MAX_REFERRERS = 10_000
"""What refers to one image, directly and by way of others: a registry that never ends is stopped here."""

_MAX_HOMES = 100_000
_MAX_CONFIG = 4 << 20  # bytes
_COSIGN = ("sig", "att", "sbom")
"""Before there were referrers cosign kept signatures, attestations and SBOMs under such tags."""


class ImageMissingError(NotFoundError):
    """The source doesn't have the image."""

    def __init__(self, place: str, reference: Tag | Digest) -> None:
        super().__init__(f"{place}{'@' if isinstance(reference, Digest) else ':'}{reference} isn't there")
        self.place = place
        self.reference = reference


class PlatformMissingError(NotFoundError):
    """The image isn't there for the platform that was asked for."""

    def __init__(self, place: str, wanted: Platform, there: Iterable[Platform]) -> None:
        names = ", ".join(sorted({str(platform) for platform in there if platform.os != "unknown"}))
        super().__init__(f"{place} has no image for {wanted}{f', only for {names}' if names else ''}")
        self.wanted = wanted


class ReferrersEndlessError(InvalidError):
    """A registry lists more and more manifests that refer to each other."""

    def __init__(self, place: str) -> None:
        super().__init__(f"{place}: more than {MAX_REFERRERS} manifests refer to one image")


@dataclass(slots=True)
class Tally:
    """What was done so far."""

    manifests: int = 0
    """Written."""

    manifests_present: int = 0
    """There already."""

    blobs: int = 0
    """Sent."""

    blobs_mounted: int = 0
    """Taken over from another repository of the target, without sending them."""

    blobs_present: int = 0
    blobs_elsewhere: int = 0
    """Left where their manifest says that they are: foreign layers."""

    bytes: int = 0
    """Sent."""


@dataclass(slots=True)
class Transfer:
    """A blob on its way."""

    what: str
    size: int
    sent: int = 0


@dataclass(slots=True)
class Copier:
    """Copies images, ``jobs`` blobs at a time. Several copies may run at once; no blob is sent twice meanwhile."""

    jobs: int = 4
    referrers: bool = True
    tally: Tally = field(default_factory=Tally)
    transfers: dict[int, Transfer] = field(default_factory=dict)
    """What is on its way now, for whoever shows it."""

    _slots: asyncio.Semaphore = field(init=False)
    _turns: "_Turns" = field(init=False)
    _homes: dict[tuple[str, Digest], RepositoryName] = field(default_factory=dict)
    """In which repository of a target a blob is: from there it's mounted into the next."""

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.jobs)
        self._turns = _Turns()

    async def copy(
        self,
        source: ImageSource,
        target: ImageTarget,
        reference: Tag | Digest,
        *,
        tag: Tag | None = None,
        platform: Platform | None = None,
        cosign: bool = False,
    ) -> Digest:
        """Have *reference* at the target, under *tag* if there is one; return its digest.

        Idempotent, and cheap where everything is there. With *platform* it's that platform's image alone. *cosign* has
        signatures that are kept under tags copied too. A copy that is given up leaves blobs and manifests that the
        next one finds, and never a tag without what it needs.
        """
        found = await source.find(reference)
        if found is None:
            raise ImageMissingError(source.place, reference)
        digest = found.digest if platform is None else await self._of_platform(source, found.digest, platform)
        members = await self._bring(source, target, digest, tag)
        if self.referrers:
            await self._bring_referrers(source, target, members)
        if self.referrers and cosign:
            await self._bring_cosign(source, target, members)
        return digest

    async def _of_platform(self, source: ImageSource, digest: Digest, wanted: Platform) -> Digest:
        fetched = await source.manifest(digest)
        parsed = fetched.parsed()
        if isinstance(parsed, ImageIndex):
            there = [one for one in parsed.manifests if one.platform is not None]
            for child in there:
                if child.platform is not None and child.platform.matches(wanted):
                    return child.digest
            raise PlatformMissingError(source.place, wanted, (one.platform for one in there if one.platform))
        if parsed.is_image and parsed.config.size <= _MAX_CONFIG:
            async with aclosing(source.blob(parsed.config.digest, start=0, size=parsed.config.size)) as pieces:
                config = ImageConfig.parse(b"".join([piece async for piece in pieces]))
            if not config.platform.matches(wanted):
                raise PlatformMissingError(source.place, wanted, [config.platform])
        return digest

    async def _bring_cosign(self, source: ImageSource, target: ImageTarget, members: list[Digest]) -> None:
        """Copy what cosign keeps about *members* under tags."""

        async def bring(tag: Tag) -> None:
            if found := await source.find(tag):
                await self._bring(source, target, found.digest, tag)

        names = (f"{one.algorithm}-{one.encoded[:64]}.{kind}" for one in members for kind in _COSIGN)
        await for_each((Tag.parse(name) for name in names), bring, limit=self.jobs)

    async def _bring_referrers(self, source: ImageSource, target: ImageTarget, members: list[Digest]) -> None:
        """Copy what refers to *members*, what refers to that, and so on."""
        waiting, seen = list(members), set(members)
        while waiting:
            subject = waiting.pop()
            for one in await source.referrers(subject):
                if one.digest not in seen:
                    fresh = await self._bring(source, target, one.digest, None)
                    waiting += [digest for digest in fresh if digest not in seen]
                    seen.update(fresh)
            if len(seen) > MAX_REFERRERS + len(members):
                raise ReferrersEndlessError(source.place)

    async def _bring(self, source: ImageSource, target: ImageTarget, digest: Digest, tag: Tag | None) -> list[Digest]:
        """Have a manifest at the target with all that it needs; return the digests it consists of, its own first.

        Manifests are written last, so one that is there has what it needs.
        """
        # Children are waited for, parents never: nobody waits in a circle.
        async with self._turns(target.place, digest):
            at_tag = await target.find(tag) if tag is not None else None
            tagged = at_tag is not None and at_tag.digest == digest
            there = at_tag if tagged else await target.find(digest)
            if tag is not None and not tagged and there is not None:
                tagged = await target.is_tagged(tag, digest, served=at_tag is not None)
            if there is not None and (tag is None or tagged) and not (self.referrers and _may_be_index(there)):
                self.tally.manifests_present += 1
                return [digest]
            fetched = await source.manifest(digest)
            parsed = fetched.parsed()
            members = [digest]
            if isinstance(parsed, ImageIndex):
                if there is None or self.referrers:
                    members += await self._bring_children(source, target, parsed)
            elif there is None:
                await self._bring_blobs(source, target, parsed)
            if there is None or (tag is not None and not tagged):
                await target.put_manifest(tag or digest, fetched)
                self.tally.manifests += 1
            else:
                self.tally.manifests_present += 1
            return members

    async def _bring_children(self, source: ImageSource, target: ImageTarget, index: ImageIndex) -> list[Digest]:
        members: list[Digest] = []

        async def bring(child: Descriptor) -> None:
            members.extend(await self._bring(source, target, child.digest, None))

        await for_each(_unique(index.manifests), bring, limit=self.jobs)
        return members

    async def _bring_blobs(self, source: ImageSource, target: ImageTarget, manifest: ImageManifest) -> None:
        async def bring(blob: Descriptor) -> None:
            if not blob.is_distributable and blob.urls:
                self.tally.blobs_elsewhere += 1
            else:
                await self._bring_blob(source, target, blob)

        await for_each(_unique(manifest.references()), bring, limit=self.jobs)

    async def _bring_blob(self, source: ImageSource, target: ImageTarget, blob: Descriptor) -> None:
        transfer = Transfer(f"{target.place}@{blob.digest}", blob.size)

        async def pieces(start: int) -> AsyncGenerator[bytes, None]:
            transfer.sent = start
            async with aclosing(source.blob(blob.digest, start=start, size=blob.size)) as arriving:
                async for piece in arriving:
                    yield piece
                    transfer.sent += len(piece)
                    self.tally.bytes += len(piece)

        # Who comes second to a blob finds it there, or mounts it.
        async with self._turns(target.host or target.place, blob.digest), self._slots:
            self.transfers[id(transfer)] = transfer
            try:
                outcome = await target.push_blob(
                    blob.digest, blob.size, pieces, self._home(source, target, blob.digest)
                )
            finally:
                del self.transfers[id(transfer)]
        self._count(outcome)
        self._remember(target, blob.digest)

    def _home(self, source: ImageSource, target: ImageTarget, digest: Digest) -> RepositoryName | None:
        if target.host is None:
            return None
        if source.host == target.host:
            return source.repository
        return self._homes.get((target.host, digest))

    def _remember(self, target: ImageTarget, digest: Digest) -> None:
        if target.host is not None and target.repository is not None:
            while len(self._homes) >= _MAX_HOMES:
                del self._homes[next(iter(self._homes))]
            self._homes[target.host, digest] = target.repository

    def _count(self, outcome: PushOutcome) -> None:
        match outcome:
            case PushOutcome.PUSHED:
                self.tally.blobs += 1
            case PushOutcome.MOUNTED:
                self.tally.blobs_mounted += 1
            case PushOutcome.PRESENT:
                self.tally.blobs_present += 1


class _Turns:
    """A lock for each key that is in use."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def __call__(self, *key: Hashable) -> AsyncIterator[None]:
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = lock, users - 1


def _may_be_index(descriptor: Descriptor) -> bool:
    return descriptor.media_type not in IMAGE_MANIFESTS


def _unique(descriptors: Iterable[Descriptor]) -> list[Descriptor]:
    return list({one.digest: one for one in descriptors}.values())
