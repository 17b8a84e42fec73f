"""Server processes that stand still inside a request while collection goes on, and a collector that stands still.

SOAK_ROUNDS is how many rounds each test makes (default 60), SOAK_SEED which (default 1).
"""

import asyncio
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations_with_replacement
from pathlib import Path

import pytest
from tests.integration.stepwise import (
    ALL_STEPS,
    SCRIPTS,
    Case,
    Front,
    Script,
    Stepwise,
    ask_first,
    ground,
    mount,
    persist,
    push,
    push_in_chunks,
)
from tests.soak.pauses import Pauses

from roadstead.db.engine import Database, open_database
from roadstead.oci.reference import RepositoryName
from roadstead.registry.ports import BlobRecord
from roadstead.storage import keys
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.testing.server import RoadsteadServer

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "60"))
SEED = int(os.environ.get("SOAK_SEED", "1"))

STEPS = ("sweep", *ALL_STEPS)
PATIENCE_S = 1.0  # how long collection waits for a lock that a process holds which stands still
SIZES = (2_000, 100_000)  # the larger one is staged

DISK_CALLS = ("pwrite64", "fsync", "fdatasync", "rename", "mkdir", "openat")
CALLS = {
    "sqlite": (*DISK_CALLS, "writev", "sendto"),
    "postgres": (*DISK_CALLS, "write", "writev", "sendto", "read", "recvfrom", "epoll_wait", "epoll_pwait"),
}
STRIDES = {"pwrite64": 8, "openat": 8, "epoll_wait": 8, "epoll_pwait": 8}  # of these there are many in a script
GC_CALLS = {
    "sqlite": ("unlink", "unlinkat", "rmdir", "pwrite64", "fdatasync"),
    "postgres": ("unlink", "unlinkat", "rmdir", "sendto", "write", "recvfrom"),
}


@dataclass
class Scene:
    """A running server, and a collection beside it that waits for nobody."""

    server: RoadsteadServer
    database: Database
    database_url: str
    driver: FilesystemDriver
    front: Front
    collection: Stepwise

    async def step(self, name: str) -> bool:
        """Do one step of collection, unless somebody who stands still holds what it needs."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                return await self.collection.step(name)
        return False

    async def look(self) -> None:
        """Ask for everything that was acknowledged, and for nothing else in storage."""
        self.front.check_all()
        await self.collection.to_the_end()
        self.front.check_all()
        assert await self.collection.stored() == self.front.needed
        assert await self.collection.damaged() == set()


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    """The database's kind."""
    return str(request.param)


@pytest.fixture
def database_url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of the server's database."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/server/data/roadstead.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def server(tmp_path: Path, database_url: str) -> Iterator[RoadsteadServer]:
    """A running server whose own collection is off."""
    config = f'[database]\nurl = "{database_url}"\n[gc]\nenabled = false\n'
    environment = {"ROADSTEAD_STORAGE_LINKS": "off"}
    with RoadsteadServer(tmp_path / "server", config=config, environment=environment) as running:
        yield running


@asynccontextmanager
async def opened(server: RoadsteadServer, url: str) -> AsyncIterator[Scene]:
    """Open the server's database and storage for a collection of our own."""
    database = await open_database(url, migrate=False, pool_size=4)
    driver = FilesystemDriver(server.data)
    front = Front.of(server)
    yield Scene(server, database, url, driver, front, Stepwise(database, driver))
    await database.close()
    await driver.close()


@pytest.mark.soak
async def test_a_worker_that_stands_still(
    server: RoadsteadServer, database_url: str, kind: str, tmp_path: Path
) -> None:
    """It is stopped after any system call inside a request; collection meanwhile does any of its steps."""
    choice = random.Random(SEED)
    pairs = list(combinations_with_replacement(range(len(STEPS)), 2))
    places = [(script, call) for script in SCRIPTS for call in CALLS[kind]]
    reached = dict.fromkeys(places, 0)
    hit: Counter[str] = Counter()
    done: Counter[bool] = Counter()
    async with opened(server, database_url) as scene:
        for number in range(ROUNDS):
            script, call = choice.choice(places)
            reached[script, call] += choice.randrange(1, STRIDES.get(call, 3))
            case = Case(scene.front, f"still/{number}", number, choice.choice(SIZES))
            ground(case)
            first, last = choice.choice(pairs)
            pauses = (call, reached[script, call], tmp_path / "trace")
            point = await paused(scene, case, script, pauses, (first, last), done)
            hit[point] += 1
            if not point:  # it has no more of these calls: from its first again
                reached[script, call] = 0
        await scene.look()
    missed = hit.pop("", 0)
    print(f"\n{kind}: {sum(hit.values())} pauses, {missed} rounds without; after {dict(hit.most_common())}")
    print(f"collection's steps meanwhile: {done[True]} done, {done[False]} kept out; {scene.front.sent_away} sent away")
    assert sum(hit.values()) > 0


