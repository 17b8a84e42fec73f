"""Images of other registries, had when they are asked for and kept (registry spec §4.6; design decision 9).

A pull makes sure that what it needs is here, and is then answered like any other: from the store, augmented where a
rule says so. What can't be checked isn't kept. Manifests are kept without what they refer to, which comes when it is
asked for.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import structlog

from roadstead.clock import Clock
from roadstead.errors import InvalidError, UnavailableError
from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.proxy.errors import FillBrokenError
from roadstead.proxy.fills import Fill, Fills, Spooled
from roadstead.proxy.locks import alone
from roadstead.proxy.ports import PulledStore, PulledTag, Remote, Tally
from roadstead.proxy.slots import Slots
from roadstead.proxy.spaces import Place, Routed, Spaces, Upstream
from roadstead.registry.errors import BlobUnknownError, ManifestUnknownError, RepositoryUnknownError
from roadstead.registry.ports import BlobRecord, BlobStore, ManifestStore, NewManifest
from roadstead.registry.uploads import Uploads
from roadstead.registry.validation import check_manifest
from roadstead.upstream.errors import (
    BadAnswerError,
    RateLimitedError,
    UpstreamNotFoundError,
    UpstreamRefusedError,
    UpstreamUnavailableError,
)
from roadstead.upstream.ports import FetchedManifest

WAITED_FOR_BYTES = 256 << 10
"""A blob up to this size is answered once it is stored: image configs, and small layers. Others as they arrive."""

STALE_AFTER_S = 5.0
"""How long an upstream may take to say where a tag is, while we know where it was."""

LEFT_ALONE_S = 30.0
"""How long an upstream that failed isn't asked for tags that we know: each pull would wait for it."""

LEFT_ALONE_MOST_S = 600.0
NOTED_EVERY_S = 3600.0
"""How often it is noted that a manifest is pulled."""

MAX_NOTED = 8192
MAX_MISSING = 8192
MAX_LISTS = 64
MAX_TAGS = 1_000_000
"""Tags of one list: a registry that goes on for ever would take all memory."""

_log = structlog.get_logger()

Key = TypeVar("Key")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Arriving:
    """A blob of a known size that is on its way. Its pieces are to be read to the end, or closed."""

    digest: Digest
    size: int
    read: Callable[[int, int], AsyncGenerator[bytes, None]]
    leave: Callable[[], None]


