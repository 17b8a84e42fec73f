"""A key that is revoked while everybody uses it: no worker of no replica lets it in once the revocation is done."""

import json
import os
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from roadstead.testing.client import Client
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import wait_until

CONFIG = """
[auth]
accounts = true
master_key = "the same one for both of the replicas"

[database]
url = "URL"
"""
SCOPE = "scope=repository:team/app:pull"
ROUNDS = 2  # one at each replica
TRIED_FOR_S = 0.3


@pytest.fixture
def replicas(tmp_path: Path, postgres_url: str) -> Iterator[list[RoadsteadServer]]:
    """Two servers of two workers each on one database."""
    config = CONFIG.replace("URL", postgres_url)
    with ExitStack() as stack:
        yield [stack.enter_context(RoadsteadServer(tmp_path / name, config=config)) for name in ("a", "b")]


def roadstead(server: RoadsteadServer, *words: str, given: str = "") -> str:
    command = [sys.executable, "-m", "roadstead", *words, str(server.directory / "roadstead.toml"), "--data",
               str(server.data)]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, input=given, timeout=60)
    return done.stdout


def basic(name: str, secret: str) -> Mapping[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{name}:{secret}'.encode()).decode()}"}


class Heard(NamedTuple):
    """An answer: when it was asked for and when it came, and its status."""

    asked: float
    came: float
    status: int


class Users:
    """Clients that ask without a pause, each on a connection of its own with headers of its own, and take notes."""

    def __init__(self, clients: Sequence[tuple[Client, Mapping[str, str]]]) -> None:
        self._over = threading.Event()
        self.heard: list[Heard] = []
        self._threads = [threading.Thread(target=self._ask, args=each) for each in clients]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self, client: Client, headers: Mapping[str, str]) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            status = client.get("/v2/team/app/tags/list", headers).status
            self.heard.append(Heard(began, time.monotonic(), status))

    def wait_for(self, condition: "Callable[[list[Heard]], bool]") -> None:
        """Wait until what was heard fulfils a condition."""
        assert wait_until(lambda: condition(list(self.heard)), timeout=timedelta(seconds=30))


def test_a_revoked_key_is_refused_everywhere_at_once(replicas: list[RoadsteadServer]) -> None:
    """Whoever asks after the revocation is done is refused, whichever worker it is; before it, nobody does.

    So it is with the key itself, and with a token that was got by it.
    """
    roadstead(replicas[0], "user", "add", "ci", "--robot")
    clients = [server.client_of(worker) for server in replicas for worker in server.workers]
    assert len(clients) == 4
    asked = 0
    for number in range(ROUNDS):
        key = json.loads(roadstead(replicas[0], "key", "create", "ci", "--json"))
        with_key = basic("ci", key["key"])
        token = clients[0].get(f"/auth/token?{SCOPE}", with_key).json()["token"]
        ways = [with_key, {"Authorization": f"Bearer {token}"}]
        with Users([(client, ways[(at + number) % 2]) for at, client in enumerate(clients)]) as users:
            users.wait_for(lambda heard: len(heard) > 100)
            begun = time.monotonic()
            roadstead(replicas[number % 2], "key", "revoke", key["id"])
            done = time.monotonic()
            users.wait_for(lambda heard, done=done: heard[-1].asked > done + TRIED_FOR_S)  # type: ignore[misc]
        late = {each.status for each in users.heard if each.asked > done}
        early = {each.status for each in users.heard if each.came < begun}
        asked += len(users.heard)
        # Who goes on with what is no longer good is soon taken for somebody who guesses.
        assert late <= {401, 429}
        assert early == {404}  # let in: there is no such repository
    assert asked > 100 * ROUNDS
