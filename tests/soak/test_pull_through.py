"""kill -9 while images of an upstream arrive, and while they are added to, again and again.

Nothing half-made is served, and nothing stays behind.

SOAK_ROUNDS is how often each (default 40).
"""

import asyncio
import os
import random
import time
from collections import Counter
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from tests.integration.test_proxy import LARGE, SPACE, fetch, pull, serving, upstream_config
from tests.soak.crashes import POINTS, KillAt

from roadstead.oci.digest import Digest
from roadstead.storage import keys
from roadstead.testing.client import Client, ConnectionBrokenError
from roadstead.testing.images import TestImage, TestIndex, make_image, make_index
from roadstead.testing.scripted_upstream import cuts, scripted_upstream, stalls
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import wait_until

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "40"))
CLIENTS = 6
RULE = """
[augment]
provenance = false

[[augment.rules]]
match = "up.example/team/*"
env = ["ADDED=yes"]
"""
CALLS = ("fsync", "fdatasync", "rename", "mkdir", "pwrite64", "sendto", "writev")
KNOWN_POINTS = {name for _, name in POINTS}
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


@pytest.mark.soak
async def test_kills_before_each_step_of_a_rewrite(tmp_path: Path) -> None:
    """An index that lies here is added to for the first time, and the worker is killed before the first, second, third…
    call of each name: after the next start it is served whole, with the bytes that it has where nobody is killed.
    """
    choice = random.Random(11)
    hit: Counter[str] = Counter()
    left = dict.fromkeys(CALLS, 0)
    known: set[Digest] = set()
    number = 0
    async with scripted_upstream() as upstream:
        server = RoadsteadServer(tmp_path, config=upstream_config(upstream.url) + RULE + PURGING, workers=1)
        try:
            while left and hit.total() < ROUNDS:
                number += 1
                index = make_index(
                    [make_image(platform=f"linux/{cpu}", seed=f"{number}") for cpu in ("amd64", "arm64")]
                )
                name, calm = (f"{SPACE}/team/{kind}{number}" for kind in ("app", "calm"))
                for one in (name, calm):
                    upstream.hold(one.removeprefix(f"{SPACE}/"), index, "1")
                known |= {
                    index.digest,
                    *(digest for child in index.children for digest in (child.digest, *child.blobs)),
                }
                call = choice.choice(list(left))
                left[call] += choice.randrange(1, 6) if call == "pwrite64" else 1

                await asyncio.to_thread(server.start)
                await asyncio.to_thread(pull_all, server.host, f"as-pushed/{name}", index)
                point = await asyncio.to_thread(killed_at, server, tmp_path / "trace", call, left[call], name)
                await asyncio.to_thread(server.kill)
                if point:
                    hit[point if point in KNOWN_POINTS else call] += 1
                else:
                    del left[call]

                await asyncio.to_thread(server.start)
                known |= await asyncio.to_thread(check_added, server.host, name, calm, point)
                await asyncio.to_thread(server.stop)
            make_old(server.data)
            await asyncio.to_thread(server.start)
            data = server.data
            assert await asyncio.to_thread(wait_until, lambda: not stray(data, known), timeout=timedelta(seconds=30)), (
                stray(data, known)
            )
        finally:
            await asyncio.to_thread(server.stop)
    print(f"\n{hit.total()} kills in {number} rewrites, before {dict(hit)}")
    assert hit.total() >= min(ROUNDS, 10), "hardly anything was under way"


def pull_all(host: str, name: str, index: TestIndex) -> None:
    """Pull all that an index lists: it lies here then."""
    assert fetch(host, f"/v2/{name}/manifests/1").body == index.raw
    for child in index.children:
        assert pull(host, name, child.digest) == wanted(child)


def killed_at(server: RoadsteadServer, trace: Path, call: str, when: int, name: str) -> str:
    """Ask for the image by its tag, and return what the worker was about to do when it was killed; empty: it wasn't."""
    with closing(KillAt(server.workers, call, when, trace)) as killer:
        with suppress(ConnectionBrokenError, OSError):
            assert fetch(server.host, f"/v2/{name}/manifests/1").status == 200
            return ""
        assert wait_until(lambda: killer.point != "", timeout=timedelta(seconds=10))
        return killer.point


def check_added(host: str, name: str, calm: str, point: str) -> set[Digest]:
    """Pull the image whole by the name that was broken off; by another it is the same. Return what all of it is."""
    served, undisturbed = (fetch(host, f"/v2/{one}/manifests/1") for one in (name, calm))
    assert (served.status, served.body) == (200, undisturbed.body), point
    digests = {Digest.of(served.body)}
    for entry in served.json()["manifests"]:
        child = fetch(host, f"/v2/{name}/manifests/{entry['digest']}")
        assert (child.status, str(Digest.of(child.body))) == (200, entry["digest"]), point
        blobs = pull(host, name, entry["digest"])
        assert b"ADDED=yes" in blobs[child.json()["config"]["digest"]], point
        digests |= {Digest.parse(entry["digest"]), *map(Digest.parse, blobs)}
    return digests


@pytest.mark.soak
async def test_an_upstream_that_stalls_is_asked_for_the_rest(tmp_path: Path) -> None:
    """A minute of silence in the middle of a blob is a cut: the rest is asked for, and the client sees but a pause."""
    image = make_image(layers=1, size=LARGE, seed="stalls")
    layer = image.layers[0]
    async with scripted_upstream() as upstream, serving(tmp_path, upstream_config(upstream.url)) as server:
        upstream.hold("library/app", image, "1")
        upstream.will("GET", f"/blobs/{layer.digest}", stalls(1_000_000, 600))
        with Client(server.host, timeout_s=120) as client:
            answer = await asyncio.to_thread(client.get, f"/v2/library/app/blobs/{layer.digest}")
        assert answer.body == layer.raw
        assert upstream.seen("GET", "/blobs/")[-1].headers["range"] == "bytes=1000000-"
