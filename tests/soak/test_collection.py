"""Collection by the hundred thousand, of a million blobs, and killed.

SOAK_STEPS is how many steps the walk makes over all its seeds (default 100,000), SOAK_BLOBS how many blobs are
collected at once (default 1,000,000), SOAK_PUSHED_S for how many seconds images are pushed beside each pass
of theirs (default 300: pushes that never end may have the disk for an hour), SOAK_KILLS how often everything is
killed (default 20).
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from benchmarks.contents import Image
from benchmarks.fill import fill_blobs
from tests.soak.passes import Pass, push_rate
from tests.soak.pushing import LastingPusher
from tests.soak.walk import Walk

from roadstead.db.engine import open_database
from roadstead.storage.drivers.memory import MemoryDriver
from roadstead.testing.client import Client
from roadstead.testing.server import RoadsteadServer

STEPS = int(os.environ.get("SOAK_STEPS", "100000"))
BLOBS = int(os.environ.get("SOAK_BLOBS", "1000000"))
KILLS = int(os.environ.get("SOAK_KILLS", "20"))
SEEDS = 10
REST_S = 65
PUSHED_S = int(os.environ.get("SOAK_PUSHED_S", "300"))
LINKS_OFF = {"ROADSTEAD_STORAGE_LINKS": "off"}
FEW = 30_000  # blobs that fill the databases' caches
FLAT = 32 << 20  # bytes that a pass may take more than over those, however many blobs there are


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
def test_a_million_blobs(tmp_path: Path) -> None:
    """All that nothing needs goes in two passes, its bytes too, while images are pushed; nothing that is pushed goes.

    Prints how fast, what is left of the rate of pushes meanwhile, and the memory, which doesn't grow with the blobs.
    """
    with RoadsteadServer(tmp_path / "few"):
        pass
    few = tmp_path / "few" / "data"
    fill_blobs(few / "roadstead.db", min(FEW, BLOBS), lease_until=datetime(2026, 1, 1, tzinfo=UTC), files=few)
    usual = Pass(few).wait().memory

    server = RoadsteadServer(tmp_path / "server", config="[gc]\nenabled = false\n", environment=LINKS_OFF)
    server.data.mkdir(parents=True)
    database = server.data / "roadstead.db"
    fill_blobs(database, BLOBS, lease_until=datetime(2026, 1, 1, tzinfo=UTC), files=server.data)
    os.sync()  # else the disk is at work with what was filled in while the rate at rest is measured
    pushed: list[Image] = []
    condemned, removed = 0, 0
    with server:
        for _ in range(2):
            at_rest = push_rate(server, pushed, REST_S)  # a minute, too, for what is condemned to be removable
            collection = Pass(server.data)
            rate = push_rate(server, pushed, PUSHED_S, collection)
            outcome = collection.wait()
            condemned, removed = condemned + outcome.condemned, removed + outcome.removed
            print(
                f"\n{outcome.condemned} condemned and {outcome.removed} removed in {outcome.seconds:.0f} s; "
                f"beside it, up to {PUSHED_S} s, {rate:.0f} images/s pushed, {rate / at_rest:.2f} of that at rest; "
                f"{(outcome.memory - usual) >> 20} MiB more than with {min(FEW, BLOBS)} blobs"
            )
            assert outcome.memory - usual < FLAT
    assert (condemned, removed) == (BLOBS, BLOBS)
    found = {path.name for path in server.data.glob("docker/registry/v2/blobs/sha256/*/*")}
    assert found == {blob.digest.removeprefix("sha256:") for image in pushed for blob in image.blobs}
    verified = subprocess.run([sys.executable, "-m", "roadstead", "verify", "--data", server.data], check=False)
    assert verified.returncode == 0
    print(f"{len(pushed)} images pushed meanwhile, all there")


@pytest.mark.soak
def test_kills_while_collection_runs(tmp_path: Path) -> None:
    """kill -9 of the server and of a collector that gives nobody time: what was acknowledged can be pulled."""
    choice = random.Random(7)
    config = "[gc]\nenabled = false\n"
    pushers = [LastingPusher(seed) for seed in (1, 2, 3)]
    for _ in range(KILLS):
        server = RoadsteadServer(tmp_path / "server", config=config, environment=LINKS_OFF)
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
    with RoadsteadServer(tmp_path / "server", config=config, environment=LINKS_OFF) as server:
        pulled = sum(pusher.check(Client(server.host)) for pusher in pushers)
    acknowledged = sum(pusher.count for pusher in pushers)
    print(f"\n{KILLS} kills, {acknowledged} pushes acknowledged, {pulled} tags pulled whole at the end")
    assert pulled > 0
