"""Collection: what nothing needs goes, while the registry serves (docs/decisions/0010-collection.md).

A blob is needed while a manifest refers to it, or while its lease runs: whoever was told that it is here (a push, a
HEAD, a mount) may rely on that for a day. What isn't needed is condemned: not served any more, though whoever brings or
mounts it brings it back. A while later it is looked at again, under its row's lock, and taken for deletion; then its
bytes go, then its row. Nothing here trusts what it read: the store decides again where it writes.

The decisions are pure (`judge_blob`, `judge_manifest`); `Collector` carries them out in batches. Each batch is whole by
itself: a pass that was interrupted has lost nothing, and the next begins again. Memory doesn't grow with the registry.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import structlog

from roadstead.clock import Clock
from roadstead.errors import UnavailableError
from roadstead.oci.reference import RepositoryName
from roadstead.registry.ports import (
    BlobFacts,
    BlobRecord,
    BlobState,
    CatalogStore,
    CollectionStore,
    DoomedBlob,
    ImportState,
    ImportStore,
    ManifestFacts,
    TagAge,
)
from roadstead.registry.retention import KEEP_ALL, Retention
from roadstead.storage import keys
from roadstead.storage.arrivals import MAX_ARRIVAL
from roadstead.storage.ports import Driver, Key, delete_all

CONDEMNED_FOR = timedelta(seconds=60)
"""How long a condemned blob waits at the least: a reader that found it before has opened it by then."""

CLAIM = timedelta(minutes=5)
"""How long whoever took a blob may begin to remove its bytes. A process that slept longer leaves it to the next."""

LONGEST_REQUEST = timedelta(minutes=6)
"""The longest that one call of a driver takes. S3: four attempts of 5 s to connect and 60 s to answer, and the pauses
between them; a request whose client has given up, or died, may still be carried out until then."""

ABANDONED_AFTER = timedelta(minutes=15)
"""When somebody else takes over. Longer than `CLAIM` and `LONGEST_REQUEST` together: nothing that the first one sent
can reach storage after the row is gone and the same digest was pushed again."""

PROMPT = timedelta(seconds=4)
"""A call that took no longer than this sent one request, and its answer came: less than the shortest time limit."""

STRAY_LEASE = 4 * MAX_ARRIVAL
"""How long a stray is left alone once it was found: a push that is about to make its row finds this one."""

LONGEST_WAIT = timedelta(seconds=1)
"""How long collection gives way after a batch at the most: a slow bucket isn't made slower still."""

PAGE = 500
DELETED_AT_ONCE = 250  # so few that a bucket answers promptly
STAGED_AT_ONCE = 10_000  # no index leads from a place to its blob: all rows are looked through, so for many at once
PROGRESS_EVERY = 100_000

_START = (0, "")
_log = structlog.get_logger()


