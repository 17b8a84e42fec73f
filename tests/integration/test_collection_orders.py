"""Every order of what clients ask for and what collection does, over HTTP: server processes, SQLite and PostgreSQL.

Collection is paused at each of its steps' ends while clients go on, and clients between any two of their requests while
collection does. What happens inside a request is in tests/soak/test_paused.py.
"""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.integration.stepwise import (
    BLOB_STEPS,
    SCRIPTS,
    Case,
    Front,
    Script,
    SentAwayError,
    Stepwise,
    ground,
    orders,
    run,
)

from roadstead.db.engine import Database, open_database
from roadstead.oci.reference import RepositoryName
from roadstead.registry.gc import ABANDONED_AFTER
from roadstead.registry.ports import BlobRecord, BlobState
from roadstead.storage import keys
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.testing.postgres import PostgresServer
from roadstead.testing.server import RoadsteadServer

SMALL, STAGED = 2_000, 100_000  # bytes; the larger ones are staged on their way in


@dataclass
class Site:
    """A running server, its database's address, and what its clients were told."""

    server: RoadsteadServer
    database_url: str
    front: Front
    sizes: tuple[int, int]  # of the blobs of even and of odd orders


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server for all scripts of this file; its own collection is off."""
    directory = tmp_path_factory.mktemp("orders")
    if request.param == "sqlite":
        with _served(directory, f"sqlite:///{directory}/server/data/roadstead.db", (SMALL, STAGED)) as site:
            yield site
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    url = postgres.create_database()
    with _served(directory, url, (STAGED, SMALL)) as site:
        yield site
    postgres.drop_database(url)


@contextmanager
def _served(directory: Path, database_url: str, sizes: tuple[int, int]) -> Iterator[Site]:
    config = f'[database]\nurl = "{database_url}"\n[gc]\nenabled = false\n'
    environment = {"ROADSTEAD_STORAGE_LINKS": "off"}
    with RoadsteadServer(directory / "server", config=config, environment=environment) as server:
        yield Site(server, database_url, Front.of(server), sizes)


@pytest.fixture
async def database(site: Site) -> AsyncIterator[Database]:
    """The server's database."""
    database = await open_database(site.database_url, migrate=False, pool_size=4)
    yield database
    await database.close()


@pytest.fixture
async def driver(site: Site) -> AsyncIterator[FilesystemDriver]:
    """The server's storage."""
    driver = FilesystemDriver(site.server.data)
    yield driver
    await driver.close()


@pytest.fixture
def collection(database: Database, driver: FilesystemDriver) -> Stepwise:
    """A collection of this process, on the server's database and storage."""
    return Stepwise(database, driver)


@pytest.fixture
def case(site: Site, request: pytest.FixtureRequest) -> Case:
    """Content and names of the test's own."""
    case = Case(site.front, re.sub(r"[^a-z0-9]+", "-", request.node.name).strip("-"), 0, SMALL)
    ground(case)
    return case


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
async def test_every_order(site: Site, collection: Stepwise, script: Script) -> None:
    """Whatever comes first: what was acknowledged is pulled whole from every worker, and nothing else is kept."""
    before = site.front.sent_away
    for number, order in enumerate(orders(script.requests, script.steps)):
        case = Case(site.front, str(script), number, site.sizes[number % 2])
        if number == 0:
            ground(case)
        await run(case, script, order, collection)

    await collection.to_the_end()
    site.front.check_all(f"{script}/")
    assert await collection.stored() == site.front.needed
    assert await collection.damaged() == set()
    assert site.front.sent_away > before, "no order came between the client and its manifest"


# Decision 5, one by one


async def test_a_push_revives_what_is_condemned(case: Case, collection: Stepwise) -> None:
    """It is answered at once, and collection finds the blob alive: it takes nothing."""
    case.idle()
    await collection.step("condemn")
    assert await collection.state(case.digest) is BlobState.CONDEMNED
    assert not case.head(case.home)

    case.send(case.home)

    assert await collection.state(case.digest) is BlobState.LIVE
    for step in ("take", "remove", "forget"):
        await collection.step(step)
    case.refer(case.home)
    case.front.check_all(f"{case.name}/")


