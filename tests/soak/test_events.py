"""2,000 pushes, kill -9 and receivers that misbehave in every way: every acknowledged change is told, in order.

They refuse, hang, cut, answer late, endlessly or with what isn't HTTP, close after 200, and are restarted. SOAK_PUSHES
is how many pushes (default 2000), SOAK_KILLS how often all processes of the server are killed (default 10); between two
of these the background process, a worker or a receiver goes down.
"""

import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from roadstead.testing.client import Client, ConnectionBrokenError
from roadstead.testing.images import make_image
from roadstead.testing.processes import children
from roadstead.testing.receivers import Manner, Receiver
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import wait_until

PUSHES = int(os.environ.get("SOAK_PUSHES", "2000"))
KILLS = int(os.environ.get("SOAK_KILLS", "10"))
PULLS = 200
REPOSITORIES = 8
CLIENTS = 4
IMAGES = [make_image(layers=1, size=20, seed=str(number)) for number in range(20)]


class Nasty:
    """Misbehaves at random, a different way each time; good in the end."""

    def __init__(self, seed: int) -> None:
        self._choice = random.Random(seed)
        self.is_over = False

    def __call__(self, _: dict[str, Any]) -> Manner:
        """Say what becomes of one event."""
        if self.is_over or self._choice.random() < 0.9:
            return Manner.TAKE
        return self._choice.choice([manner for manner in Manner if manner is not Manner.TAKE])


class Acknowledged:
    """What clients were told happened: pushes of tags, by repository, in order. One client has a repository."""

    def __init__(self) -> None:
        self.tags: defaultdict[str, list[str]] = defaultdict(list)
        self.blobs: set[tuple[str, str]] = set()


def push(host: str, repositories: Sequence[str], count: int, told: Acknowledged, over: threading.Event) -> None:
    """Push images, each under a tag of its own, through crashes."""
    client = Client(host, timeout_s=10)
    choice = random.Random(repositories[0])
    number = 0
    while number < count and not over.is_set():
        repository = choice.choice(repositories)
        image = choice.choice(IMAGES)
        try:
            for data in image.blobs.values():
                told.blobs.add((repository, str(client.push_blob(repository, data))))
            client.push_manifest(repository, f"v{number}", image.raw, image.media_type)
        except (ConnectionBrokenError, OSError, AssertionError):  # a 503 while the other processes start, too
            client.close()
            client = Client(host, timeout_s=10)
            time.sleep(0.05)
            continue
        told.tags[repository].append(f"v{number}")
        number += 1
    client.close()


