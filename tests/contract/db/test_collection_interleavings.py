"""A push, a mount, a question and a manifest, each at every place among collection's steps, on both databases.

Collection goes in four steps: condemn, take, remove the bytes, forget the row. What clients do falls between any two of
them. Whatever the order, who was told that a blob is there can pull it afterwards; who was told to come back succeeds
then.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import combinations

import pytest
from tests.contract.db.test_collection_stores import OnPostgres, OnSqlite

from roadstead.db.engine import Database
from roadstead.registry.errors import ManifestBlobUnknownError, StoreBusyError
from roadstead.registry.gc import CONDEMNED_FOR, Collector, Policy, Tally
from roadstead.registry.ports import BlobRecord, DoomedBlob
from roadstead.storage import keys
from roadstead.storage.arrivals import Arrival
from roadstead.storage.drivers.memory import MemoryDriver
from roadstead.testing.clock import FrozenClock
from roadstead.testing.contracts.registry_stores import APP, LATEST, OTHER, layer, new_blob, new_manifest

DAY = timedelta(hours=24)
DATA = b"the layer"
LAYER = BlobRecord(new_blob(DATA.decode()).digest, len(DATA), keys.blob(new_blob(DATA.decode()).digest))

COLLECTION = ("condemn", "take", "remove", "forget")


def schedules(*client: str) -> list[tuple[str, ...]]:
    """Return every order of the client's and collection's steps that keeps each one's own."""
    total = len(client) + len(COLLECTION)
    return [_merged(client, places, total) for places in combinations(range(total), len(client))]


def _merged(client: Sequence[str], places: Sequence[int], total: int) -> tuple[str, ...]:
    mine, theirs = iter(client), iter(COLLECTION)
    return tuple(next(mine) if place in places else next(theirs) for place in range(total))


@dataclass
class Scene:
    """A blob whose lease has run out, a collection and a push, each step by step."""

    stores: Database
    clock: FrozenClock = field(default_factory=FrozenClock)
    driver: MemoryDriver = field(default_factory=MemoryDriver)
    taken: Sequence[DoomedBlob] = ()
    gone: Sequence[DoomedBlob] = ()
    arrival: Arrival | None = None

    @property
    def collector(self) -> Collector:
        """Return what collects."""
        return Collector(self.stores.collection, self.driver, self.clock, Policy())

    async def prepare(self) -> None:
        """Push the blob, and let a day go by."""
        await self.push()
        self.clock.advance(DAY)

    async def push(self) -> None:
        """Push the blob at once."""
        for step in ("expect", "write", "commit"):
            await self.step(step)

    async def step(self, name: str) -> None:
        """Do one step of one side."""
        await getattr(self, f"_{name}")()

    async def collect_to_the_end(self) -> None:
        """Run whole passes until nothing is left to do."""
        for _ in range(3):
            await self.collector.run()
            self.clock.advance(timedelta(hours=1))

    async def is_pulled(self) -> bool:
        """Say whether the blob is served, and its bytes are there."""
        found = await self.stores.blobs.find(APP, LAYER.digest) or await self.stores.blobs.find(OTHER, LAYER.digest)
        if found is None:
            return False
        return b"".join([piece async for piece in self.driver.read(found.key)]) == DATA

    async def _condemn(self) -> None:
        await self.collector.condemn(Tally())
        self.clock.advance(CONDEMNED_FOR)

    async def _take(self) -> None:
        self.taken = await self.collector.take()

    async def _remove(self) -> None:
        self.gone = await self.collector.remove_bytes(self.taken)

    async def _forget(self) -> None:
        await self.stores.collection.forget(self.gone)

    async def _expect(self) -> None:
        self.arrival = await self.stores.blobs.expect(LAYER.digest, now=self.clock.now())

    async def _write(self) -> None:
        async with self.driver.write(LAYER.key) as handle:
            await handle.append(DATA)
            await handle.commit()

    async def _commit(self) -> None:
        await self.stores.blobs.commit(APP, LAYER, upload=None, now=self.clock.now(), arrival=self.arrival)


async def run(scene: Scene, schedule: Sequence[str], told: Callable[[str], Awaitable[bool]]) -> bool:
    """Run a schedule; return whether the client got its yes. A client that is sent away does no more."""
    answer: bool | None = None
    for name in schedule:
        if name in COLLECTION:
            await scene.step(name)
        elif answer is None or answer:
            try:
                answer = await told(name)
            except (StoreBusyError, ManifestBlobUnknownError):
                answer = False
    return bool(answer)


