"""A server whose workers, or a collector that, can be made to stand still at any boundary between their steps.

Who stands still may have what others need: SQLite's turn to write, or a row's lock. So whoever goes on meanwhile is
watched, and where it comes to wait the one that stands still goes on, as it would have in the end.
"""

import asyncio
import fcntl
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Protocol, TypeVar

import asyncpg
import pytest
from tests.integration.boundaries import PLAN_VARIABLE, SITECUSTOMIZE, Plan, stopped_or_done
from tests.integration.stepwise import Case, Content, Front, Script, SentAwayError, Stepwise, ground, persist

from roadstead.db.engine import open_database
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.testing.client import Client
from roadstead.testing.images import make_index
from roadstead.testing.postgres import PostgresServer
from roadstead.testing.server import RoadsteadServer

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
TURNS = 12  # requests of a client that is told to come back while nobody goes on


class Queue(Protocol):
    """Tells whether somebody waits for what somebody else has."""

    async def is_waited_in(self) -> bool:
        """Say whether somebody waits, or would."""
        ...


class Turns:
    """The turn to write to an SQLite database. Asked before anybody else writes."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + ".lock")

    async def is_waited_in(self) -> bool:
        """Say whether the turn is taken."""
        with self._path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False


class Locks:
    """The locks of a PostgreSQL database."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def is_waited_in(self) -> bool:
        """Say whether a session waits for a lock."""
        waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return await self._connection.fetchrow(waits) is not None


@dataclass
class Site:
    """A running server that can be made to stand still, for all scripts of a file."""

    server: RoadsteadServer
    database_url: str
    plan: Plan
    environment: dict[str, str]
    numbers: Iterator[int] = field(default_factory=count)
    kept: dict[tuple[str, str], Content] = field(default_factory=dict)  # what was acknowledged


@dataclass
class Scene:
    """A site and a collection beside it."""

    site: Site
    front: Front
    collection: Stepwise
    queue: Queue
    asides: Mapping[int, Client]  # a further connection to each worker, by its process id
    hit: Counter[str] = field(default_factory=Counter)  # before what somebody stood still
    waited: int = 0  # how often the others came to wait for whoever stood still

    @property
    def plan(self) -> Plan:
        """Return who stands still where."""
        return self.site.plan

    def case(self, name: str, size: int) -> Case:
        """Return content and names that no other case has."""
        return Case(self.front, name, next(self.site.numbers), size)

    async def beside(self, work: Awaitable[T]) -> tuple[T, bool]:
        """Do something while somebody stands still; return, too, whether that one had to go on for it."""
        asked_first = isinstance(self.queue, Turns)
        waited = asked_first and await self.queue.is_waited_in()
        task = asyncio.ensure_future(work)
        while not task.done():
            if waited or (not asked_first and await self.queue.is_waited_in()):
                waited = True
                self.plan.disarm()
            await asyncio.wait({task}, timeout=0.002)
        self.waited += waited
        return await task, waited

    async def look(self, prefix: str) -> None:
        """Ask for everything that was acknowledged in these repositories; storage has that of all, and nothing else."""
        await self.collection.to_the_end()
        self.front.check_all(prefix)
        assert await self.collection.stored() == self.front.needed
        assert await self.collection.damaged() == set()

    def summary(self) -> str:
        """Return in figures what was done."""
        kinds = ", ".join(f"{name} {number}" for name, number in self.hit.most_common())
        return (
            f"{sum(self.hit.values())} pauses, {self.waited} of them ended by who came to wait, "
            f"{self.front.sent_away} sent away; before: {kinds}"
        )


@contextmanager
def stoppable(directory: Path, database_url: str) -> Iterator[Site]:
    """Start a server that can be stopped at its boundaries; its own collection is off."""
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(SITECUSTOMIZE)
    plan = Plan(directory / "plan")
    environment = {
        "ROADSTEAD_STORAGE_LINKS": "off",
        "PYTHONPATH": f"{directory}:{ROOT / 'src'}:{ROOT}",
        PLAN_VARIABLE: str(directory / "plan"),
    }
    config = f'[database]\nurl = "{database_url}"\n[gc]\nenabled = false\n'
    with RoadsteadServer(directory / "server", config=config, environment=environment) as server:
        try:
            yield Site(server, database_url, plan, environment)
        finally:
            plan.disarm()