class Untagged(StrEnum):
    """What becomes of manifests that no tag, index or subject keeps."""

    KEEP = "keep"  # as distribution does: whoever knows the digest can pull it
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What may go, and when."""

    untagged: Untagged = Untagged.KEEP
    untagged_after: timedelta = timedelta(days=7)
    stray_after: timedelta = timedelta(hours=24)
    staged_after: timedelta = timedelta(days=8)  # longer than any upload goes on
    retention: Retention = KEEP_ALL


class Fate(StrEnum):
    """What a pass finds of a blob or a manifest."""

    # These stay.
    REFERENCED = "referenced"
    LEASED = "leased"
    TAGGED = "tagged"
    LISTED = "listed"
    REFERRER = "referrer"
    DERIVED = "derived"
    UNTAGGED_KEPT = "untagged-kept"
    YOUNG = "young"
    # These go.
    UNLINK = "unlink"
    UNNEEDED = "unneeded"
    WAITING = "waiting"
    DUE = "due"
    DELETING = "deleting"
    UNTAGGED = "untagged"
    SOURCELESS = "sourceless"
    EXPIRED = "expired"

    @property
    def goes(self) -> bool:
        """Say whether bytes or a manifest go, now or soon; an unlinked blob stays."""
        return self in _GOING

    @property
    def reason(self) -> str:
        """Return why, for people."""
        return _REASONS[self]


_GOING = frozenset({Fate.UNNEEDED, Fate.WAITING, Fate.DUE, Fate.DELETING, Fate.UNTAGGED, Fate.SOURCELESS, Fate.EXPIRED})

_REASONS: Mapping[Fate, str] = {
    Fate.REFERENCED: "a manifest refers to it",
    Fate.LEASED: "it was pushed, asked for or mounted lately, or is a layer of a rule",
    Fate.TAGGED: "a tag points at it",
    Fate.LISTED: "an index lists it",
    Fate.REFERRER: "it refers to a subject that is here",
    Fate.DERIVED: "it was derived from an image that is here",
    Fate.UNTAGGED_KEPT: "nothing points at it, and untagged manifests are kept",
    Fate.YOUNG: "it was pushed or lost its tag lately",
    Fate.UNLINK: "a manifest refers to it, but not in every repository that may serve it: those lose it",
    Fate.UNNEEDED: "nothing refers to it",
    Fate.WAITING: "nothing refers to it; it is not served any more and its bytes go soon",
    Fate.DUE: "nothing refers to it, and it has waited long enough",
    Fate.DELETING: "its bytes are being removed",
    Fate.UNTAGGED: "no tag, index or subject keeps it",
    Fate.SOURCELESS: "it was derived from an image that is gone",
    Fate.EXPIRED: "a retention rule keeps it no longer",
}


def judge_blob(facts: BlobFacts, now: datetime) -> Fate:
    """Return what becomes of a blob. Pure."""
    if facts.state is BlobState.DELETING:
        return Fate.DELETING
    if facts.state is BlobState.CONDEMNED:
        is_due = facts.since <= now - CONDEMNED_FOR and facts.lease_until <= now
        return Fate.DUE if is_due else Fate.WAITING
    if facts.lease_until > now:
        return Fate.LEASED
    if not facts.referenced:
        return Fate.UNNEEDED
    return Fate.UNLINK if facts.idle_link else Fate.REFERENCED


def judge_manifest(facts: ManifestFacts, policy: Policy, now: datetime) -> Fate:
    """Return what becomes of a manifest. Pure."""
    if facts.tagged:
        return Fate.TAGGED
    if facts.listed:
        return Fate.LISTED
    if facts.derived:
        return Fate.DERIVED if facts.source_here else Fate.SOURCELESS
    if facts.subject_here:
        return Fate.REFERRER
    if policy.untagged is Untagged.KEEP:
        return Fate.UNTAGGED_KEPT
    return Fate.UNTAGGED if facts.since <= now - policy.untagged_after else Fate.YOUNG


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a pass has done so far."""

    tags: int = 0  # removed by retention
    manifests: int = 0  # removed
    condemned: int = 0
    blobs: int = 0  # removed, bytes and rows
    freed: int = 0  # bytes
    postponed: int = 0  # taken, and left to a later pass: storage didn't answer, or not at once

    @property
    def total(self) -> int:
        """Return how much there was to do."""
        return self.tags + self.manifests + self.condemned + self.blobs + self.postponed


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """A tag, a manifest or a blob, and what the next pass does with it. Of tags only those that go are told."""

    kind: str  # "tag", "manifest" or "blob"
    digest: str
    repository: str | None  # of a tag or manifest
    size: int
    fate: Fate
    tag: str | None = None
    needed_by: str | None = None  # REPOSITORY@DIGEST, a manifest that needs the blob


async def remove_bytes(driver: Driver, clock: Clock, taken: Sequence[DoomedBlob]) -> Sequence[DoomedBlob]:
    """Remove the bytes of blobs that were taken; return those whose are gone, and that nothing sent can follow."""
    mine = [blob for blob in taken if clock.now() <= blob.since + CLAIM]  # asleep meanwhile: somebody may have them
    # The bytes of the others are known by another digest first, and go with that one.
    own = [blob.key for blob in mine if keys.parse_blob_key(blob.key) in (None, blob.digest)]
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        kept = await driver.delete_many(own)
    except UnavailableError as error:
        _log.warning("the bytes of blobs could not be removed yet", blobs=len(own), reason=str(error))
        return ()
    for key, reason in kept.items():
        _log.warning("the bytes of a blob could not be removed yet", key=key, reason=reason)
    # A slow call may have sent its request twice, and the first may be carried out after the second was answered.
    is_prompt = loop.time() - started < PROMPT.total_seconds()
    return [blob for blob in mine if blob.key not in kept] if is_prompt else ()