@pytest.mark.soak
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_every_acknowledged_change_is_told(tmp_path: Path, database: str, request: pytest.FixtureRequest) -> None:
    """Two receivers, one or the other restarted; everything killed, and the background process or a worker alone.

    A third hears of pulls: once nothing is killed any more each is told, or counted as dropped.
    """
    choice = random.Random(7)
    told, over = Acknowledged(), threading.Event()
    manners = [Nasty(1), Nasty(2)]
    repositories = [f"team/app{number}" for number in range(REPOSITORIES)]
    with Receiver(manners[0]) as first, Receiver(manners[1]) as second, Receiver() as curious:
        config = "".join(
            f'[[events.endpoints]]\nname = "{name}"\nurl = "{receiver.url}"\ntimeout = "300ms"\nthreshold = 3\n'
            f'backoff = "50ms"\n'
            for name, receiver in (("first", first), ("second", second))
        )
        config += f'[[events.endpoints]]\nname = "curious"\nurl = "{curious.url}"\nactions = ["pull"]\n'
        if database == "postgresql":
            url = request.getfixturevalue("postgres_url")
            config = f'[storage]\npath = "{tmp_path}/data"\n[database]\nurl = "{url}"\n{config}'
        server = RoadsteadServer(tmp_path, config=config).start()
        clients = [
            threading.Thread(
                target=push, args=(server.host, repositories[number::CLIENTS], PUSHES // CLIENTS, told, over)
            )
            for number in range(CLIENTS)
        ]
        for thread in clients:
            thread.start()
        began = time.monotonic()
        try:
            for number in range(2 * KILLS):
                done = PUSHES * (number + 1) // (2 * KILLS + 1)
                assert wait_until(
                    lambda done=done: sum(map(len, told.tags.values())) >= done, timeout=timedelta(minutes=20)
                )
                what = "everything" if number % 2 else choice.choice(("background", "worker", "receiver"))
                _kill(server, what, choice, (first, second))
            for thread in clients:
                thread.join(1200)
        finally:
            over.set()
        for receiver in (first, second):  # they are slow to take it all, as they are
            receiver.wait_for(lambda events: len(events) > PUSHES * 2, timeout=timedelta(minutes=5))
        for each in manners:
            each.is_over = True
        for receiver in (first, second):
            assert receiver.wait_for(lambda events: _missing(told, events) == [], timeout=timedelta(minutes=5)), (
                _missing(told, receiver.taken)[:5]
            )
        took = time.monotonic() - began
        dropped = _pull(server, told, curious)
        server.stop()
        for receiver in (first, second):
            assert _order(told, receiver.taken) == []
            by_id: defaultdict[str, set[str]] = defaultdict(set)
            for event in receiver.taken:
                by_id[event["id"]].add(str(event))
            assert {len(bodies) for bodies in by_id.values()} == {1}
            print(f"\n{database}: {PUSHES} pushes, {KILLS} kills in {took:.0f} s; {len(by_id)} events, "
                  f"{len(receiver.arrivals)} requests, {len(receiver.taken) - len(by_id)} told twice; "
                  f"{_said(receiver)}")  # fmt: skip
        print(f"{PULLS} pulls, {dropped} dropped")


def _pull(server: RoadsteadServer, told: Acknowledged, curious: Receiver) -> int:
    """Pull, and see that each pull is told or counted as dropped; return how many were dropped."""
    [(name, tags), *_] = told.tags.items()
    client = server.client()
    before = _dropped(client)
    for number in range(PULLS):
        assert client.get(f"/v2/{name}/manifests/{tags[0]}", {"User-Agent": f"pull {number}"}).status == 200

    def told_of() -> int:
        return len({event["request"]["useragent"] for event in curious.taken})

    assert wait_until(lambda: told_of() + _dropped(client) - before >= PULLS, timeout=timedelta(minutes=1))
    dropped = _dropped(client) - before
    assert told_of() + dropped == PULLS
    return dropped


def _dropped(client: Client) -> int:
    lines = client.get("/metrics").body.decode().splitlines()
    counted = [line for line in lines if line.startswith("roadstead_events_pulls_dropped_total{")]
    return sum(int(float(line.rpartition(" ")[2])) for line in counted)


def _said(receiver: Receiver) -> str:
    """Return how often each manner was met."""
    counted = Counter(arrival.manner.name.lower() for arrival in receiver.arrivals)
    return ", ".join(f"{count} {name}" for name, count in counted.most_common())


def _kill(server: RoadsteadServer, what: str, choice: random.Random, receivers: Sequence[Receiver]) -> None:
    if what == "receiver":
        receiver = choice.choice(receivers)
        receiver.stop()
        time.sleep(0.5)
        receiver.start()
    elif what == "everything":
        server.kill()
        server.start()
    else:
        workers = server.workers
        victims = workers if what == "worker" else sorted(set(children(server.pid)) - set(workers))
        if victims:
            with suppress(ProcessLookupError):
                os.kill(choice.choice(victims), signal.SIGKILL)


def _missing(told: Acknowledged, events: Sequence[dict[str, Any]]) -> list[str]:
    """Return what was acknowledged and not told."""
    targets = [event["target"] for event in events]
    tags = {(target["repository"], target["tag"]) for target in targets if "tag" in target}
    blobs = {(target["repository"], target["digest"]) for target in targets if "tag" not in target}
    missing = [f"{name}:{tag}" for name, pushed in told.tags.items() for tag in pushed if (name, tag) not in tags]
    return missing + [f"{name}@{digest}" for name, digest in told.blobs if (name, digest) not in blobs]


def _order(told: Acknowledged, events: Sequence[dict[str, Any]]) -> list[str]:
    """Return the repositories whose tags were first told in another order than they were pushed in."""
    wrong = []
    for name, pushed in told.tags.items():
        seen = dict.fromkeys(
            event["target"]["tag"]
            for event in events
            if event["target"]["repository"] == name and "tag" in event["target"]
        )
        if [tag for tag in seen if tag in set(pushed)] != pushed:
            wrong.append(name)
    return wrong