class PullThrough:
    """Has images of upstreams here. One for each worker; ``aclose`` ends what is under way."""

    def __init__(
        self,
        spaces: Spaces,
        remotes: Callable[[str], Remote],
        *,
        manifests: ManifestStore,
        blobs: BlobStore,
        uploads: Uploads,
        pulled: PulledStore,
        clock: Clock,
        directory: Path,
        tally: Tally,
    ) -> None:
        self._spaces = spaces
        self._remotes = remotes
        self._manifests = manifests
        self._blobs = blobs
        self._uploads = uploads
        self._pulled = pulled
        self._clock = clock
        self._directory = directory
        self._tally = tally
        self._fills = Fills(directory)
        self._running: dict[str, asyncio.Task[Digest]] = {}
        self._left_alone: dict[str, tuple[float, str]] = {}  # hosts: until when, on the monotonic clock, and why
        self._missing: dict[tuple[RepositoryName, str, str], float] = {}  # until when it is believed, likewise
        self._slots: dict[str, Slots] = {}
        self._noted: dict[tuple[RepositoryName, Digest], float] = {}
        self._lists: dict[RepositoryName, tuple[float, Sequence[str]]] = {}
        self._listing: dict[RepositoryName, asyncio.Task[Sequence[str] | None]] = {}
        self._sizing: dict[tuple[RepositoryName, Digest], asyncio.Task[int | None]] = {}

    async def route(self, text: str, namespace: str | None, *, writing: bool) -> Routed:
        """Return what a path's name stands for (``Spaces.route``)."""
        return await self._spaces.route(text, namespace, writing=writing)

    def place(self, repository: RepositoryName) -> Place | None:
        """Return where a repository comes from; None for one of ours."""
        return self._spaces.place(repository)

    @property
    def hosts(self) -> Collection[str]:
        """Return the hosts of all upstreams."""
        return self._spaces.hosts

    async def aclose(self) -> None:
        """End what is under way; nothing of it is kept in part."""
        running: list[asyncio.Task[Any]] = [
            *self._running.values(),
            *self._listing.values(),
            *self._sizing.values(),
        ]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._fills.aclose()

    # Manifests

    async def freshen(self, place: Place, reference: Tag | Digest) -> None:
        """Have a manifest here: that of a digest, or the one where the upstream has the tag.

        Where the upstream can't be asked, a tag that is here stays as it is. Raises ManifestUnknownError, and the
        errors of upstreams where nothing is here.
        """
        if isinstance(reference, Digest):
            if await self._manifests.find_by_digest(place.repository, reference) is None:
                self._check_not_missing(place, reference)
                await self._once(place, reference, lambda: self._fetch_again(place, reference))
            await self._note_pulled(place, reference)
            return
        known = await self._pulled.find_tag(place.repository, reference)
        if known is None:
            self._check_not_missing(place, reference)
        if known is None or not self._is_fresh(place, known):
            digest = await self._once(place, reference, lambda: self._follow(place, reference))
        else:
            digest = known.digest
        await self._note_pulled(place, digest)

    def _check_not_missing(self, place: Place, reference: Tag | Digest) -> None:
        """Raise ManifestUnknownError for what wasn't at the upstream a moment ago."""
        if self._is_missing(place, "manifest", reference):
            raise ManifestUnknownError(place.repository, reference)

    def _is_missing(self, place: Place, kind: str, reference: Tag | Digest) -> bool:
        return self._missing.get((place.repository, kind, str(reference)), 0.0) > monotonic()

    def _note_missing(self, place: Place, kind: str, reference: Tag | Digest) -> None:
        """Note that something isn't there: many ask again and again for what isn't there yet."""
        seconds = place.upstream.missing_for.total_seconds()
        if not seconds:
            return
        key = (place.repository, kind, str(reference))  # some ask for a manifest among the blobs, too
        self._missing.pop(key, None)  # so that the oldest stand first
        while len(self._missing) >= MAX_MISSING:
            del self._missing[next(iter(self._missing))]
        self._missing[key] = monotonic() + seconds

    def _is_fresh(self, place: Place, known: PulledTag) -> bool:
        return known.checked_at is not None and self._clock.now() - known.checked_at < place.upstream.revalidate

    async def _once(self, place: Place, reference: Tag | Digest, work: Callable[[], Awaitable[Digest]]) -> Digest:
        """Do it, or wait for whoever is doing the same on this machine. It goes on when a waiting client goes away."""
        key = f"{place.repository}@{reference}"
        return await _shared(self._running, key, lambda: self._alone(key, work))

    async def _alone(self, key: str, work: Callable[[], Awaitable[Digest]]) -> Digest:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with alone(self._directory / f"{sha256(key.encode()).hexdigest()}.lock"):
            return await work()

    async def _fetch_again(self, place: Place, digest: Digest) -> Digest:
        """Fetch by digest, unless another process has just done so."""
        if await self._manifests.find_by_digest(place.repository, digest) is None:
            await self._fetch(place, digest)
        return digest

    async def _follow(self, place: Place, tag: Tag) -> Digest:
        """Have a tag here where its upstream has it; as it was, where the upstream can't be asked."""
        known = await self._pulled.find_tag(place.repository, tag)
        if known is None:
            return await self._fetch(place, tag)
        if self._is_just_checked(place, known):
            return known.digest
        host = place.upstream.host
        until, reason = self._left_alone.get(host, (0.0, ""))
        if until > monotonic():
            return self._stale(place, tag, known, reason, level="debug")
        try:
            async with asyncio.timeout(STALE_AFTER_S):
                return await self._ask_again(place, tag, known)
        except TimeoutError:
            self._leave_alone(host, LEFT_ALONE_S)
            return self._stale(place, tag, known, f"it didn't answer within {STALE_AFTER_S:g} s")
        except UpstreamUnavailableError as error:
            waits = error.asked_to_wait_s if isinstance(error, RateLimitedError) else None
            self._leave_alone(host, min(max(waits or 0.0, LEFT_ALONE_S), LEFT_ALONE_MOST_S))
            return self._stale(place, tag, known, str(error))

    def _is_just_checked(self, place: Place, known: PulledTag) -> bool:
        """Say whether another process has asked while we waited for it."""
        return bool(place.upstream.revalidate) and self._is_fresh(place, known)

    def _leave_alone(self, host: str, seconds: float, reason: str = "it failed a moment ago") -> None:
        self._left_alone[host] = (monotonic() + seconds, reason)

    def _is_short(self, host: str) -> bool:
        """Say whether an upstream will soon refuse us; then it isn't asked for a while for tags that we know.

        What is left is for what isn't here at all.
        """
        budget = self._remotes(host).budget
        if budget is None or not budget.is_near_its_end:
            return False
        seconds = LEFT_ALONE_MOST_S if budget.reset_s is None else budget.reset_s
        reason = f"of the requests that it lets us have {budget.remaining} are left"
        self._leave_alone(host, min(max(seconds, LEFT_ALONE_S), LEFT_ALONE_MOST_S), reason)
        return True

    def _stale(self, place: Place, tag: Tag, known: PulledTag, reason: str, level: str = "warning") -> Digest:
        self._tally.stale(place.upstream.host)
        log = _log.debug if level == "debug" else _log.warning
        log(
            "a tag is served as it was: its upstream can't be asked",
            repository=str(place.repository),
            tag=str(tag),
            digest=str(known.digest),
            checked=None if known.checked_at is None else known.checked_at.isoformat(),
            reason=reason,
        )
        return known.digest

    async def _ask_again(self, place: Place, tag: Tag, known: PulledTag) -> Digest:
        self._tally.asked(place.upstream.host, "tag")
        found = await self._remotes(place.upstream.host).find_manifest(place.remote, tag)
        if found is None:
            if known.checked_at is not None:  # else it was never there: somebody pushed it under this name once
                await self._manifests.delete_tag(place.repository, tag, now=self._clock.now())
            self._note_missing(place, "manifest", tag)
            raise ManifestUnknownError(place.repository, tag)
        is_short = self._is_short(place.upstream.host)
        if found.digest != known.digest:
            if is_short and await self._manifests.find_by_digest(place.repository, found.digest) is None:
                return self._stale(place, tag, known, "it has moved, and few of the requests that we may send are left")
            return await self._fetch(place, found.digest, tag)
        await self._pulled.note_checked(place.repository, tag, known.digest, now=self._clock.now())
        return known.digest

    async def _fetch(self, place: Place, reference: Tag | Digest, tag: Tag | None = None) -> Digest:
        """Fetch a manifest and keep it, with the tag if there is one."""
        host = place.upstream.host
        if tag is not None and isinstance(reference, Digest):
            held = await self._manifests.find_by_digest(place.repository, reference)
            if held is not None and await self._retag(place, reference, tag):
                return reference
        self._tally.asked(host, "manifest")
        try:
            fetched = await self._remotes(host).manifest(place.remote, reference)
        except (UpstreamNotFoundError, UpstreamRefusedError) as error:
            self._note_missing(place, "manifest", reference)
            raise ManifestUnknownError(place.repository, reference) from error
        self._is_short(host)
        tag = reference if isinstance(reference, Tag) else tag
        now = self._clock.now()
        manifest = _checked(host, fetched)
        await self._manifests.put(place.repository, manifest, [] if tag is None else [tag], now=now)
        if tag is not None:
            await self._pulled.note_checked(place.repository, tag, manifest.digest, now=now)
        return manifest.digest

    async def _retag(self, place: Place, digest: Digest, tag: Tag) -> bool:
        """Point a tag at a manifest that is here already; False where it is here only as something derived."""
        now = self._clock.now()
        if not await self._manifests.restore(place.repository, tag, digest, now=now):
            return False
        await self._pulled.note_checked(place.repository, tag, digest, now=now)
        return True

    async def _note_pulled(self, place: Place, digest: Digest) -> None:
        """Note a pull, for retention; once an hour in each worker."""
        key = (place.repository, digest)
        if place.upstream.keep is None or monotonic() - self._noted.get(key, -NOTED_EVERY_S) < NOTED_EVERY_S:
            return
        while len(self._noted) >= MAX_NOTED:
            del self._noted[next(iter(self._noted))]
        self._noted[key] = monotonic()
        await self._pulled.note_pulled(place.repository, digest, now=self._clock.now())

    # Blobs

    async def blob_size(self, place: Place, digest: Digest) -> int:
        """Return the size of a blob that the upstream has; raises BlobUnknownError."""
        size = await self._size(place, digest)
        return size if size is not None else (await self._had(place, digest)).size

    async def blob(self, place: Place, digest: Digest) -> BlobRecord | Arriving:
        """Return a blob that isn't here: fetched, or on its way if it is large.

        Raises BlobUnknownError, and the errors of upstreams where not even its beginning could be had.
        """
        size = await self._size(place, digest)
        if size is None or size <= WAITED_FOR_BYTES:
            return await self._had(place, digest, size)
        fill = await self._join(place, digest, size)
        try:
            await self._begun(place, digest, fill)
            # Another process may have stored it since it was looked for: then nothing arrives.
            record = await self._blobs.find(place.repository, digest)
        except BaseException:
            fill.leave()
            raise
        if record is not None:
            fill.leave()
            return record
        return Arriving(digest, size, lambda start, part: fill.read(start=start, size=part, of=size), fill.leave)

    async def _begun(self, place: Place, digest: Digest, fill: Fill) -> None:
        """Return when something has arrived, or all of it is stored."""
        try:
            await fill.reach(1)
        except FillBrokenError:
            if await self._blobs.find(place.repository, digest) is None:
                raise

    async def have(self, place: Place, digest: Digest) -> BlobRecord:
        """Return a blob of the repository, fetched to the end if it isn't here. Raises as `blob` does."""
        return await self._blobs.find(place.repository, digest) or await self._had(place, digest)

    async def _had(self, place: Place, digest: Digest, size: int | None = None) -> BlobRecord:
        fill = await self._join(place, digest, size)
        try:
            await fill.stored()
        finally:
            fill.leave()
        record = await self._blobs.find(place.repository, digest)
        if record is None:  # it was another process that failed, and said why
            raise UnavailableError(f"{digest} of {place.repository} was not had from {place.upstream.host}; try again")
        return record

    async def _size(self, place: Place, digest: Digest) -> int | None:
        """Return how large a blob is, None where the upstream doesn't tell; many who want it ask once."""
        announced = self._fills.announced(place.repository, digest)
        if announced is not None:
            return announced
        if self._is_missing(place, "blob", digest):
            raise BlobUnknownError(place.repository, digest)
        return await _shared(self._sizing, (place.repository, digest), lambda: self._ask_size(place, digest))

    async def _ask_size(self, place: Place, digest: Digest) -> int | None:
        self._tally.asked(place.upstream.host, "blob")
        try:
            size = await self._remotes(place.upstream.host).find_blob(place.remote, digest)
        except (UpstreamNotFoundError, UpstreamRefusedError) as error:
            self._note_missing(place, "blob", digest)
            raise BlobUnknownError(place.repository, digest) from error
        if size is None:
            self._note_missing(place, "blob", digest)
            raise BlobUnknownError(place.repository, digest)
        return None if size < 0 else size

    async def _join(self, place: Place, digest: Digest, size: int | None) -> Fill:
        async def download() -> AsyncGenerator[bytes, None]:
            remote = self._remotes(place.upstream.host)
            async with AsyncExitStack() as stack:
                if place.upstream.downloads:
                    await stack.enter_async_context(self._slots_of(place.upstream).one())
                pieces = await stack.enter_async_context(aclosing(remote.blob(place.remote, digest, size=size)))
                async for piece in pieces:
                    self._tally.received(place.upstream.host, len(piece))
                    yield piece

        async def store(spooled: Spooled) -> BlobRecord:
            taken = await self._uploads.take(place.repository, spooled.path, digest, size=spooled.announced or 0)
            return taken or await self._uploads.push(place.repository, spooled, digest)

        async def find() -> BlobRecord | None:
            return await self._blobs.find(place.repository, digest)

        return await self._fills.join(place.repository, digest, download, store, find, announced=size)

    def _slots_of(self, upstream: Upstream) -> Slots:
        if upstream.host not in self._slots:
            self._slots[upstream.host] = Slots(self._directory, upstream.host, upstream.downloads)
        return self._slots[upstream.host]

    # Lists

    async def tags(self, place: Place) -> Sequence[str] | None:
        """Return all tags that the upstream has, sorted; None where it can't be asked. Raises RepositoryUnknownError.

        A list is remembered for as long as a tag is, and asked for once, however many want it at a time.
        """
        until, listed = self._lists.get(place.repository, (0.0, ()))
        if until > monotonic():
            return listed
        return await _shared(self._listing, place.repository, lambda: self._list(place))

    async def _list(self, place: Place) -> Sequence[str] | None:
        host = place.upstream.host
        self._tally.asked(host, "list")
        listed: Sequence[str] = []
        try:
            async with aclosing(self._remotes(host).tags(place.remote)) as tags:
                listed = await _sorted(host, tags)
        except UpstreamNotFoundError as error:
            raise RepositoryUnknownError(place.repository) from error
        except UpstreamUnavailableError as error:
            self._unlisted(place, "tags", error)
            return None
        while len(self._lists) >= MAX_LISTS:
            del self._lists[next(iter(self._lists))]
        self._lists[place.repository] = (monotonic() + place.upstream.revalidate.total_seconds(), listed)
        return listed

    async def referrers(self, place: Place, digest: Digest, artifact_type: str | None) -> Sequence[Descriptor] | None:
        """Return what refers to a manifest at the upstream, by digest; None where it can't be asked."""
        self._tally.asked(place.upstream.host, "list")
        try:
            found = await self._remotes(place.upstream.host).referrers(place.remote, digest, artifact_type)
        except UpstreamUnavailableError as error:
            self._unlisted(place, "referrers", error)
            return None
        return sorted(found.descriptors, key=lambda one: str(one.digest))

    def _unlisted(self, place: Place, what: str, error: UpstreamUnavailableError) -> None:
        _log.warning(
            "a list is of what is here: its upstream can't be asked",
            repository=str(place.repository),
            list=what,
            reason=str(error),
        )


