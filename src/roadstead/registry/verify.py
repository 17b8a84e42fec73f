"""Checking that everything is as it should be, and mending what can be (registry specification §8.4).

Every blob is read and hashed as it streams; every manifest's bytes are hashed and parsed; references, tags and the
journal are compared with each other; storage is compared with the rows. The registry serves meanwhile, so what looks
wrong is looked at again before it is told.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import structlog

from roadstead.clock import Clock
from roadstead.oci.digest import Digest, Hasher
from roadstead.oci.manifest import ManifestInvalidError, parse_manifest
from roadstead.oci.mediatypes import MANIFESTS
from roadstead.registry.gc import remove_bytes
from roadstead.registry.ports import (
    AuditStore,
    BlobRecord,
    BlobStore,
    BrokenReference,
    CollectionStore,
    DoomedBlob,
    HeldManifest,
    ReferencePosition,
)
from roadstead.storage import keys
from roadstead.storage.ports import Driver, KeyUnknownError, TruncatedError

PAGE = 500
MANIFEST_PAGE = 20  # each with its bytes, 4 MiB at the most
PROGRESS_EVERY_S = 10.0

_START = (0, "")
_log = structlog.get_logger()


class Problem(StrEnum):
    """What can be wrong."""

    BLOB_MISSING = "blob-missing"
    BLOB_WRONG = "blob-wrong"
    MANIFEST_WRONG = "manifest-wrong"
    SUBJECT_WRONG = "subject-wrong"
    REFERENCE_MISSING = "reference-missing"
    REFERENCE_UNLINKED = "reference-unlinked"
    TAG_DANGLING = "tag-dangling"
    JOURNAL_WRONG = "journal-wrong"
    STRAY = "stray"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong: what, where, and what was done about it."""

    problem: Problem
    where: str
    message: str
    mended: str | None = None


