"""kill -9 while images of an upstream arrive, again and again: nothing half-made is served, and nothing stays behind.

SOAK_ROUNDS is how often (default 40).
"""

import asyncio
import os
import random
import time
from datetime import timedelta
from pathlib import Path

import pytest
from tests.integration.test_proxy import LARGE, SPACE, pull, upstream_config

from roadstead.oci.digest import Digest
from roadstead.storage import keys
from roadstead.testing.client import ConnectionBrokenError
from roadstead.testing.images import TestImage, make_image
from roadstead.testing.scripted_upstream import cuts, scripted_upstream
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import wait_until

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "40"))
CLIENTS = 6
PURGING = '[registry]\nupload_max_age = "1s"\nupload_purge_interval = "1s"\n'


def wanted(image: TestImage) -> dict[str, bytes]:
    """Return an image's blobs by digest."""
    return {str(digest): data for digest, data in image.blobs.items()}


def stray(data: Path, known: set[Digest]) -> list[Path]:
    """Return the files of the tree, and beside it, that hold bytes which nobody knows."""
    blobs = data / keys.ROOT / "blobs"
    arriving = list((data / "arriving").glob("*"))
    found = [path for path in blobs.rglob("data") if Digest.parse(f"sha256:{path.parent.name}") not in known]
    return [*arriving, *found, *being_written(data)]


def being_written(data: Path) -> list[Path]:
    """Return the files of objects and uploads that weren't whole when their writer ended."""
    return [path for folder in (keys.UPLOADS, keys.TEMPORARY) for path in (data / folder).glob("*")]


def make_old(data: Path) -> None:
    """Have them look as they do when the longest upload would have ended: one that goes on can't be told from them."""
    then = time.time() - timedelta(days=2).total_seconds()
    for path in being_written(data):
        os.utime(path, (then, then))


@pytest.mark.soak
async def test_kills_while_images_arrive(tmp_path: Path) -> None:
    """Each round new images are pulled by several clients, all is killed, and then they are pulled whole."""
    choice = random.Random(7)
    known: set[Digest] = set()
    broken = 0
    async with scripted_upstream() as upstream:
        server = RoadsteadServer(tmp_path, config=upstream_config(upstream.url) + PURGING)
        try:
            for number in range(ROUNDS):
                image = make_image(layers=3, size=LARGE, seed=f"round {number}")
                known |= {*image.blobs, image.digest}
                upstream.hold(f"team/app{number}", image, "1")
                upstream.will("GET", f"app{number}/blobs/", *[cuts(choice.randrange(LARGE))] * choice.randrange(3))
                await asyncio.to_thread(server.start)
                name = f"{SPACE}/team/app{number}"
                pulls = [asyncio.ensure_future(asyncio.to_thread(pull, server.host, name, "1")) for _ in range(CLIENTS)]
                await asyncio.wait(pulls, timeout=choice.uniform(0.02, 0.6))
                await asyncio.to_thread(server.kill)
                for each in await asyncio.gather(*pulls, return_exceptions=True):
                    if isinstance(each, dict):
                        assert each == wanted(image)
                    else:
                        assert isinstance(each, (ConnectionBrokenError, OSError)), each
                        broken += 1
                await asyncio.to_thread(server.start)
                assert await asyncio.to_thread(pull, server.host, name, "1") == wanted(image)
                await asyncio.to_thread(server.stop)
            data = server.data
            make_old(data)
            await asyncio.to_thread(server.start)
            assert await asyncio.to_thread(wait_until, lambda: not stray(data, known), timeout=timedelta(seconds=30)), (
                stray(data, known)
            )
        finally:
            await asyncio.to_thread(server.stop)
    print(f"\n{ROUNDS} kills broke {broken} of {ROUNDS * CLIENTS} pulls")
    assert broken, "nothing was ever under way"
