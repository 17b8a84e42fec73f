"""Collection against a simple model: never a reachable byte lost, never an unreachable one kept.

The model knows which manifests are where, what they refer to, which tags point at them and until when each blob was
promised. Collection runs whole or in steps, between anything.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from roadstead.db.engine import Database, open_database
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.errors import ManifestBlobUnknownError, StoreBusyError
from roadstead.registry.gc import Collector, Policy, Tally, Untagged
from roadstead.registry.ports import BlobRecord, DoomedBlob, ManifestReference, NewManifest, ReferenceKind
from roadstead.storage import keys
from roadstead.storage.drivers.memory import MemoryDriver
from roadstead.testing.clock import FrozenClock
from roadstead.testing.contracts.registry_stores import APP, OTHER, child, new_blob, new_manifest

LEASE = timedelta(hours=24)
UNTAGGED_AFTER = timedelta(days=3)
POLICY = Policy(untagged=Untagged.DELETE, untagged_after=UNTAGGED_AFTER)

T = TypeVar("T")

_repositories = st.sampled_from([APP, OTHER])
_blobs = st.integers(0, 3)
_some_blobs = st.frozensets(_blobs, max_size=3)
_tags = st.sampled_from([Tag("a"), Tag("b")])


@dataclass(eq=False)
class Held:
    """A manifest in a repository, as the model knows it."""

    manifest: NewManifest
    blobs: frozenset[int]
    children: frozenset[str]  # digests
    since: datetime


class CollectionModel(RuleBasedStateMachine):
    """A registry, a collector, and what should be there."""

    url: ClassVar[str]
    template: ClassVar[Path | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = FrozenClock()
        self.driver = MemoryDriver()
        self.taken: Sequence[DoomedBlob] = ()
        self.gone: Sequence[DoomedBlob] = ()
        self.manifests: dict[tuple[RepositoryName, str], Held] = {}
        self.tags: dict[tuple[RepositoryName, Tag], str] = {}
        self.links: dict[tuple[RepositoryName, int], datetime] = {}  # promised until then
        self.leased_until: dict[int, datetime] = {}  # at the latest
        self.serial = 0

    # The registry under test

    @initialize()
    def open(self) -> None:
        """Open an empty database."""
        self.directory = Path(tempfile.mkdtemp(prefix="roadstead-model-"))
        self.database: Database = self.run(self._open())
        self.collector = Collector(self.database.collection, self.driver, self.clock, POLICY)

    async def _open(self) -> Database:
        if self.template is None:
            connection = await asyncpg.connect(self.url)
            names = "blobs, repository_blobs, contents, manifests, manifest_references, tags, tag_journal, repositories"
            await connection.execute(f"TRUNCATE {names} CASCADE")
            await connection.close()
            return await open_database(self.url, migrate=False, pool_size=2)
        shutil.copyfile(self.template, self.directory / "roadstead.db")
        return await open_database(f"sqlite:///{self.directory}/roadstead.db", migrate=False)

    def teardown(self) -> None:
        """Close it."""
        if hasattr(self, "database"):
            self.run(self.database.close())
            shutil.rmtree(self.directory)
        self.runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the machine's own loop."""
        return self.runner.run(work)

    # What clients do

    @rule(repository=_repositories, number=_blobs)
    def push_blob(self, repository: RepositoryName, number: int) -> None:
        """Push; who is sent away comes back later."""
        now, blob = self.clock.now(), _blob(number)

        async def push() -> None:
            arrival = await self.database.blobs.expect(blob.digest, now=now)
            async with self.driver.write(blob.key) as handle:
                await handle.append(_data(number))
                await handle.commit()
            await self.database.blobs.commit(repository, blob, upload=None, now=now, arrival=arrival)

        try:
            self.run(push())
        except StoreBusyError:
            return
        self._promised(repository, number)

    @rule(repository=_repositories, number=_blobs)
    def ask(self, repository: RepositoryName, number: int) -> None:
        """HEAD."""
        found = self.run(self.database.blobs.promise(repository, _blob(number).digest, now=self.clock.now()))
        assert found is not None or (repository, number) not in self._needed_links()
        if found is not None:
            self._promised(repository, number)

    @rule(number=_blobs)
    def mount(self, number: int) -> None:
        """Mount from one repository into the other."""
        try:
            found = self.run(self.database.blobs.mount(OTHER, _blob(number).digest, source=APP, now=self.clock.now()))
        except StoreBusyError:
            return
        assert found is not None or (APP, number) not in self._needed_links()
        if found is not None:
            self._promised(OTHER, number)

    @rule(
        repository=_repositories, blobs=st.frozensets(_blobs, max_size=3), tag=st.none() | _tags, subject=st.booleans()
    )
    def push_image(self, repository: RepositoryName, blobs: frozenset[int], tag: Tag | None, subject: bool) -> None:
        """Push a manifest, tagged or not, perhaps one that refers to another of the repository."""
        mine = sorted(digest for held_by, digest in self.manifests if held_by == repository)
        self.serial += 1
        manifest = new_manifest(
            f"manifest {self.serial}",
            [ManifestReference(ReferenceKind.LAYER, _blob(n).digest, _blob(n).size) for n in sorted(blobs)],
            subject=self.manifests[repository, mine[0]].manifest.digest if subject and mine else None,
        )
        self._put(repository, Held(manifest, blobs, frozenset(), self.clock.now()), tag)

    @rule(repository=_repositories, tag=st.none() | _tags)
    def push_index(self, repository: RepositoryName, tag: Tag | None) -> None:
        """Push an index of one or two manifests."""
        mine = sorted((d, held) for (held_by, d), held in self.manifests.items() if held_by == repository)[:2]
        if not mine:
            return
        self.serial += 1
        index = new_manifest(f"index {self.serial}", [child(held.manifest) for _, held in mine])
        children = frozenset(digest for digest, _ in mine)
        self._put(repository, Held(index, frozenset(), children, self.clock.now()), tag)

    @rule(repository=_repositories, tag=_tags)
    def delete_tag(self, repository: RepositoryName, tag: Tag) -> None:
        """Remove a tag."""
        removed = self.run(self.database.manifests.delete_tag(repository, tag, now=self.clock.now()))
        assert removed == ((repository, tag) in self.tags)
        if removed:
            self._untagged(repository, self.tags.pop((repository, tag)))

    @rule(repository=_repositories, position=st.integers(0, 5))
    def delete_manifest(self, repository: RepositoryName, position: int) -> None:
        """Remove a manifest, whatever lists it."""
        mine = sorted(digest for held_by, digest in self.manifests if held_by == repository)
        if not mine:
            return
        digest = mine[position % len(mine)]
        held = self.manifests.pop((repository, digest))
        removed = self.run(self.database.manifests.delete(repository, held.manifest.digest, now=self.clock.now()))
        gone = [key for key, at in self.tags.items() if key[0] == repository and at == digest]
        assert removed == sorted(tag for _, tag in gone)
        for key in gone:
            del self.tags[key]

    @rule(hours=st.sampled_from([1, 7, 11, 13, 25, 80]))
    def wait(self, hours: int) -> None:
        """Let time go by."""
        self.clock.advance(timedelta(hours=hours))

    # What collection does

    @rule()
    def condemn(self) -> None:
        """Run the first step alone."""
        self.run(self.collector.condemn(Tally()))
        self.clock.advance(timedelta(seconds=61))

    @rule()
    def take(self) -> None:
        """Take what may be taken, and go on later, or never."""
        self.taken = self.run(self.collector.take())

    @rule()
    def remove_bytes(self) -> None:
        """Remove the bytes of what was taken, if the claim still holds."""
        self.gone, self.taken = self.run(self.collector.remove_bytes(self.taken)), ()

    @rule()
    def forget(self) -> None:
        """Remove the rows of what is gone."""
        self.run(self.database.collection.forget(self.gone))
        self.gone = ()

    @rule()
    def collect(self) -> None:
        """Run passes until there is nothing left to do: nothing unreachable is left."""
        for _ in range(3):
            self.clock.advance(timedelta(minutes=16))  # long enough for all that waits
            self.run(self.collector.run())
        self._collect_in_the_model()
        left = {facts.digest for facts in self.run(self.database.collection.blobs(after="", limit=100))}
        for number in range(4):
            if not self._may_stay(number):
                assert _blob(number).digest not in left
                assert _blob(number).key not in self.driver._store.objects

    # What holds all the time

    @invariant()
    def what_is_reachable_is_there(self) -> None:
        """Every blob that a manifest of a repository needs, or that was promised, is served with its bytes."""
        for repository, number in self._needed_links():
            blob = _blob(number)
            found = self.run(self.database.blobs.find(repository, blob.digest))
            assert found == blob, (repository, number)
            assert self.driver._store.objects[found.key][0] == _data(number)

    @invariant()
    def tags_lead_to_manifests(self) -> None:
        """Every tag can be pulled, down to the children of indexes that were not deleted by hand."""
        for (repository, tag), digest in self.tags.items():
            found = self.run(self.database.manifests.find_by_tag(repository, tag))
            assert found is not None
            assert str(found.digest) == digest
            for part in self.manifests[repository, digest].children:
                if (repository, part) in self.manifests:
                    held = self.manifests[repository, part].manifest
                    assert self.run(self.database.manifests.find_by_digest(repository, held.digest)) is not None

    # The model

    def _put(self, repository: RepositoryName, held: Held, tag: Tag | None) -> None:
        digest = str(held.manifest.digest)
        try:
            self.run(
                self.database.manifests.put(
                    repository, held.manifest, [] if tag is None else [tag], now=self.clock.now()
                )
            )
        except ManifestBlobUnknownError as error:
            known = self._needed_links()
            missing = {number for number in held.blobs if _blob(number).digest in error.missing}
            assert missing
            assert not any((repository, number) in known for number in missing)
            return
        self.manifests[repository, digest] = held
        if tag is not None:
            previous = self.tags.get((repository, tag))
            self.tags[repository, tag] = digest
            if previous is not None:
                self._untagged(repository, previous)

    def _untagged(self, repository: RepositoryName, digest: str) -> None:
        if (repository, digest) in self.manifests:
            self.manifests[repository, digest].since = self.clock.now()

    def _promised(self, repository: RepositoryName, number: int) -> None:
        now = self.clock.now()
        self.links[repository, number] = now + LEASE / 2
        self.leased_until[number] = now + LEASE

    def _needed_links(self) -> set[tuple[RepositoryName, int]]:
        now = self.clock.now()
        promised = {link for link, until in self.links.items() if until > now}
        referenced = {(held_by, n) for (held_by, _), held in self.manifests.items() for n in held.blobs}
        return promised | referenced

    def _may_stay(self, number: int) -> bool:
        referenced = any(number in held.blobs for held in self.manifests.values())
        return referenced or self.leased_until.get(number, self.clock.now()) > self.clock.now() - timedelta(hours=1)

    def _collect_in_the_model(self) -> None:
        """Take out manifests that nothing keeps, until all that are left are kept; the store agrees on each."""
        while collected := [key for key, held in self.manifests.items() if not self._is_kept(key, held)]:
            for key in collected:
                del self.manifests[key]
        for (repository, _), held in self.manifests.items():
            assert self.run(self.database.manifests.find_by_digest(repository, held.manifest.digest)) is not None
        stored = self.run(self.database.collection.manifests(after=(0, ""), limit=1000))
        assert {(fact.repository, str(fact.digest)) for fact in stored} == set(self.manifests)

    def _is_kept(self, key: tuple[RepositoryName, str], held: Held) -> bool:
        repository, digest = key
        subject = held.manifest.subject
        return (
            any(at == digest and held_by == repository for (held_by, _), at in self.tags.items())
            or any(digest in other.children for (held_by, _), other in self.manifests.items() if held_by == repository)
            or (subject is not None and (repository, str(subject)) in self.manifests)
            or held.since > self.clock.now() - UNTAGGED_AFTER
        )


def _data(number: int) -> bytes:
    return f"blob {number}".encode()


def _blob(number: int) -> BlobRecord:
    digest = new_blob(_data(number).decode()).digest
    return BlobRecord(digest, len(_data(number)), keys.blob(digest))


def check(steps: int, examples: int, *, url: str = "", template: Path | None = None) -> None:
    """Run the model."""
    machine = type("Model", (CollectionModel,), {"url": url, "template": template})
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=profile)


def test_the_model_on_sqlite(migrated_sqlite: Path) -> None:
    """A few dozen steps at a time."""
    check(30, 25, template=migrated_sqlite)


def test_the_model_on_postgres(migrated_postgres_url: str) -> None:
    """The same, fewer: every step is a round trip or more."""
    check(25, 8, url=migrated_postgres_url)


@pytest.mark.soak
def test_the_model_for_long_on_sqlite(migrated_sqlite: Path) -> None:
    """Many more steps."""
    check(120, 400, template=migrated_sqlite)


@pytest.mark.soak
def test_the_model_for_long_on_postgres(migrated_postgres_url: str) -> None:
    """Many more steps."""
    check(120, 100, url=migrated_postgres_url)