@dataclass(slots=True)
class Checked:
    """How much was looked at."""

    blobs: int = 0
    size: int = 0  # bytes read
    manifests: int = 0
    tags: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Return the bytes read in a second."""
        return self.size / self.seconds if self.seconds else 0.0


class Verifier:
    """Checks one registry once; `checked` says how much so far."""

    def __init__(
        self,
        audit: AuditStore,
        blobs: BlobStore,
        collection: CollectionStore,
        driver: Driver,
        clock: Clock,
        *,
        repair: bool,
        stray_after: timedelta,
    ) -> None:
        self.checked = Checked()
        self._audit = audit
        self._blobs = blobs
        self._collection = collection
        self._driver = driver
        self._clock = clock
        self._repair = repair
        self._stray_after = stray_after

    async def run(self) -> AsyncGenerator[Finding, None]:
        """Yield what is wrong as it is found: blobs first, then what refers to them, then storage."""
        for part in (self._check_blobs, self._check_manifests, self._check_references, self._check_tags, self._strays):
            async with aclosing(part()) as findings:
                async for finding in findings:
                    yield finding

    # Blobs

    async def _check_blobs(self) -> AsyncGenerator[Finding, None]:
        loop = asyncio.get_running_loop()
        started = told = loop.time()
        after = ""
        while page := await self._audit.live_blobs(after=after, limit=PAGE):
            for blob in page:
                finding = await self._check_blob(blob)
                if finding is not None:
                    yield finding
                self.checked.blobs += 1
                self.checked.seconds = loop.time() - started
                if loop.time() - told > PROGRESS_EVERY_S:
                    told = loop.time()
                    _log.info("checking goes on", blobs=self.checked.blobs, mib_per_s=round(self.checked.rate / 2**20))
            after = str(page[-1].digest)

    async def _check_blob(self, blob: BlobRecord) -> Finding | None:
        wrong = await self._what_is_wrong(blob)
        if wrong is None or await self._blobs.find_stored(blob.digest) != blob:  # it was collected meanwhile
            return None
        problem, message = wrong
        mended = await self._put_aside(blob) if self._repair else None
        return Finding(problem=problem, where=str(blob.digest), message=message, mended=mended)

    async def _what_is_wrong(self, blob: BlobRecord) -> tuple[Problem, str] | None:
        hasher = Hasher(blob.digest.algorithm)
        try:
            await self._hash(self._driver.read(blob.key), hasher)
        except KeyUnknownError:
            return Problem.BLOB_MISSING, f"there is nothing under {blob.key}"
        except TruncatedError as error:
            return Problem.BLOB_WRONG, str(error)
        if hasher.size != blob.size:
            return Problem.BLOB_WRONG, f"it should have {blob.size} bytes and has {hasher.size}"
        if hasher.digest() != blob.digest:
            return Problem.BLOB_WRONG, f"its bytes are those of {hasher.digest()}"
        return None

    async def _hash(self, pieces: AsyncIterator[bytes], hasher: Hasher) -> None:
        async for piece in pieces:
            await asyncio.to_thread(hasher.update, piece)
            self.checked.size += len(piece)

    async def _put_aside(self, blob: BlobRecord) -> str | None:
        """Move wrong bytes away and remove the row, so that the next push stores the blob anew.

        In collection's order: nobody can bring the digest while its bytes are handled.
        """
        taken = await self._collection.take_damaged(blob, now=self._clock.now())
        if taken is None:
            return None
        if await self._what_is_wrong(blob) is None:  # somebody has just pushed it again
            await self._collection.spare(taken, now=self._clock.now())
            return "it was pushed again meanwhile"
        moved = await self._quarantine(taken)
        if not await remove_bytes(self._driver, self._clock, [taken]):
            return f"{moved}; collection removes them where they were"
        await self._collection.forget([taken])
        return f"{moved}; the next push of it heals every image that needs it"

    async def _quarantine(self, taken: DoomedBlob) -> str:
        target = keys.quarantine(taken.digest)
        try:
            async with self._driver.write(target) as handle:
                async for piece in self._driver.read(taken.key):
                    await handle.append(piece)
                await handle.commit()
        except (KeyUnknownError, TruncatedError):
            return "there was nothing to put aside"
        return f"its bytes were moved to {target}"

    # Manifests

    async def _check_manifests(self) -> AsyncGenerator[Finding, None]:
        after = _START
        while page := await self._audit.held_manifests(after=after, limit=MANIFEST_PAGE):
            for held in page:
                self.checked.manifests += 1
                for problem, message in _wrong_with(held):
                    yield Finding(problem=problem, where=f"{held.repository}@{held.digest}", message=message)
            after = page[-1].position

    async def _check_references(self) -> AsyncGenerator[Finding, None]:
        after: ReferencePosition | None = (0, "", "", "")
        while after is not None:
            broken, after = await self._audit.broken_references(after=after, limit=PAGE)
            for reference in broken:
                yield await self._told(reference)

    async def _told(self, reference: BrokenReference) -> Finding:
        where = f"{reference.repository}@{reference.manifest}"
        what = f"its {reference.kind} {reference.digest}"
        if not reference.stored:
            return Finding(
                problem=Problem.REFERENCE_MISSING, where=where, message=f"{what} is not here; push it to the repository"
            )
        mended = None
        if self._repair and await self._audit.relink(reference.repository, reference.digest, now=self._clock.now()):
            mended = "the repository may serve it again"
        return Finding(
            problem=Problem.REFERENCE_UNLINKED,
            where=where,
            message=f"{what} is stored, but the repository may not serve it",
            mended=mended,
        )

    # Tags

    async def _check_tags(self) -> AsyncGenerator[Finding, None]:
        after = _START
        while page := await self._audit.tag_facts(after=after, limit=PAGE):
            for facts in page:
                self.checked.tags += 1
                where = f"{facts.repository}:{facts.tag}"
                if not facts.manifest_here:
                    message = f"it points at {facts.digest}, which is not in the repository"
                    yield Finding(problem=Problem.TAG_DANGLING, where=where, message=message)
                if facts.journal != facts.digest:
                    message = f"it points at {facts.digest}, and its journal ends at {facts.journal}"
                    yield Finding(problem=Problem.JOURNAL_WRONG, where=where, message=message)
            after = page[-1].position

    # Storage

    async def _strays(self) -> AsyncGenerator[Finding, None]:
        old = self._clock.now() - self._stray_after
        batch: list[Digest] = []
        async with aclosing(self._driver.iter_keys(keys.BLOBS)) as listing:
            async for info in listing:
                digest = keys.parse_blob_key(info.key)
                if digest is not None and info.modified <= old:
                    batch.append(digest)
                if len(batch) == PAGE:
                    for finding in await self._without_rows(batch):
                        yield finding
                    batch.clear()
        for finding in await self._without_rows(batch):
            yield finding

    async def _without_rows(self, batch: list[Digest]) -> list[Finding]:
        unknown = await self._audit.unknown(batch) if batch else ()
        message = "its bytes are in storage and nothing knows them; `roadstead gc` removes them"
        return [Finding(problem=Problem.STRAY, where=str(digest), message=message) for digest in unknown]


def _wrong_with(held: HeldManifest) -> list[tuple[Problem, str]]:
    """Return what is wrong with a manifest's bytes. Pure."""
    actual = Digest.of(held.content, held.digest.algorithm)
    if actual != held.digest:
        return [(Problem.MANIFEST_WRONG, f"its bytes are those of {actual}")]
    if len(held.content) != held.size:
        return [(Problem.MANIFEST_WRONG, f"it should have {held.size} bytes and has {len(held.content)}")]
    if held.derived:  # no referrer, whatever its bytes say
        return []
    if held.media_type not in MANIFESTS:  # taken up from another registry as it was
        return []
    try:
        subject = parse_manifest(held.content, held.media_type).subject
    except ManifestInvalidError as error:
        return [(Problem.MANIFEST_WRONG, str(error))]
    told = None if subject is None else subject.digest
    if told is not None and told != held.subject:  # one that names none may be a referrer by its fallback tag
        return [(Problem.SUBJECT_WRONG, f"its subject is {told}, and the referrers API knows {held.subject}")]
    return []
