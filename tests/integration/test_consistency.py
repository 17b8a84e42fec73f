"""After an acknowledged change every worker answers the new state at once (design decisions 3 and 4).

A few rounds of what ``tests/soak/test_consistency.py`` does by the thousand; the last test shows that a worker which
remembered where tags point would be caught.
"""

from pathlib import Path

import pytest
from tests.soak.consistency import Ring, ring

from roadstead.testing.server import RoadsteadServer

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


def test_a_worker_that_remembers_tags_is_caught(tmp_path: Path) -> None:
    """The rounds above fail on a server that keeps what it read of a tag."""
    (tmp_path / "sitecustomize.py").write_text(MEMORY_OF_TAGS)
    source = Path(__file__).parents[2] / "src"
    with RoadsteadServer(tmp_path, environment={"PYTHONPATH": f"{tmp_path}:{source}"}) as server:
        together = Ring(ring(server), "consistent/app")

        with pytest.raises(AssertionError, match="a moved tag: a worker tells"):
            together.round(0)