async def _shared(
    running: dict[Key, asyncio.Task[Result]], key: Key, work: Callable[[], Coroutine[Any, Any, Result]]
) -> Result:
    """Do the work, or wait for whoever is doing it. It goes on when who waits goes away."""
    task = running.get(key)
    if task is None:
        task = running[key] = asyncio.create_task(work(), name=str(key))
        task.add_done_callback(lambda done: _forget(running, key, done))
    return await asyncio.shield(task)


def _forget(running: dict[Key, asyncio.Task[Result]], key: Key, task: asyncio.Task[Result]) -> None:
    del running[key]
    if not task.cancelled():
        task.exception()  # whoever waits gets it; when all have gone, asyncio isn't to complain of it


async def _sorted(host: str, tags: AsyncIterator[Tag]) -> Sequence[str]:
    """Return the tags as texts in order; raises BadAnswerError for more than anybody has."""
    listed = []
    async for tag in tags:
        listed.append(str(tag))
        if len(listed) > MAX_TAGS:
            raise BadAnswerError(host, f"a list of more than {MAX_TAGS} tags")
    return sorted(listed)


def _checked(host: str, fetched: FetchedManifest) -> NewManifest:
    """Return a fetched manifest's facts; nothing that it refers to need be here. Raises BadAnswerError."""
    try:
        parsed = fetched.parsed()
        manifest = check_manifest(fetched.raw, parsed.media_type, expected=fetched.digest)
    except InvalidError as error:
        raise BadAnswerError(host, f"the manifest {fetched.digest}: {error}") from error
    return replace(manifest, references=tuple(replace(one, optional=True) for one in manifest.references))