@asynccontextmanager
async def opened(site: Site) -> AsyncIterator[Scene]:
    """Open the server's database and storage for a collection of our own."""
    database = await open_database(site.database_url, migrate=False, pool_size=4)
    driver = FilesystemDriver(site.server.data)
    watching = None if site.database_url.startswith("sqlite") else await asyncpg.connect(site.database_url)
    queue: Queue = Locks(watching) if watching else Turns(site.server.data / "roadstead.db")
    asides = {worker: site.server.client_of(worker) for worker in site.server.workers}
    front = Front.of(site.server)
    front.kept = site.kept
    yield Scene(site, front, Stepwise(database, driver), queue, asides)
    if watching:
        await watching.close()
    await database.close()
    await driver.close()


@contextmanager
def site_of(kind: str, directory: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """Start a stoppable server on a database of this kind, "sqlite" or "postgres"."""
    if kind == "sqlite":
        with stoppable(directory, f"sqlite:///{directory}/server/data/roadstead.db") as site:
            yield site
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    url = postgres.create_database()
    with stoppable(directory, url) as site:
        yield site
    postgres.drop_database(url)


# A worker


async def worker_at_every_boundary(
    site: Site, script: Script, size: int, splits: Sequence[tuple[int, int]], steps: Sequence[str]
) -> Scene:
    """Stop the worker at the first boundary of a script, the second, … until there are no more; for each split."""
    async with opened(site) as scene:
        ground(scene.case(str(script), size))
        for split in splits:
            for at in count(1):
                if not await worker_stopped(scene, script, size, at, split, steps):
                    break
        await scene.look(f"{script}/")
    return scene


async def worker_and_rival(site: Site, script: Script, size: int, rival: Callable[[Case], None]) -> Scene:
    """Stop the worker at every boundary, while a rival is at work."""
    async with opened(site) as scene:
        for at in count(1):
            if not await worker_stopped_by_a_rival(scene, script, size, at, rival, ("sweep", *script.steps)):
                break
        await scene.look(f"{script}-")
    return scene


async def collector_at_every_boundary(site: Site, script: Script, size: int) -> Scene:
    """Stop a collector at every boundary, while a client goes through a script."""
    async with opened(site) as scene:
        ground(scene.case(str(script), size))
        with closing(CollectorProcess(site)) as collector:
            for at in count(1):
                if not await collector_stopped(scene, collector, script, size, at):
                    break
        await scene.look(f"{script}/")
    return scene


async def worker_stopped(
    scene: Scene, script: Script, size: int, at: int, split: tuple[int, int], steps: Sequence[str]
) -> bool:
    """Stop the worker at one boundary of a script, with collection's steps before, within and after.

    `split` tells where the steps within begin and end. Returns whether there was such a boundary.
    """
    case = scene.case(str(script), size)
    first, last = split
    script.begin(case)
    for name in steps[:first]:
        await scene.collection.step(name)
    rest = list(steps[first:])

    async def collect() -> None:
        for name in steps[first:last]:
            rest.pop(0)
            _, waited = await scene.beside(scene.collection.step(name))
            if waited:  # nobody stands still any more
                return

    is_over, was_stopped = await _with_a_stop(scene, script, case, at, collect)
    for name in rest:
        await scene.collection.step(name)
    await scene.collection.finish()
    if not is_over:
        for _ in persist(script, case):
            pass
    case.check()
    case.leave()
    return was_stopped


async def _with_a_stop(
    scene: Scene, script: Script, case: Case, at: int, meanwhile: Callable[[], Awaitable[None]]
) -> tuple[bool, bool]:
    """Let a client talk, a worker stop at one boundary and something be done meanwhile.

    Returns whether the client got to its end, and whether anybody stood still.
    """
    talk = persist(script, case)
    scene.plan.arm(at, scene.site.server.workers)
    working = asyncio.ensure_future(asyncio.to_thread(_talked_out, talk))
    try:
        if was_stopped := await stopped_or_done(scene.plan, working):
            scene.hit[scene.plan.name] += 1
            await meanwhile()
    finally:
        scene.plan.disarm()
        is_over = await working
    return is_over, was_stopped


def _talked_out(talk: Iterator[None]) -> bool:
    """Let a client talk, though not for ever: what is being deleted stays so until somebody finishes it."""
    return any(next(talk, ...) is ... for _ in range(TURNS))


# A worker, and a client of another


def push_too(case: Case) -> None:
    """Push the same image."""
    case.send(case.home)
    case.refer(case.home)


def mount_too(case: Case) -> None:
    """Mount the same blob, and push the manifest there."""
    location = case.mount()
    if location:
        case.finish(location, case.data)
    case.refer(case.away)


def delete_too(case: Case) -> None:
    """Delete the image, and then its index: who names a part of an index has that deleted, whatever lists it.

    Not its blob, which is taken from the repository at once, whatever a manifest says.
    """
    case.delete()
    case.front.ask("DELETE", f"{case.home}/manifests/{make_index([case.image]).digest}", expect=(202, 404))


def move_the_tag(case: Case) -> None:
    """Push another image under the same tag."""
    case.front.push(case.home, case.tag, case.made("rival"))


RIVALS: Sequence[Callable[[Case], None]] = (push_too, mount_too, delete_too, move_the_tag)


async def worker_stopped_by_a_rival(
    scene: Scene, script: Script, size: int, at: int, rival: Callable[[Case], None], steps: Sequence[str]
) -> bool:
    """Stop the worker at one boundary of a script, while a client of another worker does something with the same.

    Who came last nobody knows, so what is there may be either's, but only whole. Then all of it is collected that
    isn't needed, and the first client does the same again.
    """
    case = scene.case(f"{script}-{rival.__name__}".replace("_", "-"), size)
    ground(case)
    script.begin(case)

    async def intrude() -> None:
        stopped = scene.plan.stopped
        others = [client for worker, client in scene.asides.items() if worker != stopped]
        other = Case(Front(others), case.name, case.number, size)
        await scene.beside(asyncio.to_thread(_once, rival, other))

    _, was_stopped = await _with_a_stop(scene, script, case, at, intrude)
    _check_whole_or_absent(case)
    for name in steps:
        await scene.collection.step(name)
    await scene.collection.finish()
    _check_whole_or_absent(case)
    for _ in persist(script, case):
        pass
    for repository in (case.home, case.away):
        if (repository, case.tag) not in case.front.kept:
            case.front.clients[0].delete(f"/v2/{repository}/manifests/{case.tag}")
    case.check()
    case.leave()
    return was_stopped


def _once(rival: Callable[[Case], None], case: Case) -> None:
    with suppress(SentAwayError):
        rival(case)


def _check_whole_or_absent(case: Case) -> None:
    """Whatever a tag names can be pulled."""
    candidates: Sequence[Content] = (
        case.image,
        case.made("other"),
        case.made("rival"),
        make_index([case.image]),
    )
    contents = {content.raw: content for content in candidates}
    for repository in (case.home, case.away):
        answer = case.front.clients[0].get(f"/v2/{repository}/manifests/{case.tag}")
        assert answer.status in (200, 404), answer
        if answer.status == 200:
            case.front.check(repository, case.tag, contents[answer.body])


# A collector


class CollectorProcess:
    """Collection in a process of its own (collector_process.py), which can be stopped at its boundaries."""

    def __init__(self, site: Site) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.collector_process", site.database_url, str(site.server.data)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, **site.environment},
        )  # fmt: skip
        assert self._hear() == "ready"

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    def collect(self, moment: datetime) -> str:
        """Do a whole collection as at that moment; blocks."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{moment.isoformat()}\n")
        self._process.stdin.flush()
        return self._hear()

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=30)

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


async def collector_stopped(scene: Scene, collector: CollectorProcess, script: Script, size: int, at: int) -> bool:
    """Stop a collector at one boundary, while a client goes as far through a script as it gets."""
    case = scene.case(str(script), size)
    script.begin(case)
    talk = persist(script, case)
    clock = scene.collection.clock
    scene.plan.arm(at, [collector.pid])
    collecting = asyncio.ensure_future(asyncio.to_thread(collector.collect, clock.now()))
    clock.advance(timedelta(minutes=10))  # longer than it takes for itself
    try:
        if was_stopped := await stopped_or_done(scene.plan, collecting):
            scene.hit[scene.plan.name] += 1
            await scene.beside(asyncio.to_thread(_until_sent_away, scene.front, talk))
    finally:
        scene.plan.disarm()
        outcome = await collecting
    assert outcome in ("done", "busy"), outcome
    await scene.collection.finish()
    for _ in talk:
        pass
    case.check()
    case.leave()
    return was_stopped


def _until_sent_away(front: Front, talk: Iterator[None]) -> None:
    """Let a client talk to its end, or until it is told to come back."""
    before = front.sent_away
    while front.sent_away == before and next(talk, ...) is not ...:
        pass