@asynccontextmanager
async def _giving_way() -> AsyncGenerator[None, None]:
    """Wait afterwards for as long as a batch took: clients have the database for half of the time."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    yield
    await asyncio.sleep(min(loop.time() - began, LONGEST_WAIT.total_seconds()))


class Collector:
    """Collects. Any number may run at once, in any processes: the store keeps them apart."""

    def __init__(
        self,
        store: CollectionStore,
        catalog: CatalogStore,
        driver: Driver,
        clock: Clock,
        policy: Policy,
        *,
        imports: ImportStore | None = None,
    ) -> None:
        """`imports` tells whether what is here was taken up from another registry, which may want it back."""
        self._store = store
        self._catalog = catalog
        self._driver = driver
        self._clock = clock
        self._policy = policy
        self._imports = imports

    async def run(self) -> Tally:
        """Do one pass: tags, manifests, blobs, then the bytes of those condemned long enough. Safe to cancel."""
        tally = Tally()
        if await self.is_adopted():
            _log.info("collection waits for the end of the adoption (roadstead import --finish)")
            return tally
        await self.expire_tags(tally)
        await self.collect_manifests(tally)
        await self.condemn(tally)
        await self.remove(tally)
        return tally

    async def expire_tags(self, tally: Tally) -> None:
        """Remove tags that retention keeps no longer."""
        async with aclosing(self._expired()) as expired:
            async for repository, tag in expired:
                if await self._store.expire_tag(repository, tag, now=self._clock.now()):
                    tally.tags += 1
                    _log.info("tag expired", repository=str(repository), tag=str(tag.tag), digest=str(tag.digest))

    async def _expired(self) -> AsyncGenerator[tuple[RepositoryName, TagAge], None]:
        """Yield the tags that go. The tags of one repository are in memory together, to tell the newest."""
        if not self._policy.retention.rules:
            return
        after = ""
        while names := await self._catalog.repositories(after=after, limit=PAGE):
            for name in names:
                repository = RepositoryName.parse(name)
                tags = await self._tags(repository)
                for tag in self._policy.retention.expired(repository, tags, self._clock.now()):
                    yield repository, tag
            after = names[-1]

    async def _tags(self, repository: RepositoryName) -> Sequence[TagAge]:
        found: list[TagAge] = []
        while page := await self._store.tag_ages(repository, after=found[-1].tag.value if found else "", limit=PAGE):
            found += page
        return found

    async def collect_manifests(self, tally: Tally) -> None:
        """Remove manifests that nothing keeps, again and again: an index that goes keeps its children no more."""
        while await self._collect_manifests_once(tally):
            pass

    async def _collect_manifests_once(self, tally: Tally) -> bool:
        found = False
        async with aclosing(self._manifests()) as facts:
            async for manifest in facts:
                now = self._clock.now()
                fate = judge_manifest(manifest, self._policy, now)
                if not fate.goes:
                    continue
                idle_since = now - self._policy.untagged_after if fate is Fate.UNTAGGED else now
                if await self._store.collect_manifest(
                    manifest.repository, manifest.digest, idle_since=idle_since, now=now
                ):
                    tally.manifests += 1
                    found = True
                    _log.info(
                        "manifest collected",
                        repository=str(manifest.repository),
                        digest=str(manifest.digest),
                        reason=fate.reason,
                    )
        return found

    async def condemn(self, tally: Tally) -> None:
        """Condemn blobs that nothing needs, and take idle blobs from repositories."""
        seen = 0
        async with aclosing(self._blob_pages()) as pages:
            async for page in pages:
                now = self._clock.now()
                wanted = [facts.digest for facts in page if judge_blob(facts, now) in (Fate.UNNEEDED, Fate.UNLINK)]
                if wanted:
                    async with _giving_way():
                        tally.condemned += len(await self._store.condemn(wanted, now=now))
                before, seen = seen, seen + len(page)
                if before // PROGRESS_EVERY != seen // PROGRESS_EVERY:
                    _log.info("collection goes on", blobs_seen=seen, condemned=tally.condemned)

    async def remove(self, tally: Tally) -> None:
        """Remove the bytes and rows of blobs that were condemned long enough ago."""
        while taken := await self.take():
            for start in range(0, len(taken), DELETED_AT_ONCE):
                part = taken[start : start + DELETED_AT_ONCE]
                async with _giving_way():
                    gone = await self.remove_bytes(part)
                    tally.blobs += await self._store.forget(gone)
                tally.freed += sum(blob.size for blob in gone)
                tally.postponed += len(part) - len(gone)

    async def take(self) -> Sequence[DoomedBlob]:
        """Take a batch of blobs for deletion; those nobody finished, too."""
        now = self._clock.now()
        return await self._store.take_doomed(
            condemned_before=now - CONDEMNED_FOR, abandoned_before=now - ABANDONED_AFTER, limit=PAGE, now=now
        )

    async def remove_bytes(self, taken: Sequence[DoomedBlob]) -> Sequence[DoomedBlob]:
        """Remove the bytes of blobs that were taken; return those that are gone for certain."""
        return await remove_bytes(self._driver, self._clock, taken)

    async def sweep(self) -> int:
        """Find bytes in storage that have no row, left by a crash, and hand them to collection; return how many.

        What was taken up from another registry is left alone until the adoption has ended.
        """
        await self.sweep_staged()
        if await self.is_adopted():
            return 0
        found = 0
        old = self._clock.now() - self._policy.stray_after
        batch: list[BlobRecord] = []
        async with aclosing(self._driver.iter_keys(keys.BLOBS)) as listing:
            async for info in listing:
                digest = keys.parse_blob_key(info.key)
                if digest is None or info.modified > old:
                    continue
                batch.append(BlobRecord(digest, info.size, info.key))
                if len(batch) == PAGE:
                    found += await self._adopt(batch)
                    batch.clear()
        return found + await self._adopt(batch)

    async def sweep_staged(self) -> int:
        """Remove published uploads that no blob lies under any more, in stores that keep some there; return how many.

        A process that died between publishing and telling leaves one; so does one that moved bytes to their digest's
        place for a link and died before it removed the first copy.
        """
        removed = 0
        old = self._clock.now() - self._policy.staged_after
        batch: list[Key] = []
        async with aclosing(self._driver.iter_keys(keys.STAGED)) as listing:
            async for info in listing:
                if info.modified <= old:
                    batch.append(info.key)
                if len(batch) == STAGED_AT_ONCE:
                    removed += await self._remove_unused(batch)
                    batch = []
        removed += await self._remove_unused(batch)
        if removed:
            _log.info("copies removed that a crash had left", count=removed)
        return removed

    async def _remove_unused(self, batch: Sequence[Key]) -> int:
        unused = await self._store.unused(batch) if batch else ()
        await delete_all(self._driver, unused)
        return len(unused)

    async def _adopt(self, batch: Sequence[BlobRecord]) -> int:
        if not batch:
            return 0
        now = self._clock.now()
        async with _giving_way():
            return await self._store.adopt(batch, lease_until=now + STRAY_LEASE, now=now)

    async def is_adopted(self) -> bool:
        """Say whether somebody may still go back to another registry: until then nothing is collected."""
        if self._imports is None:
            return False
        return (await self._imports.status()).state in (ImportState.RUNNING, ImportState.DONE)

    async def explain(self, *, name_needs: bool = False) -> AsyncGenerator[Explained, None]:
        """Yield each manifest and each blob with what the next pass does with it; nothing is changed.

        With `name_needs` blobs that stay carry a manifest that needs them. What only a manifest needs that goes now
        is told as needed: it follows in the pass after that. So do manifests that only a tag kept.
        """
        async with aclosing(self._expired()) as expired:
            async for repository, tag in expired:
                yield Explained(
                    kind="tag",
                    digest=str(tag.digest),
                    repository=str(repository),
                    size=0,
                    fate=Fate.EXPIRED,
                    tag=tag.tag.value,
                )
        async with aclosing(self._manifests()) as manifests:
            async for manifest in manifests:
                yield Explained(
                    kind="manifest",
                    digest=str(manifest.digest),
                    repository=str(manifest.repository),
                    size=manifest.size,
                    fate=judge_manifest(manifest, self._policy, self._clock.now()),
                )
        async with aclosing(self._blob_pages()) as pages:
            async for page in pages:
                for blob in page:
                    fate = judge_blob(blob, self._clock.now())
                    needed_by = await self._needed_by(blob) if name_needs and blob.referenced else None
                    yield Explained(
                        kind="blob",
                        digest=str(blob.digest),
                        repository=None,
                        size=blob.size,
                        fate=fate,
                        needed_by=needed_by,
                    )

    async def _needed_by(self, blob: BlobFacts) -> str | None:
        found = await self._store.needed_by(blob.digest)
        return None if found is None else f"{found[0]}@{found[1]}"

    async def _manifests(self) -> AsyncGenerator[ManifestFacts, None]:
        after = _START
        while page := await self._store.manifests(after=after, limit=PAGE):
            for facts in page:
                yield facts
            after = page[-1].position

    async def _blob_pages(self) -> AsyncGenerator[Sequence[BlobFacts], None]:
        after = ""
        while page := await self._store.blobs(after=after, limit=PAGE):
            yield page
            after = str(page[-1].digest)