class Interleavings:
    """What clients do among collection's steps."""

    @pytest.fixture
    async def scene(self, stores: Database) -> Scene:
        """A blob that is about to be collected."""
        scene = Scene(stores)
        await scene.prepare()
        return scene

    @pytest.mark.parametrize("schedule", schedules("expect", "write", "commit"), ids="-".join)
    async def test_push(self, scene: Scene, schedule: Sequence[str]) -> None:
        """A push that is acknowledged can be pulled; one that is refused succeeds later."""

        async def push(step: str) -> bool:
            await scene.step(step)
            return True

        acknowledged = await run(scene, schedule, push)

        if acknowledged:
            assert await scene.is_pulled()
            await scene.collect_to_the_end()
            assert await scene.is_pulled()
        else:
            await scene.collect_to_the_end()
            await scene.push()
            assert await scene.is_pulled()

    @pytest.mark.parametrize("schedule", schedules("mount"), ids="-".join)
    async def test_mount(self, scene: Scene, schedule: Sequence[str]) -> None:
        """A mount that is granted can be pulled; otherwise the client pushes."""

        async def mount(_: str) -> bool:
            stored = await scene.stores.blobs.mount(OTHER, LAYER.digest, source=APP, now=scene.clock.now())
            return stored is not None

        granted = await run(scene, schedule, mount)

        await scene.collect_to_the_end()
        assert granted == (schedule[0] == "mount")
        assert await scene.is_pulled() == granted

    @pytest.mark.parametrize("schedule", schedules("ask"), ids="-".join)
    async def test_head(self, scene: Scene, schedule: Sequence[str]) -> None:
        """Who is told that the blob is there can refer to it half a day later."""

        async def ask(_: str) -> bool:
            return await scene.stores.blobs.promise(APP, LAYER.digest, now=scene.clock.now()) is not None

        told = await run(scene, schedule, ask)

        await scene.collect_to_the_end()
        scene.clock.advance(DAY / 3)
        assert told == (schedule[0] == "ask")
        if told:
            manifest = new_manifest("{}", [layer(LAYER)])
            await scene.stores.manifests.put(APP, manifest, [LATEST], now=scene.clock.now())
            scene.clock.advance(DAY)
            await scene.collect_to_the_end()
        assert await scene.is_pulled() == told

    @pytest.mark.parametrize("schedule", schedules("refer"), ids="-".join)
    async def test_manifest(self, scene: Scene, schedule: Sequence[str]) -> None:
        """A manifest that is taken has all its layers; one that comes too late is refused."""

        async def refer(_: str) -> bool:
            manifest = new_manifest("{}", [layer(LAYER)])
            await scene.stores.manifests.put(APP, manifest, [LATEST], now=scene.clock.now())
            return True

        taken = await run(scene, schedule, refer)

        await scene.collect_to_the_end()
        assert taken == (schedule[0] == "refer")
        assert await scene.is_pulled() == taken

    @pytest.mark.parametrize("died_after", COLLECTION)
    async def test_a_collector_that_dies(self, scene: Scene, died_after: str) -> None:
        """Whatever it left, the next one finishes, and a push succeeds then."""
        for name in COLLECTION[: COLLECTION.index(died_after) + 1]:
            await scene.step(name)

        await scene.collect_to_the_end()

        assert await scene.stores.collection.blobs(after="", limit=1) == []
        await scene.push()
        assert await scene.is_pulled()

    async def test_what_was_left_being_deleted_is_waited_for(self, scene: Scene) -> None:
        """For as long as a request of the dead collector may still be on its way, nobody brings the digest."""
        for name in ("condemn", "take"):
            await scene.step(name)
        scene.clock.advance(timedelta(minutes=14))
        await scene.collector.run()

        with pytest.raises(StoreBusyError):
            await scene.push()

    async def test_a_collector_that_slept_removes_nothing(self, scene: Scene) -> None:
        """Its claim is over: another may have finished, and a client pushed the digest again."""
        for name in ("condemn", "take"):
            await scene.step(name)
        scene.clock.advance(timedelta(minutes=16))
        await scene.collector.run()
        await scene.push()

        await scene.step("remove")
        await scene.step("forget")

        assert scene.gone == []
        assert await scene.is_pulled()

    async def test_a_stray_found_while_it_is_pushed(self, scene: Scene) -> None:
        """A sweep between the bytes and their row hands them to collection; the push takes them back."""
        await scene.collect_to_the_end()
        await scene.step("expect")
        await scene.step("write")
        assert await scene.stores.collection.adopt(
            [LAYER], lease_until=scene.clock.now() + timedelta(hours=1), now=scene.clock.now()
        )

        scene.clock.advance(timedelta(minutes=10))
        await scene.collector.run()
        await scene.step("commit")

        await scene.collect_to_the_end()
        assert await scene.is_pulled()


class TestOnSqlite(OnSqlite, Interleavings):
    """SQLite."""


class TestOnPostgres(OnPostgres, Interleavings):
    """PostgreSQL."""
