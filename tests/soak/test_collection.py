"""Collection by the hundred thousand, of a million blobs, and killed.

SOAK_STEPS is how many steps the walk makes over all its seeds (default 100,000), SOAK_BLOBS how many blobs are
collected at once (default 1,000,000), SOAK_KILLS how often everything is killed (default 20).
"""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from benchmarks.fill import fill_blobs
from tests.soak.pushing import LastingPusher
from tests.soak.walk import Walk

from roadstead.db.engine import open_database
from roadstead.registry.gc import Collector, Policy
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.storage.drivers.memory import MemoryDriver
from roadstead.testing.client import Client
from roadstead.testing.clock import FrozenClock
from roadstead.testing.server import RoadsteadServer

STEPS = int(os.environ.get("SOAK_STEPS", "100000"))
BLOBS = int(os.environ.get("SOAK_BLOBS", "1000000"))
KILLS = int(os.environ.get("SOAK_KILLS", "20"))
SEEDS = 10
FLAT = 32 << 20  # bytes that a pass may take more than before, however many blobs there are


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_a_walk_beside_a_model(tmp_path: Path, seed: int) -> None:
    """Whatever is pushed, mounted, asked for, unlinked, tagged, deleted and collected: what was promised is here."""
    database = await open_database(f"sqlite:///{tmp_path}/roadstead.db", migrate=True)
    driver = MemoryDriver()
    walk = Walk(database, driver, seed)
    for _ in range(STEPS // SEEDS):
        await walk.step()
    await walk.look()
    await walk.nothing_is_left_over()
    await database.close()
    print(f"\n{STEPS // SEEDS} steps, {walk.passes} passes, {walk.removed} blobs removed, {walk.refused} told to wait")
    assert walk.removed > 0


@pytest.mark.soak
async def test_a_million_blobs(tmp_path: Path) -> None:
    """All that nothing needs goes in two passes; memory doesn't grow with how many there are."""
    path = tmp_path / "roadstead.db"
    fill_blobs(path, BLOBS, lease_until=datetime(2026, 1, 1, tzinfo=UTC))
    database = await open_database(f"sqlite:///{path}", migrate=False)
    driver = FilesystemDriver(tmp_path / "data")  # without the bytes: removing what isn't there is no error
    clock = FrozenClock(datetime(2026, 3, 1, tzinfo=UTC))
    collector = Collector(database.collection, database.catalog, driver, clock, Policy())

    before = peak_memory()
    began = time.monotonic()
    condemned = (await collector.run()).condemned
    condemned_s = time.monotonic() - began
    clock.advance(timedelta(minutes=2))
    began = time.monotonic()
    removed = (await collector.run()).blobs
    removed_s = time.monotonic() - began
    grown = peak_memory() - before
    print(
        f"\n{condemned} condemned in {condemned_s:.0f} s ({condemned / condemned_s:.0f}/s), "
        f"{removed} removed in {removed_s:.0f} s ({removed / removed_s:.0f}/s), {grown >> 20} MiB more at the most"
    )
    await database.close()
    await driver.close()

    assert (condemned, removed) == (BLOBS, BLOBS)
    assert grown < FLAT


def peak_memory() -> int:
    """Return how much memory this process has had at the most, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.soak
def test_kills_while_collection_runs(tmp_path: Path) -> None:
    """kill -9 of the server and of a collector that gives nobody time: what was acknowledged can be pulled."""
    choice = random.Random(7)
    config = "[gc]\nenabled = false\n"
    environment = {"ROADSTEAD_STORAGE_LINKS": "off"}
    pushers = [LastingPusher(seed) for seed in (1, 2, 3)]
    for _ in range(KILLS):
        server = RoadsteadServer(tmp_path / "server", config=config, environment=environment)
        with server:
            command = [sys.executable, "-m", "tests.soak.collector", str(server.data)]
            collector = subprocess.Popen(command, cwd=Path(__file__).parents[2], env=dict(os.environ))
            stop = threading.Event()
            threads = [threading.Thread(target=pusher.run, args=(server.host, stop)) for pusher in pushers]
            for thread in threads:
                thread.start()
            time.sleep(choice.uniform(0.5, 3))
            for pid in choice.sample([collector.pid, server.pid], 2):
                kill = os.killpg if pid == server.pid else os.kill
                kill(pid, signal.SIGKILL)
                time.sleep(choice.uniform(0, 0.2))
            stop.set()
            for thread in threads:
                thread.join()
            collector.wait()
            server.kill()
    with RoadsteadServer(tmp_path / "server", config=config, environment=environment) as server:
        pulled = sum(pusher.check(Client(server.host)) for pusher in pushers)
    acknowledged = sum(pusher.count for pusher in pushers)
    print(f"\n{KILLS} kills, {acknowledged} pushes acknowledged, {pulled} tags pulled whole at the end")
    assert pulled > 0