async def test_a_mount_of_what_is_condemned_revives_it(case: Case, collection: Stepwise) -> None:
    """Condemned is what no repository has any more: the mount is told to upload, and the upload brings it back."""
    case.idle()
    await collection.step("condemn")

    location = case.mount()
    assert location
    case.finish(location, case.data)

    assert await collection.state(case.digest) is BlobState.LIVE
    for step in ("take", "remove", "forget"):
        await collection.step(step)
    case.refer(case.away)
    case.front.check_all(f"{case.name}/")


@pytest.mark.parametrize("steps", [("condemn", "take"), ("condemn", "take", "remove")], ids="-".join)
async def test_what_is_being_deleted_is_come_back_for(case: Case, collection: Stepwise, steps: tuple[str, ...]) -> None:
    """Who brings it is told 503 and when to come back, by every worker, until the row is gone; a mount must upload."""
    case.idle()
    for step in steps:
        await collection.step(step)
    assert await collection.state(case.digest) is BlobState.DELETING

    for client in case.front.clients:
        answer = client.post(f"/v2/{case.home}/blobs/uploads/?digest={case.digest}", case.data)
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "UNAVAILABLE", "1")
    location = case.mount()
    with pytest.raises(SentAwayError):
        case.finish(location, case.data)

    for step in ("remove", "forget"):
        await collection.step(step)
    case.send(case.home)
    case.refer(case.home)
    await collection.to_the_end()
    case.front.check_all(f"{case.name}/")


@pytest.mark.parametrize("asked", [True, False])
async def test_head_extends_the_lease(case: Case, database: Database, driver: FilesystemDriver, asked: bool) -> None:
    """A blob whose lease is nearly over is promised for another day to whoever asks for it."""
    now = datetime.now(UTC)
    await pushed_before(database, driver, case, now - timedelta(hours=23))

    if asked:
        assert case.head(case.home)

    later = Stepwise(database, driver)
    later.clock.advance(now + timedelta(hours=22) - later.clock.now())
    await later.step("condemn")
    assert await later.state(case.digest) is (BlobState.LIVE if asked else BlobState.CONDEMNED)
    await later.step("take")
    if asked:
        case.refer(case.home)
    for step in ("remove", "forget"):
        await later.step(step)
    case.front.check_all(f"{case.name}/")


async def pushed_before(database: Database, driver: FilesystemDriver, case: Case, at: datetime) -> None:
    """Push the blob as a server would have that had the time *at*."""
    key = keys.blob(case.digest)
    async with driver.write(key) as handle:
        await handle.append(case.data)
        await handle.commit()
    blob = BlobRecord(case.digest, len(case.data), key)
    await database.blobs.commit(RepositoryName.parse(case.home), blob, upload=None, now=at)


@pytest.mark.parametrize("steps", range(1, 5))
async def test_a_manifest_looks_again(case: Case, collection: Stepwise, steps: int) -> None:
    """Though the client was told that the blob is there: one that is going is named, and no image by half is here."""
    case.idle()
    assert case.head(case.home)
    for step in BLOB_STEPS[:steps]:
        await collection.step(step)

    headers = {"Content-Type": case.image.media_type}
    answer = case.front.clients[0].put(f"/v2/{case.home}/manifests/{case.tag}", case.image.raw, headers)

    assert (answer.status, answer.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert str(case.digest) in answer.body.decode()
    for client in case.front.clients:
        assert client.get(f"/v2/{case.home}/manifests/{case.tag}").status == 404
    await collection.to_the_end()
    case.front.check_all(f"{case.name}/")


@pytest.mark.parametrize("bytes_gone", [True, False])
async def test_what_a_crash_left_is_cleared_later(case: Case, collection: Stepwise, bytes_gone: bool) -> None:
    """A collector that died leaves the row: nobody takes it while a request may still be on its way, then the next."""
    case.idle()
    for step in ("condemn", "take", *(["remove"] if bytes_gone else [])):
        await collection.step(step)

    collection.clock.advance(ABANDONED_AFTER - timedelta(seconds=1))
    await collection.collector.run()
    assert await collection.state(case.digest) is BlobState.DELETING
    with pytest.raises(SentAwayError):
        case.send(case.home)

    collection.clock.advance(timedelta(seconds=2))
    await collection.collector.run()
    assert await collection.state(case.digest) is None
    assert case.digest not in await collection.stored()
    case.send(case.home)
    case.refer(case.home)
    await collection.to_the_end()
    case.front.check_all(f"{case.name}/")
