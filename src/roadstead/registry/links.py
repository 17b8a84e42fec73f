"""Distribution's links, written from the facts: so that it can take the tree back, and the tree can be read again.

Every change leaves a note in its own transaction (``registry.ports.LinkStore``). A note says which link to look at, not
what to write: the facts of now say that. After a link was written the facts are asked once more, and it is written
again where they have changed: of several processes that write one link, whoever writes last has asked after that. So
notes may be worked off in any order, twice, or by two at once, and the tree ends up as the facts are.

What is derived for container tokens has no links: to distribution it would be a repository like any other.

What a link leads to is there before the link: blobs before manifests, a manifest's bytes before its link, a manifest
before its tag. Bytes are never removed here: a manifest's that nobody holds any more are collection's to find.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import TypeVar

import structlog

from roadstead.clock import Clock
from roadstead.events.event import UNPROMPTED, Cause
from roadstead.oci.digest import Digest
from roadstead.oci.reference import CONTAINER_TOKENS, RepositoryName, Tag
from roadstead.registry.immutable import NOTHING_IMMUTABLE, ImmutableTags
from roadstead.registry.ports import (
    BlobRecord,
    BlobStore,
    LinkChange,
    LinkKind,
    LinkStore,
    ManifestStore,
    NewManifest,
    TagCondition,
    UploadRecord,
)
from roadstead.storage import keys
from roadstead.storage.arrivals import Arrival
from roadstead.storage.ports import Driver, Key, KeyUnknownError, delete_all

T = TypeVar("T")
N = TypeVar("N", Digest, Tag)

_NOTES_AT_ONCE = 256
_MANIFESTS_AT_ONCE = 16  # their bytes are in memory meanwhile, up to 4 MiB each
_AT_ONCE = 8
_READERS_ARE_THROUGH = timedelta(minutes=2)
"""How long bytes that moved stay where they were: whoever looked them up before has opened them by then."""

_log = structlog.get_logger()


class Links:
    """Makes the tree's links agree with the facts."""

    def __init__(
        self, store: LinkStore, driver: Driver, clock: Clock, *, guard: Callable[[], None] = lambda: None
    ) -> None:
        """`guard` raises where this machine may not write any more; it is asked before each batch of writes."""
        self._guard = guard
        self._store = store
        self._driver = driver
        self._clock = clock
        self._left_behind: list[tuple[datetime, Key]] = []

    async def catch_up(self, repository: RepositoryName | None = None) -> int:
        """Work off what is noted, of one repository or of all; return how many notes. Safe to cancel."""
        done = 0
        while changes := await self._store.changes(repository=repository, limit=_NOTES_AT_ONCE):
            await self._agree([change for change in changes if change.repository.components[0] != CONTAINER_TOKENS])
            await self._store.forget(changes, now=self._clock.now())
            done += len(changes)
        await self._tidy()
        if done:
            _log.debug("links written", notes=done)
        return done

    async def _agree(self, changes: Sequence[LinkChange]) -> None:
        layers = _digests(changes, LinkKind.LAYER)
        await _until_they_agree(layers, self._store.layer, self._write_layers)
        manifests = _digests(changes, LinkKind.MANIFEST)
        for start in range(0, len(manifests), _MANIFESTS_AT_ONCE):
            part = manifests[start : start + _MANIFESTS_AT_ONCE]
            await _until_they_agree(part, self._store.manifest, self._write_manifests)
        pointed: dict[tuple[RepositoryName, Tag], list[Digest]] = {}
        for change in changes:
            if change.kind is LinkKind.TAG:
                where = pointed.setdefault((change.repository, Tag.parse(change.name)), [])
                where += [] if change.digest is None else [change.digest]
        await _until_they_agree(pointed, self._store.tag, lambda facts: self._write_tags(facts, pointed))

    async def _write_layers(self, facts: Mapping[tuple[RepositoryName, Digest], BlobRecord | None]) -> None:
        placed = await _together([self._place(blob) for blob in facts.values()])
        await self._write({keys.layer_link(*where): under for where, under in zip(facts, placed, strict=True)})

    async def _place(self, blob: BlobRecord | None) -> Digest | None:
        """Return the digest that the blob's bytes lie under, where distribution looks for them."""
        if blob is None:
            return None
        under = keys.parse_blob_key(blob.key)
        if under is not None:
            return under
        # An object store leaves bytes where they came in; the links need them at their place.
        target = keys.blob(blob.digest)
        self._guard()
        async with self._driver.write(target) as handle, aclosing(self._driver.read(blob.key)) as pieces:
            async for piece in pieces:
                await handle.append(piece)
            await handle.commit()
        if await self._store.relocate(blob.digest, blob.key, target):
            self._left_behind.append((self._clock.now() + _READERS_ARE_THROUGH, blob.key))
        return blob.digest

    async def _tidy(self) -> None:
        """Remove bytes that have moved, once nobody can be about to read them."""
        now = self._clock.now()
        due = [key for at, key in self._left_behind if at <= now]
        self._left_behind = [(at, key) for at, key in self._left_behind if at > now]
        if due:
            self._guard()
            await delete_all(self._driver, due)

    async def _write_manifests(self, facts: Mapping[tuple[RepositoryName, Digest], bytes | None]) -> None:
        contents = {keys.blob(digest): raw for (_, digest), raw in facts.items() if raw is not None}
        sizes = await _together([self._size(key) for key in contents])
        self._guard()
        await self._driver.put(
            [(key, raw) for (key, raw), size in zip(contents.items(), sizes, strict=True) if size != len(raw)]
        )
        await self._write(
            {keys.revision_link(*where): None if raw is None else where[1] for where, raw in facts.items()}
        )

    async def _write_tags(
        self,
        facts: Mapping[tuple[RepositoryName, Tag], Digest | None],
        pointed: Mapping[tuple[RepositoryName, Tag], Sequence[Digest]],
    ) -> None:
        await _together([self._remove(keys.tag_folder(*where)) for where, target in facts.items() if target is None])
        there = {where: target for where, target in facts.items() if target is not None}
        self._guard()
        await self._driver.put(
            [
                (keys.tag_index_link(*where, digest), str(digest).encode())
                for where, target in there.items()
                for digest in dict.fromkeys((*pointed[where], target))
            ]
        )
        await self._write({keys.tag_link(*where): target for where, target in there.items()})

    async def _remove(self, prefix: str) -> None:
        async with aclosing(self._driver.iter_keys(prefix)) as listing:
            found = [info.key async for info in listing]
        self._guard()
        await delete_all(self._driver, found)

    async def _write(self, links: Mapping[Key, Digest | None]) -> None:
        """Make links say this, or remove them; those that say so already are left alone."""
        self._guard()
        await delete_all(self._driver, [key for key, target in links.items() if target is None])
        wanted = {key: str(target).encode() for key, target in links.items() if target is not None}
        found = await _together([self._content(key, len(content)) for key, content in wanted.items()])
        self._guard()
        await self._driver.put(
            [(key, content) for (key, content), old in zip(wanted.items(), found, strict=True) if old != content]
        )

    async def _size(self, key: Key) -> int | None:
        try:
            return await self._driver.size(key)
        except KeyUnknownError:
            return None

    async def _content(self, key: Key, size: int) -> bytes | None:
        if await self._size(key) != size:
            return None
        try:
            async with aclosing(self._driver.read(key)) as pieces:
                return b"".join([piece async for piece in pieces])
        except KeyUnknownError:
            return None


