"""After kill -9 everything acknowledged is there, nothing is half made, and no start repairs anything (§8.2).

A few rounds of what ``tests/soak/test_crash.py`` does by the hundred.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.soak.crashes import CrashingServer, kill_at, kill_at_random
from tests.soak.traffic import Traffic


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CrashingServer]:
    crashing = CrashingServer(tmp_path / "server")
    yield crashing
    crashing.stop()


def small(traffic: Traffic) -> None:
    traffic.push_small()


def staged(traffic: Traffic) -> None:
    traffic.push_large()


def tagged(traffic: Traffic) -> None:
    traffic.push_manifest()


@pytest.mark.parametrize(
    "points",
    [
        pytest.param(
            [
                (small, "fsync", 1, "flush of a small blob's data"),
                (small, "rename", 1, "rename of a blob"),
                (small, "fsync", 2, "flush of a blob's folder"),
                (small, "fdatasync", 1, "flush of the database's log"),
            ],
            id="small-blob",
        ),
        pytest.param(
            [
                (staged, "fdatasync", 1, "flush of a staged blob's data"),
                (staged, "fsync", 1, "flush of the folder of uploads"),
                (staged, "rename", 1, "rename of a blob"),
                (tagged, "fdatasync", 4, "flush of the database's log"),
            ],
            id="staged-blob-and-manifest",
        ),
    ],
)
async def test_a_crash_before_each_step_of_a_push(server: CrashingServer, tmp_path: Path, points) -> None:
    """Whichever step didn't happen any more: what was acknowledged stays, and the same push works afterwards."""
    for script, call, when, expected in points:
        assert kill_at(server, tmp_path / "trace", call, when, script) == expected
        assert await server.crash() == []


async def test_crashes_at_any_moment(server: CrashingServer) -> None:
    """Several clients do everything at once while the server, or one of its workers, is killed."""
    choice = random.Random(5)
    for _ in range(2):
        assert await kill_at_random(server, choice, count=3, longest_s=1.0) == []
