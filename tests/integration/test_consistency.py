"""After an acknowledged change every worker answers the new state at once (design decisions 3 and 4).

A few rounds of what ``tests/soak/test_consistency.py`` does by the thousand; the last test shows that a worker which
remembered where tags point would be caught.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.client import HTTPException
from pathlib import Path

import pytest
from tests.conformance.documents import push_image
from tests.soak.consistency import Ring, ring

from roadstead.testing.client import Client, ConnectionBrokenError
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import wait_until

ROUNDS = 10

MEMORY_OF_TAGS = """
from roadstead.db.stores.manifests import DatabaseManifests

find_by_tag = DatabaseManifests.find_by_tag
seen = {}

async def remembered(self, repository, tag):
    if (repository, tag) not in seen:
        seen[repository, tag] = await find_by_tag(self, repository, tag)
    return seen[repository, tag]

DatabaseManifests.find_by_tag = remembered
"""
"""What Python runs at its start, in a server that caches what must not be cached."""


def test_every_worker_sees_a_change_at_once_on_sqlite(tmp_path: Path) -> None:
    """Moved and deleted tags, deleted manifests, mounts, unlinked blobs, and sessions that go from worker to worker."""
    with RoadsteadServer(tmp_path) as server:
        clients = ring(server)
        assert len(clients) == 2
        together = Ring(clients, "consistent/app")
        for number in range(ROUNDS):
            together.round(number)


def test_every_worker_sees_a_change_at_once_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    """The same with the facts in PostgreSQL."""
    with RoadsteadServer(tmp_path, config=f'[database]\nurl = "{postgres_url}"\n') as server:
        together = Ring(ring(server), "consistent/app")
        for number in range(ROUNDS):
            together.round(number)


def test_a_count_of_changes_cut_short_under_load_is_made_good(tmp_path: Path) -> None:
    """Of the workers that look at it meanwhile others take the place, as after any death, and all see what is new."""
    with RoadsteadServer(tmp_path) as server, Client(server.host) as client:
        push_image(client, "short/app", "1")
        before = {*server.workers}
        changes = server.data / "roadstead.db.changes"
        statuses: list[int] = []
        over = threading.Event()
        with ThreadPoolExecutor(4) as readers:
            reading = [readers.submit(read_until, over, server.host, statuses) for _ in range(4)]
            try:
                wait_for_more(statuses)
                os.truncate(changes, 0)
                wait_for_more(statuses)
            finally:
                over.set()
            for each in reading:
                each.result()
        assert {*statuses} <= {200, 0}  # 0: no answer
        assert wait_until(lambda: len({*server.workers}) == len(before), timeout=timedelta(seconds=30))
        together = Ring(ring(server), "short/app")
        for number in range(ROUNDS):
            together.round(number)
        assert changes.stat().st_size == 8


def wait_for_more(statuses: list[int]) -> None:
    """Wait until there are 200 more."""
    many = len(statuses) + 200
    assert wait_until(lambda: len(statuses) >= many, timeout=timedelta(seconds=30))


def read_until(over: threading.Event, host: str, statuses: list[int]) -> None:
    """Ask for a manifest again and again, and note the statuses; 0 for no answer."""
    while not over.is_set():
        try:
            with Client(host, timeout_s=5) as client:  # a connection that was never taken up
                while not over.is_set():
                    statuses.append(client.get("/v2/short/app/manifests/1").status)
        except (OSError, HTTPException, ConnectionBrokenError):
            statuses.append(0)


def test_a_worker_that_remembers_tags_is_caught(tmp_path: Path) -> None:
    """The rounds above fail on a server that keeps what it read of a tag."""
    (tmp_path / "sitecustomize.py").write_text(MEMORY_OF_TAGS)
    source = Path(__file__).parents[2] / "src"
    with RoadsteadServer(tmp_path, environment={"PYTHONPATH": f"{tmp_path}:{source}"}) as server:
        together = Ring(ring(server), "consistent/app")

        with pytest.raises(AssertionError, match="a moved tag: a worker tells"):
            together.round(0)
