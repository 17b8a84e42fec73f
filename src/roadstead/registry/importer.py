"""Taking up a tree that distribution wrote, where it lies: no blob is copied, read or moved.

What is read: the sizes of all blobs (from listings), every link, every manifest. Rows are written in batches, each
whole by itself, and the last repository that is here whole is kept: an import that was interrupted goes on there.
Memory doesn't grow with the tree.

Nothing in the tree stops an import: what can't be taken up is told (`Report`), and the rest is.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from roadstead.clock import Clock
from roadstead.errors import ConflictError, NotFoundError, UnavailableError
from roadstead.oci import mediatypes
from roadstead.oci.digest import Digest, Hasher
from roadstead.oci.reference import RepositoryName
from roadstead.registry.collision import Collides, never
from roadstead.registry.ports import (
    FoundBlob,
    FoundManifest,
    FoundTag,
    ImportState,
    ImportStatus,
    ImportStore,
    ManifestReference,
    NewManifest,
    ReferenceKind,
)
from roadstead.registry.told import Told
from roadstead.registry.tree import (
    Link,
    NotAManifestError,
    Sections,
    TagFolder,
    Tree,
    fallback_subject,
    parse_name,
    parse_tag,
    read_manifest,
)
from roadstead.storage import keys
from roadstead.storage.ports import Driver, KeyInfo

MAX_MANIFEST_BYTES = 16 << 20
"""More is no manifest: distribution takes 4 MiB."""

_BLOBS_AT_ONCE = 1000
_MANIFESTS_AT_ONCE = 32  # so many are in memory together


class TreeMissingError(NotFoundError):
    """There is nothing to take up."""

    def __init__(self, where: str) -> None:
        super().__init__(f"there are no repositories below {where}/{keys.ROOT}")

    def advice(self) -> str:
        """Say what the address has to be."""
        return "Name distribution's storage.filesystem.rootdirectory, or s3://BUCKET/ROOTDIRECTORY."


class NotImportedError(ConflictError):
    """An adoption can't end that hasn't begun, or isn't through."""

    def __init__(self, state: ImportState) -> None:
        super().__init__(f"no tree was taken up whole yet (the import is in state {state.value!r})")

    def advice(self) -> str:
        """Say what has to come first."""
        return "Run roadstead import without --finish first."


class WrittenMeanwhileError(ConflictError):
    """An adoption can't end while the tree holds images of somebody else's that nobody has taken up."""

    def __init__(self, repositories: Sequence[str]) -> None:
        self.repositories = repositories
        super().__init__(
            "somebody else has written into the tree (docker-registry?) since it was taken up: "
            + ", ".join(repositories)
        )

    def advice(self) -> str:
        """Say what has to come first, and why."""
        return "Run roadstead import without --finish first: what it doesn't know would be collected."


class ImportUnderWayError(ConflictError):
    """Another process takes the same tree up."""

    def __init__(self) -> None:
        super().__init__("another process is taking up the images in this storage just now")


class ImportRunningError(UnavailableError):
    """The database is being built from the tree: what it doesn't know yet may well be there."""

    retry_after_s = 5

    def __init__(self, after: str) -> None:
        through = f"; it is through with {after}" if after else ""
        super().__init__(f"the registry is taking up the images in its storage{through}; try again soon")


class Finding(StrEnum):
    """What an import tells of; its value is the key in the report."""

    NAME_INVALID = "names that break the grammar, left out"
    WITHOUT_MANIFESTS = "repositories without manifests"
    LINK_DAMAGED = "links that are empty or cut short, left out"
    LAYER_MISSING = "links to blobs that are not there, left out"
    BLOB_DAMAGED = "blobs that are not what their names say, left out"
    MANIFEST_MISSING = "manifests whose bytes are not there, left out"
    MANIFEST_DAMAGED = "manifests whose bytes are damaged, left out"
    SCHEMA_1 = "manifests in Docker's schema 1, kept as they are"
    UNUSUAL = "manifests of other kinds, kept as they are"
    WITHOUT_REVISION = "manifests that only a tag names, taken up"
    TAG_DAMAGED = "tags that point nowhere, left out"
    TAG_DANGLING = "tags whose manifest is not there, left out"
    CONTENT_MISSING = "references of manifests to what is not there"
    UPLOADS = "unfinished uploads, ignored"
    UNREACHABLE = "repositories that nobody can pull: their names mean something else here; copy them to other names"
    SHADOWING = "repositories that hide an upstream's images of the same names, which its own host still gives"

    @property
    def is_damage(self) -> bool:
        """Say whether something is lost that the other registry had, or seemed to have.

        Links to blobs that aren't there are no loss: its garbage collection leaves them behind.
        """
        return self not in _HARMLESS


