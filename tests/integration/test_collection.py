"""Collection beside a running server: clients and a collector that gives nobody time."""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from roadstead.db.engine import open_database
from roadstead.oci.digest import Digest
from roadstead.registry.errors import StoreBusyError
from roadstead.registry.gc import Collector, Policy, Tally, Untagged
from roadstead.storage import keys
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.testing.client import Client
from roadstead.testing.clock import FrozenClock
from roadstead.testing.images import TestImage, make_image
from roadstead.testing.server import RoadsteadServer

REPOSITORIES = ("team/a", "team/b")
LAYERS = [{f"file-{number}": os.urandom(2000 if number % 2 else 100_000)} for number in range(5)]
OPERATIONS = 40  # of each client


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of the server's database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/server/data/roadstead.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def server(tmp_path: Path, database_url: str) -> Iterator[RoadsteadServer]:
    """A running server whose own collection is off; nor does it put manifests among the blobs, behind the answers."""
    config = f'[database]\nurl = "{database_url}"\n[gc]\nenabled = false\n'
    environment = {"ROADSTEAD_STORAGE_LINKS": "off"}
    with RoadsteadServer(tmp_path / "server", config=config, environment=environment) as running:
        yield running


class Pusher:
    """A client that pushes, mounts, moves and removes, and remembers what it was told."""

    def __init__(self, client: Client, seed: int) -> None:
        self.acknowledged: dict[tuple[str, str], TestImage] = {}
        self.refused = 0
        self._client = client
        self._random = random.Random(seed)
        self._name = f"client-{seed}"

    def work(self) -> None:
        """Do what there is to do, one thing after the other."""
        for number in range(OPERATIONS):
            repository = self._random.choice(REPOSITORIES)
            tag = f"{self._name}-{self._random.randrange(4)}"
            if number % 4 == 3:
                self._remove(repository, tag)
            else:
                self._push(repository, tag)

    def _push(self, repository: str, tag: str) -> None:
        image = make_image(layers=self._random.sample(LAYERS, 2), seed=tag)
        for _ in range(200):
            if self._push_once(repository, tag, image):
                self.acknowledged[repository, tag] = image
                return
            self.refused += 1
        raise AssertionError("the push was refused again and again")

    def _push_once(self, repository: str, tag: str, image: TestImage) -> bool:
        for digest, data in image.blobs.items():
            if not self._give(repository, digest, data):
                return False
        answer = self._client.put(f"/v2/{repository}/manifests/{tag}", image.raw, {"Content-Type": image.media_type})
        assert answer.status in (201, 400, 503), answer
        return answer.status == 201

    def _give(self, repository: str, digest: Digest, data: bytes) -> bool:
        """Push a blob as clients do: ask first, mount if the other repository has it, else send it."""
        if self._client.head(f"/v2/{repository}/blobs/{digest}").status == 200:
            return True
        other = next(name for name in REPOSITORIES if name != repository)
        mount = self._client.post(f"/v2/{repository}/blobs/uploads/?mount={digest}&from={other}")
        if mount.status in (201, 503):
            return mount.status == 201
        sent = self._client.post(f"/v2/{repository}/blobs/uploads/?digest={digest}", data)
        assert sent.status in (201, 503), sent
        return sent.status == 201

    def _remove(self, repository: str, tag: str) -> None:
        answer = self._client.delete(f"/v2/{repository}/manifests/{tag}")
        assert answer.status in (202, 404), answer
        self.acknowledged.pop((repository, tag), None)


async def test_what_was_acknowledged_can_be_pulled(server: RoadsteadServer, database_url: str) -> None:
    """The collector's clock is days ahead, so that no lease protects anything: what a client was told still holds."""
    clock = FrozenClock(datetime.now(UTC) + timedelta(days=10))
    pushers = [Pusher(server.client(), seed) for seed in (1, 2)]
    database = await open_database(database_url, migrate=False)
    driver = FilesystemDriver(server.data)
    policy = Policy(untagged=Untagged.DELETE, untagged_after=timedelta(0), stray_after=timedelta(0))
    collector = Collector(database.collection, database.catalog, driver, clock, policy)
    total = Tally()

    working = asyncio.gather(*(asyncio.to_thread(pusher.work) for pusher in pushers))
    while not working.done():
        total.blobs += await collect(collector)
        clock.advance(timedelta(minutes=2))
        await asyncio.sleep(0)
    await working

    reader = server.client()
    for pusher in pushers:
        for (repository, tag), image in pusher.acknowledged.items():
            assert reader.get(f"/v2/{repository}/manifests/{tag}").body == image.raw
            for digest, data in image.blobs.items():
                assert reader.get(f"/v2/{repository}/blobs/{digest}").body == data
    images = [pusher.acknowledged.values() for pusher in pushers]
    total.blobs += await _nothing_is_left_over(collector, clock, driver, images)
    assert total.blobs > 0
    await database.close()
    await driver.close()


async def collect(collector: Collector) -> int:
    """Do one pass, as the background process does: a busy database ends it, and the next goes on."""
    with suppress(StoreBusyError):
        await collector.sweep()
        return (await collector.run()).blobs
    return 0


async def _nothing_is_left_over(
    collector: Collector, clock: FrozenClock, driver: FilesystemDriver, images: Sequence[object]
) -> int:
    """When all is quiet storage holds what the images need, and nothing else; return how many blobs went for that."""
    removed = 0
    for _ in range(5):
        clock.advance(timedelta(days=2))
        removed += await collect(collector)
    needed = {digest for group in images for image in group for digest in image.blobs}  # type: ignore[attr-defined]
    stored = {keys.parse_blob_key(info.key) async for info in driver.iter_keys(keys.BLOBS)}
    assert stored == needed
    return removed


def test_the_command_beside_a_server(server: RoadsteadServer, database_url: str) -> None:
    """`roadstead gc --dry-run` says what goes and why and changes nothing; without it, it collects."""
    client = server.client()
    image = make_image(layers=1)
    for data in image.blobs.values():
        client.push_blob("team/app", data)
    client.push_manifest("team/app", "1", image.raw, image.media_type)
    config = server.directory / "roadstead.toml"

    lines = roadstead("gc", "--dry-run", "--json", str(config), "--data", str(server.data)).splitlines()
    summary = roadstead("gc", "--dry-run", str(config), "--data", str(server.data))
    done = json.loads(roadstead("gc", "--json", str(config), "--data", str(server.data)))

    told = {item["digest"]: item for item in map(json.loads, lines)}
    assert told[str(image.digest)]["fate"] == "tagged"
    assert told[str(image.config_digest)]["fate"] == "leased"
    assert told[str(image.config_digest)]["needed_by"] == f"team/app@{image.digest}"
    assert "goes:\n  nothing\n" in summary
    assert "1 manifest," in summary
    assert done == {"tags": 0, "manifests": 0, "condemned": 0, "blobs": 0, "freed": 0, "postponed": 0, "strays": 0}
    assert client.get(f"/v2/team/app/blobs/{image.config_digest}").body == image.config


def roadstead(*arguments: str) -> str:
    """Run the command and return what it printed."""
    command = [sys.executable, "-m", "roadstead", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
