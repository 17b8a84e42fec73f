"""A large tree comes from distribution and goes back to it, on a disk and in a bucket; prints rate and memory."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from tests.integration.adoption import findings, listings
from tests.soak.adopting import Place, ask_all, change, damage, fill, in_bucket, on_disk

from roadstead.testing.client import Client
from roadstead.testing.postgres import PostgresServer
from roadstead.testing.seaweedfs import SeaweedFS
from roadstead.testing.server import RoadsteadServer

MANIFESTS = 5_000


def run_import(place: Place, home: Path) -> tuple[dict, float, int]:
    """Import, and return the report, how long it took, and the most memory in KiB."""
    config = home / "import.toml"
    config.write_text(place.config)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak.measured", "import", place.url, "--config", str(config), "--json"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr  # the tree is damaged
    return json.loads(done.stdout), time.monotonic() - started, int(done.stderr.split()[-1])


@pytest.mark.soak
def test_a_folder(tmp_path: Path) -> None:
    """Debian's docker-registry before us and after us, on its own tree; then the database is lost."""
    place = on_disk(tmp_path)

    def forget() -> Place:
        for path in (tmp_path / "root").glob("roadstead.db*"):
            path.unlink()
        return place

    adopt_and_give_back(place, forget, tmp_path, MANIFESTS)


@pytest.mark.soak
def test_a_bucket(tmp_path: Path, seaweedfs: SeaweedFS, postgres: PostgresServer) -> None:
    """Distribution 3 with its s3 driver before us and after us; then the database is lost."""
    first = postgres.create_database()
    place = in_bucket(seaweedfs, first)

    def forget() -> Place:
        second = postgres.create_database()
        config = place.config.replace(first, second)
        return Place(place.name, place.open_peer, place.open_driver, config, place.url)

    adopt_and_give_back(place, forget, tmp_path, MANIFESTS)


def differences(
    place: Place, theirs: dict[str, list[str]], ours: dict[str, list[str]]
) -> dict[str, tuple[set[str], set[str]]]:
    """Return, of repositories without oddities, tags that only they list, and tags that only we do.

    In a bucket distribution 3 passes over a tag whose name begins with another one's (``v1``, ``v11``), though it
    answers it: these don't count.
    """
    found = {}
    for name in {*theirs, *ours}:
        one, other = set(theirs.get(name, ())), set(ours.get(name, ()))
        only_ours = other - one
        if place.root is None:
            only_ours = {tag for tag in only_ours if not any(tag != short and tag.startswith(short) for short in other)}
        if (one - other or only_ours) and not name.startswith("odd/"):
            found[name] = (one - other, only_ours)
    return found


def adopt_and_give_back(place: Place, forget, home: Path, manifests: int) -> None:
    """Everything that is promised to whoever comes from distribution, and goes back."""
    with place.open_peer() as peer:
        started = time.monotonic()
        odd = fill(peer.host, manifests)
        filled = time.monotonic() - started
        damage(place, odd)
        wanted = place.references()
        theirs, their_listings = ask_all(peer.host, wanted), listings(peer.host)
    before = asyncio.run(place.identities())

    report, seconds, kib = run_import(place, home)
    with RoadsteadServer(home / "server", config=place.config) as server:
        started = time.monotonic()
        ours, our_listings = ask_all(server.host, wanted), listings(server.host)
        asked = time.monotonic() - started
        with closing(Client(server.host)) as client:
            referrers = client.get(f"/v2/odd/signed/referrers/{odd.subject}").json()["manifests"]
            assert client.get(f"/v2/odd/old/manifests/{odd.schema1}").status == 200
            assert client.get("/v2/odd/older/manifests/1").status == 200
    untouched = asyncio.run(place.identities())
    print(
        f"\n{place.name}: {report['manifests']} manifests, {report['tags']} tags, {report['layer_links']} links and "
        f"{report['blobs']} blobs, written by distribution in {filled:.0f} s, taken up in {seconds:.1f} s "
        f"({report['manifests'] / seconds:.0f} manifests/s) with {kib / 1024:.0f} MiB; {len(wanted)} answers "
        f"compared in {asked:.0f} s\n  findings: {findings(report)}\n"
        f"  damaged: {Counter((theirs[one][0], ours[one][0]) for one in odd.damaged if one in theirs)} (theirs, ours)"
    )
    sound = {one for one in wanted if one not in odd.damaged}
    assert {one: ours[one] for one in sound} == {one: theirs[one] for one in sound}
    assert {theirs[one][0] for one in sound} == {200}
    assert differences(place, their_listings, our_listings) == {}
    assert len(referrers) == odd.referrers
    assert report["manifests"] >= manifests
    assert {name: untouched[name] for name in before} == before

    with RoadsteadServer(home / "changing", config=place.config) as server:
        with closing(Client(server.host)) as client:
            change(client, manifests)
        server.stop()
        assert "the tree's links are written" in server.log
    changed = sorted({*wanted, *place.references()} - odd.damaged)
    with RoadsteadServer(home / "changed", config=place.config) as server:
        ours, our_listings = ask_all(server.host, changed), listings(server.host)
    with place.open_peer() as peer:
        theirs, their_listings = ask_all(peer.host, changed), listings(peer.host)
    different = {one for one in changed if theirs[one] != ours[one]}
    print(f"  after 50 pushes, moves and deletes: {len(changed)} answers compared, {len(different)} differ")
    assert {one: (theirs[one], ours[one]) for one in different} == {}
    assert differences(place, their_listings, our_listings) == {}

    again = forget()
    started = time.monotonic()
    server = RoadsteadServer(home / "rebuilt", config=again.config)
    try:
        server.start(timeout=timedelta(minutes=10))
        seconds = time.monotonic() - started
        rebuilt, rebuilt_listings = ask_all(server.host, changed), listings(server.host)
    finally:
        server.stop()
    print(f"  without its database: ready in {seconds:.1f} s")
    assert rebuilt == ours
    assert rebuilt_listings == our_listings