_HARMLESS = frozenset(
    {
        Finding.WITHOUT_MANIFESTS,
        Finding.LAYER_MISSING,
        Finding.SCHEMA_1,
        Finding.UNUSUAL,
        Finding.WITHOUT_REVISION,
        Finding.UPLOADS,
        Finding.SHADOWING,
    }
)


@dataclass(slots=True)
class Report(Told[Finding]):
    """What an import has taken up, and what it has to tell."""

    repositories: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    layer_links: int = 0
    manifests: int = 0
    tags: int = 0
    referrers: int = 0  # that only a fallback tag made known

    @property
    def is_whole(self) -> bool:
        """Say whether nothing is damaged or was left out."""
        return not any(finding.is_damage for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        counted = ("repositories", "blobs", "blob_bytes", "layer_links", "manifests", "tags", "referrers")
        return {name: getattr(self, name) for name in counted} | {"findings": self.findings_as_json()}


class Importer:
    """Takes up a tree. One at a time: the caller holds a lease, or nobody else is there yet."""

    def __init__(
        self,
        store: ImportStore,
        driver: Driver,
        clock: Clock,
        *,
        verify: bool = False,
        progress: Callable[[str, Report], None] = lambda _where, _report: None,
        collides: Collides = never,
    ) -> None:
        """`verify` reads every blob and compares its digest; `progress` hears where it is, often."""
        self._store = store
        self._driver = driver
        self._tree = Tree(driver)
        self._clock = clock
        self._verify = verify
        self._progress = progress
        self._collides = collides
        self._report = Report()

    async def run(self) -> Report:
        """Take up everything; safe to cancel and to run again, where it then goes on."""
        status = await self._begin()
        if not status.after:
            await self._blobs()
        async with aclosing(self._tree.repositories(after=status.after)) as repositories:
            async for name, sections in repositories:
                await self._repository(name, sections)
                status = ImportStatus(ImportState.RUNNING, status.begun_at, status.done_at, after=name)
                await self._store.set_status(status)
        await self._store.drop_manifest_blobs()
        await self._store.set_status(ImportStatus(ImportState.DONE, status.begun_at, self._clock.now()))
        return self._report

    async def _begin(self) -> ImportStatus:
        status = await self._store.status()
        if status.state is not ImportState.RUNNING:
            status = ImportStatus(ImportState.RUNNING, self._clock.now(), status.done_at)
            await self._store.set_status(status)
        return status

    # Blobs -------------------------------------------------------------------------------------------------------

    async def _blobs(self) -> None:
        """Make a row for all bytes there are: their sizes come with the listing."""
        batch: list[FoundBlob] = []
        async with aclosing(self._tree.blobs()) as listing:
            async for info in listing:
                blob = await self._blob(info)
                if blob is not None:
                    batch.append(blob)
                if len(batch) == _BLOBS_AT_ONCE:
                    await self._add_blobs(batch)
                    batch = []
        await self._add_blobs(batch)

    async def _blob(self, info: KeyInfo) -> FoundBlob | None:
        digest = keys.parse_blob_key(info.key)
        if digest is None:
            return None
        # A disk that was full leaves files without content.
        is_empty = info.size == 0 and digest != Digest.of(b"", digest.algorithm)
        if is_empty or (self._verify and await self._digest_of(info, digest) != digest):
            self._report.tell(Finding.BLOB_DAMAGED, str(digest))
            return None
        return FoundBlob(digest, info.size, info.key, info.modified)

    async def _digest_of(self, info: KeyInfo, digest: Digest) -> Digest:
        hasher = Hasher(digest.algorithm)
        async with aclosing(self._driver.read(info.key)) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(hasher.update, piece)
        return hasher.digest()

    async def _add_blobs(self, batch: Sequence[FoundBlob]) -> None:
        if batch:
            await self._store.add_blobs(batch)
            self._report.blobs += len(batch)
            self._report.blob_bytes += sum(blob.size for blob in batch)
            self._progress("blobs", self._report)

    # Repositories ------------------------------------------------------------------------------------------------

    async def _repository(self, name: str, sections: Sections) -> None:
        if sections.uploads:
            self._report.tell(Finding.UPLOADS, name, await self._tree.uploads(name))
        repository = parse_name(name)
        if repository is None:
            self._report.tell(Finding.NAME_INVALID, name)
            return
        if not (sections.manifests or sections.layers):
            return
        collision = self._collides(repository)
        if collision is not None:
            self._report.tell(Finding.SHADOWING if collision.reachable else Finding.UNREACHABLE, str(collision))
        await self._store.add_repository(repository, now=self._clock.now())
        before = self._report.manifests
        await self._layers(repository)
        if sections.manifests:
            await self._manifests(repository)
            await self._tags(repository)
        self._report.tell(Finding.CONTENT_MISSING, name, await self._store.settle(repository))
        self._report.repositories += 1
        if self._report.manifests == before:
            self._report.tell(Finding.WITHOUT_MANIFESTS, name)
        self._progress(name, self._report)

    async def _layers(self, repository: RepositoryName) -> None:
        async with aclosing(self._tree.layers(repository)) as batches:
            async for links in batches:
                known = self._sound(links)
                missing = await self._store.link_blobs(repository, known)
                for digest in missing:
                    self._report.tell(Finding.LAYER_MISSING, f"{repository}@{digest}")
                self._report.layer_links += len(known) - len(missing)

    def _sound(self, links: Sequence[Link]) -> list[tuple[Digest, Digest]]:
        """Return what links name and say; tell of those that say nothing."""
        sound: list[tuple[Digest, Digest]] = []
        for link in links:
            if link.named is None or link.target is None:
                self._report.tell(Finding.LINK_DAMAGED, link.key)
            else:
                sound.append((link.named, link.target))
        return sound

    async def _manifests(self, repository: RepositoryName) -> None:
        async with aclosing(self._tree.revisions(repository)) as batches:
            async for links in batches:
                at = {link.named: link.at for link in links}
                known = self._sound(links)
                held = await self._store.held(repository, [named for named, _ in known])
                self._report.manifests += len(held)
                new = [one for one in known if one[0] not in held]
                for start in range(0, len(new), _MANIFESTS_AT_ONCE):
                    part = new[start : start + _MANIFESTS_AT_ONCE]
                    found = await self._read_manifests(repository, part)
                    await self._add_manifests(repository, [FoundManifest(one, at[one.digest]) for one in found])
                    self._progress(str(repository), self._report)

    async def _add_manifests(self, repository: RepositoryName, found: Sequence[FoundManifest]) -> None:
        await self._store.add_manifests(repository, found)
        self._report.manifests += len(found)

    async def _read_manifests(
        self, repository: RepositoryName, links: Sequence[tuple[Digest, Digest]]
    ) -> Sequence[NewManifest]:
        """Return the manifests that these name, known by the first digest; tell of what isn't one."""
        contents = await self._tree.read_blobs([target for _, target in links], max_bytes=MAX_MANIFEST_BYTES)
        found: list[NewManifest] = []
        for (digest, _), raw in zip(links, contents, strict=True):
            where = f"{repository}@{digest}"
            manifest = None if raw is None else _parsed(raw, digest)
            if raw is None:
                self._report.tell(Finding.MANIFEST_MISSING, where)
            elif manifest is None:
                self._report.tell(Finding.MANIFEST_DAMAGED, where)
            else:
                found.append(manifest)
                self._tell_kind(manifest, where)
        return found

    def _tell_kind(self, manifest: NewManifest, where: str) -> None:
        if manifest.media_type in mediatypes.SCHEMA1_MANIFESTS:
            self._report.tell(Finding.SCHEMA_1, where)
        elif manifest.media_type not in mediatypes.MANIFESTS:
            self._report.tell(Finding.UNUSUAL, where)

    # Tags --------------------------------------------------------------------------------------------------------

    async def _tags(self, repository: RepositoryName) -> None:
        fallbacks: list[FoundTag] = []
        async with aclosing(self._tree.tags(repository)) as batches:
            async for folders in batches:
                found = [tag for tag in (self._tag(repository, folder) for folder in folders) if tag is not None]
                dangling = await self._add_tags(repository, found)
                self._report.tags += len(found) - len(dangling)
                fallbacks += [one for one in found if fallback_subject(one.tag) is not None]
                self._progress(str(repository), self._report)
                if len(fallbacks) >= _MANIFESTS_AT_ONCE:
                    await self._fallbacks(repository, fallbacks)
                    fallbacks = []
        await self._fallbacks(repository, fallbacks)

    def _tag(self, repository: RepositoryName, folder: TagFolder) -> FoundTag | None:
        tag = parse_tag(folder.name)
        if tag is None:
            self._report.tell(Finding.NAME_INVALID, f"{repository}:{folder.name}")
        elif folder.current is None or folder.current.target is None:
            self._report.tell(Finding.TAG_DAMAGED, f"{repository}:{folder.name}")
        else:
            return FoundTag(tag, folder.current.target, folder.current.at, folder.history())
        return None

    async def _add_tags(self, repository: RepositoryName, found: Sequence[FoundTag]) -> Sequence[FoundTag]:
        """Store tags, and manifests that only tags name (as releases of 2015 left them); return dangling tags."""
        dangling = await self._store.add_tags(repository, found)
        for start in range(0, len(dangling), _MANIFESTS_AT_ONCE):
            at = {one.digest: one.at for one in dangling[start : start + _MANIFESTS_AT_ONCE]}
            contents = await self._tree.read_blobs(list(at), max_bytes=MAX_MANIFEST_BYTES)
            parsed = [
                manifest
                for digest, raw in zip(at, contents, strict=True)
                if raw is not None and (manifest := _parsed(raw, digest)) is not None
            ]
            for manifest in parsed:
                self._report.tell(Finding.WITHOUT_REVISION, f"{repository}@{manifest.digest}")
            await self._add_manifests(repository, [FoundManifest(one, at[one.digest]) for one in parsed])
        dangling = await self._store.add_tags(repository, dangling) if dangling else ()
        for one in dangling:
            self._report.tell(Finding.TAG_DANGLING, f"{repository}:{one.tag}")
        return dangling

    async def _fallbacks(self, repository: RepositoryName, tags: Sequence[FoundTag]) -> None:
        """Let what fallback tags list be referrers, where a manifest doesn't say so itself."""
        contents = await self._tree.read_blobs([one.digest for one in tags], max_bytes=MAX_MANIFEST_BYTES)
        for one, raw in zip(tags, contents, strict=True):
            subject = fallback_subject(one.tag)
            index = None if raw is None else _parsed(raw, one.digest)
            if subject is None or index is None:
                continue
            listed = [reference for reference in index.references if reference.kind is ReferenceKind.CHILD]
            for start in range(0, len(listed), _MANIFESTS_AT_ONCE):
                await self._refer(repository, subject, listed[start : start + _MANIFESTS_AT_ONCE])

    async def _refer(self, repository: RepositoryName, subject: Digest, listed: Sequence[ManifestReference]) -> None:
        contents = await self._tree.read_blobs([one.digest for one in listed], max_bytes=MAX_MANIFEST_BYTES)
        found = [
            manifest
            for reference, raw in zip(listed, contents, strict=True)
            if raw is not None and (manifest := _parsed(raw, reference.digest)) is not None and manifest.subject is None
        ]
        if found:
            self._report.referrers += await self._store.add_referrers(repository, subject, found)


def _parsed(raw: bytes, digest: Digest) -> NewManifest | None:
    """Return the manifest, or None where the bytes aren't what the digest says or no manifest at all."""
    if Digest.of(raw, digest.algorithm) != digest:
        return None
    try:
        return read_manifest(raw, digest)
    except NotAManifestError:
        return None


class Gate:
    """Keeps requests out while the tree is taken up; once it is open, asking costs nothing."""

    def __init__(self, store: ImportStore, *, is_open: bool, guard: Callable[[], None] | None = None) -> None:
        """`guard` raises where this machine may not answer any more; with one the gate is looked at each time."""
        self._store = store
        self._all_is_here = is_open
        self._guard = guard

    @property
    def is_open(self) -> bool:
        """Say whether `check` need not be called."""
        return self._all_is_here and self._guard is None

    async def check(self) -> None:
        """Return once everything is here; raises ImportRunningError, and what the guard raises."""
        if self._guard is not None:
            self._guard()
        if self._all_is_here:
            return
        status = await self._store.status()
        if status.state is ImportState.RUNNING:
            raise ImportRunningError(status.after)
        self._all_is_here = True


async def open_gate(store: ImportStore, *, guard: Callable[[], None] | None = None) -> Gate:
    """Return the gate as it stands now."""
    status = await store.status()
    return Gate(store, is_open=status.state is not ImportState.RUNNING, guard=guard)


async def must_rebuild(store: ImportStore, driver: Driver, now: datetime) -> bool:
    """Say whether the database has to be built from the tree before anybody is served; from then on it counts as so.

    That is where an import was begun and isn't through, or an empty database meets a tree that isn't.
    """
    status = await store.status()
    if status.state is ImportState.RUNNING:
        return True
    if not await store.is_empty() or not await Tree(driver).is_there():
        return False
    await store.set_status(ImportStatus(ImportState.RUNNING, now))
    return True


async def finish(store: ImportStore) -> ImportStatus:
    """End the adoption: collection may touch what was taken up. Raises NotImportedError."""
    status = await store.status()
    if status.state not in (ImportState.DONE, ImportState.FINISHED):
        raise NotImportedError(status.state)
    finished = ImportStatus(ImportState.FINISHED, status.begun_at, status.done_at)
    await store.set_status(finished)
    return finished