def _digests(changes: Sequence[LinkChange], kind: LinkKind) -> Sequence[tuple[RepositoryName, Digest]]:
    """Return where changes of that kind were, each place once."""
    return list(
        dict.fromkeys((change.repository, Digest.parse(change.name)) for change in changes if change.kind is kind)
    )


async def _until_they_agree(
    places: Iterable[tuple[RepositoryName, N]],
    ask: Callable[[RepositoryName, N], Awaitable[T]],
    write: Callable[[Mapping[tuple[RepositoryName, N], T]], Awaitable[None]],
) -> None:
    """Write what the facts are, and again where they aren't the same afterwards.

    Many places at once: they share flushes of the folders above them.
    """
    facts = await _ask_all(places, ask)
    while facts:
        await write(facts)
        now = await _ask_all(facts, ask)
        facts = {place: fact for place, fact in now.items() if fact != facts[place]}


async def _ask_all(
    places: Iterable[tuple[RepositoryName, N]], ask: Callable[[RepositoryName, N], Awaitable[T]]
) -> dict[tuple[RepositoryName, N], T]:
    where = list(places)
    return dict(zip(where, await _together([ask(*place) for place in where]), strict=True))


async def _together(work: Sequence[Awaitable[T]]) -> list[T]:
    """Await some at a time; the first that fails is raised when those beside it have ended."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def run(one: Awaitable[T]) -> T:
        async with gate:
            return await one

    results = await asyncio.gather(*(run(one) for one in work), return_exceptions=True)
    done: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done


class LinkedManifests:
    """A `ManifestStore` whose writes return when the links are written (``storage.links = "sync"``)."""

    def __init__(self, store: ManifestStore, links: Links) -> None:
        self.find_by_tag = store.find_by_tag
        self.find_by_digest = store.find_by_digest
        self.content = store.content
        self._store = store
        self._links = links

    async def put(
        self,
        repository: RepositoryName,
        manifest: NewManifest,
        tags: Sequence[Tag],
        *,
        condition: TagCondition | None = None,
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> None:
        """Store a manifest, and its links."""
        await self._store.put(
            repository, manifest, tags, condition=condition, immutable=immutable, cause=cause, now=now
        )
        await self._links.catch_up(repository)

    async def restore(
        self,
        repository: RepositoryName,
        tag: Tag,
        digest: Digest,
        *,
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> bool:
        """Put a tag back, and its links."""
        is_here = await self._store.restore(repository, tag, digest, immutable=immutable, cause=cause, now=now)
        await self._links.catch_up(repository)
        return is_here

    async def delete(
        self,
        repository: RepositoryName,
        digest: Digest,
        *,
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> Sequence[Tag] | None:
        """Delete a manifest, and its links."""
        tags = await self._store.delete(repository, digest, immutable=immutable, cause=cause, now=now)
        await self._links.catch_up(repository)
        return tags

    async def delete_tag(
        self,
        repository: RepositoryName,
        tag: Tag,
        *,
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> bool:
        """Remove a tag, and its links."""
        was_there = await self._store.delete_tag(repository, tag, immutable=immutable, cause=cause, now=now)
        await self._links.catch_up(repository)
        return was_there


class LinkedBlobs:
    """A `BlobStore` whose writes return when the links are written (``storage.links = "sync"``)."""

    def __init__(self, store: BlobStore, links: Links) -> None:
        self.find = store.find
        self.find_stored = store.find_stored
        self.promise = store.promise
        self.expect = store.expect
        self._store = store
        self._links = links

    async def commit(
        self,
        repository: RepositoryName,
        blob: BlobRecord,
        *,
        upload: UploadRecord | None,
        now: datetime,
        arrival: Arrival | None = None,
        cause: Cause = UNPROMPTED,
    ) -> BlobRecord:
        """Record durable bytes, and their link."""
        stored = await self._store.commit(repository, blob, upload=upload, now=now, arrival=arrival, cause=cause)
        await self._links.catch_up(repository)
        return stored

    async def mount(
        self,
        repository: RepositoryName,
        digest: Digest,
        *,
        source: RepositoryName | None,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> BlobRecord | None:
        """Mount, and write the link."""
        mounted = await self._store.mount(repository, digest, source=source, cause=cause, now=now)
        await self._links.catch_up(repository)
        return mounted

    async def unlink(
        self,
        repository: RepositoryName,
        digest: Digest,
        *,
        immutable: ImmutableTags = NOTHING_IMMUTABLE,
        cause: Cause = UNPROMPTED,
        now: datetime,
    ) -> bool:
        """Unlink, and remove the link."""
        was_there = await self._store.unlink(repository, digest, immutable=immutable, cause=cause, now=now)
        await self._links.catch_up(repository)
        return was_there
