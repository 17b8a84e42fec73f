"""kill -9 by the hundred: at every step of a push, and at any moment under load.

SOAK_ROUNDS is how many crashes each test makes (default 60).
"""

import os
import random
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.soak.crashes import POINTS, CrashingServer, kill_at, kill_at_random
from tests.soak.replicas import s3_config
from tests.soak.traffic import Traffic

from roadstead.testing.seaweedfs import SeaweedFS

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "60"))
BATCH = 20
"""Crashes on one data directory: after each all of it is read."""

CALLS_AWAY = {"write": 170, "epoll_pwait": 350, "writev": 20}
"""The calls by which a worker talks to its database, the object store and its client, and how often in one script."""

CALLS = ("fsync", "fdatasync", "rename", "mkdir", "pwrite64", "writev", "sendto")


SCRIPTS: tuple[Callable[[Traffic], None], ...] = (
    Traffic.script,
    Traffic.push_small,
    Traffic.push_large,
    Traffic.push_in_chunks,
    Traffic.push_manifest,
)


@pytest.mark.soak
async def test_crashes_before_every_step(tmp_path: Path) -> None:
    """The worker is killed as it enters the first, second, third… call of each name, until no call is left."""
    server = CrashingServer(tmp_path / "server")
    hit: Counter[str] = Counter()
    left = dict.fromkeys(product(CALLS, SCRIPTS), 0)
    choice = random.Random(1)
    while left and sum(hit.values()) < ROUNDS:
        call, script = choice.choice(list(left))
        # Of writes there are hundreds in the longest script.
        left[call, script] += choice.randrange(1, 10) if (call, script) == ("pwrite64", Traffic.script) else 1
        point = kill_at(server, tmp_path / "trace", call, left[call, script], script)
        if not point:
            del left[call, script]
            continue
        hit[point] += 1
        assert await server.crash() == [], f"killed at {point} ({script.__name__}, {call} {left[call, script]})"
    server.stop()
    print(f"\n{sum(hit.values())} crashes, slowest start {server.slowest_start_s:.2f} s: {dict(hit)}")
    assert ROUNDS < 60 or set(hit) >= {name for _, name in POINTS}


@pytest.mark.soak
async def test_crashes_at_any_moment_by_the_hundred(tmp_path: Path) -> None:
    """Several clients do everything at once while the server, or one of its workers, is killed."""
    choice = random.Random(2)
    facts, slowest = 0, 0.0
    for first in range(0, ROUNDS, BATCH):
        server = CrashingServer(tmp_path / f"server-{first}")
        for number in range(first, min(first + BATCH, ROUNDS)):
            problems = await kill_at_random(server, choice, count=choice.randrange(1, 6), longest_s=1.5)
            assert problems == [], f"round {number}"
        facts, slowest = facts + len(server.ledger.facts()), max(slowest, server.slowest_start_s)
        server.stop()
    print(f"\n{ROUNDS} crashes, {facts} facts, slowest start {slowest:.2f} s")


@pytest.mark.soak
async def test_crashes_with_postgres_and_s3(tmp_path: Path, postgres_url: str) -> None:
    """The same with the bytes in an object store and the facts in PostgreSQL: what is left is asked over HTTP."""
    choice = random.Random(3)
    rounds = max(2, ROUNDS // 6)
    with SeaweedFS() as s3:
        server = CrashingServer(tmp_path / "server", config=s3_config(s3, postgres_url), files=False)
        hit: Counter[str] = Counter()
        for number in range(rounds):
            if number % 2:
                problems = await kill_at_random(server, choice, count=2, longest_s=3)
            else:
                call, often = choice.choice(list(CALLS_AWAY.items()))
                point = kill_at(server, tmp_path / "trace", call, choice.randrange(1, often), Traffic.script)
                hit[_whom(call, point, {"PostgreSQL": postgres_url, "the object store": s3.endpoint})] += 1
                problems = await server.crash()
            assert problems == [], f"round {number}"
        facts = len(server.ledger.facts())
        server.stop()
    print(f"\n{rounds} crashes, {facts} facts, killed before {dict(hit)}")
    assert hit["no call"] < rounds / 4, "the chosen calls are no longer those of a script"


def _whom(call: str, point: str, addresses: Mapping[str, str]) -> str:
    """Return what the killed call was for, from how strace writes it: whom the worker would have told something."""
    if point == "":
        return "no call"
    told = [name for name, address in addresses.items() if f":{urlsplit(address).port}]" in point]
    return f"{call} to {told[0]}" if told else "answer" if "TCP" in point or point == "answer" else call
