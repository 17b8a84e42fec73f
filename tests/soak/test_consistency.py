"""Thousands of changes, each seen by every worker of every replica at once.

SOAK_ROUNDS is how many rounds each test makes (default 300); a round is 13 changes and some 40 looks at two workers.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.soak.consistency import Ring, ring
from tests.soak.replicas import s3_config

from roadstead.testing.client import Client
from roadstead.testing.seaweedfs import SeaweedFS
from roadstead.testing.server import RoadsteadServer

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "300"))


@pytest.fixture(scope="module")
def seaweedfs() -> Iterator[SeaweedFS]:
    with SeaweedFS() as server:
        yield server


def go_round(clients: Sequence[Client], rounds: int) -> None:
    together = Ring(clients, "consistent/app")
    for number in range(rounds):
        together.round(number)
    print(f"\n{rounds} rounds over {len(clients)} workers, {together.looks} looks, none at anything old")


@pytest.mark.soak
def test_two_workers_on_sqlite(tmp_path: Path) -> None:
    """What one worker acknowledged the other tells at once."""
    with RoadsteadServer(tmp_path) as server:
        go_round(ring(server), ROUNDS)


@pytest.mark.soak
def test_two_workers_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    """What one worker acknowledged the other tells at once."""
    with RoadsteadServer(tmp_path, config=f'[database]\nurl = "{postgres_url}"\n') as server:
        go_round(ring(server), ROUNDS)


@pytest.mark.soak
def test_two_replicas_on_postgres_and_s3(tmp_path: Path, postgres_url: str, seaweedfs: SeaweedFS) -> None:
    """What a worker of one server acknowledged every worker of both servers tells at once; sessions wander too."""
    config = s3_config(seaweedfs, postgres_url)
    with (
        RoadsteadServer(tmp_path / "one", config=config) as one,
        RoadsteadServer(tmp_path / "two", config=config) as two,
    ):
        go_round(ring(one, two), max(1, ROUNDS // 5))