async def paused(
    scene: Scene, case: Case, script: Script, pauses: tuple[str, int, Path], steps: tuple[int, int], done: Counter[bool]
) -> str:
    """Go through a script that is stopped at one call, with collection's steps before, within and after the pause."""
    script.begin(case)
    first, last = steps
    for name in STEPS[:first]:
        await scene.step(name)
    talk = persist(script, case)
    with Pauses(*pauses, pids=scene.server.workers) as watched:
        working = asyncio.create_task(asyncio.to_thread(_work, talk))
        meanwhile = list(STEPS[first : last + 1])
        while not working.done():
            if watched.stopped():
                for name in meanwhile:
                    done[await scene.step(name)] += 1
                meanwhile = []
                watched.go_on()
            await asyncio.sleep(0.002)
        point = watched.point(scene.database_url)
    for name in STEPS[last + 1 :]:
        await scene.step(name)
    await scene.collection.finish()
    if not await working:
        for _ in persist(script, case):
            pass
    case.check()
    return point


def _work(talk: Iterator[None]) -> bool:
    """Let a client talk, though not for ever: what is being deleted stays so until somebody finishes it."""
    return any(next(talk, ...) is ... for _ in range(12))


@pytest.mark.soak
async def test_a_collector_that_stands_still(
    server: RoadsteadServer, database_url: str, kind: str, tmp_path: Path
) -> None:
    """`roadstead gc` is stopped after any of its calls; clients meanwhile push and mount what it is about to remove."""
    choice = random.Random(SEED)
    reached = dict.fromkeys(GC_CALLS[kind], 0)
    hit: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    async with opened(server, database_url) as scene:
        for number in range(ROUNDS):
            call = choice.choice(GC_CALLS[kind])
            reached[call] += choice.randrange(1, 4)
            point = await stopped_collector(scene, number, choice, (call, reached[call], tmp_path / "trace"), answers)
            hit[point] += 1
            if not point:  # it has no more of these calls: from its first again
                reached[call] = 0
        await scene.look()
    missed = hit.pop("", 0)
    print(f"\n{kind}: {sum(hit.values())} pauses, {missed} rounds without; after {dict(hit.most_common())}")
    print(f"scripts meanwhile: {dict(answers)}; {scene.front.sent_away} sent away")
    assert sum(hit.values()) > 0


async def stopped_collector(
    scene: Scene, number: int, choice: random.Random, pauses: tuple[str, int, Path], answers: Counter[str]
) -> str:
    """Let a collector run that is stopped at one call, and clients bring what it has in hand."""
    now = datetime.now(UTC)
    scripts = [Script(talk, Case.absent, 4) for talk in (push, push_in_chunks, ask_first, mount)]
    cases = [Case(scene.front, f"gc/{number}-{n}", number, choice.choice(SIZES)) for n in range(2 * len(scripts))]
    for case in cases:
        ground(case)
    half = len(scripts)
    earlier = Stepwise(scene.database, scene.driver)
    earlier.clock.advance(now - timedelta(days=2) - earlier.clock.now())
    for case in cases[:half]:  # condemned two days ago: they go at once
        await pushed_before(scene, case, now - timedelta(days=5))
    await earlier.step("condemn")
    for case in cases[half:]:  # idle, and their lease is over
        await pushed_before(scene, case, now - timedelta(days=5))
    config = scene.server.directory / "roadstead.toml"
    command = (sys.executable, "-m", "roadstead", "gc", str(config), "--data", str(scene.server.data))
    begun = [(case, script, persist(script, case)) for case, script in zip(cases, scripts * 2, strict=True)]
    over: list[bool] = []
    with Pauses(*pauses, command=command, environment={**os.environ, "ROADSTEAD_STORAGE_LINKS": "off"}) as watched:
        while watched.process.poll() is None:
            if watched.stopped():
                if not over:
                    over = [_until_sent_away(scene.front, talk) for _, _, talk in choice.sample(begun, 3)]
                watched.go_on()
            await asyncio.sleep(0.002)
        point = watched.point(scene.database_url)
    answers.update("got through" if whole else "told to come back" for whole in over)
    await scene.collection.finish()
    for case, _, talk in begun:
        for _ in talk:
            pass
        case.check()
    return point


def _until_sent_away(front: Front, talk: Iterator[None]) -> bool:
    """Let a client talk until it is told to come back; say whether it got to its end."""
    before = front.sent_away
    while front.sent_away == before:
        if next(talk, ...) is ...:
            return True
    return False


async def pushed_before(scene: Scene, case: Case, at: datetime) -> None:
    """Push the blob as a server would have that had the time *at*."""
    key = keys.blob(case.digest)
    async with scene.driver.write(key) as handle:
        await handle.append(case.data)
        await handle.commit()
    blob = BlobRecord(case.digest, len(case.data), key)
    await scene.database.blobs.commit(RepositoryName.parse(case.home), blob, upload=None, now=at)
