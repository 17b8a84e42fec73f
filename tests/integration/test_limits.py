"""Limits at the real server, with two workers: what is beyond is 429, and the workers count together."""

import http.client
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import bcrypt
import pytest

from roadstead.auth.limiter import FAILURES
from roadstead.oci.digest import Digest
from roadstead.testing.client import Answer, Client
from roadstead.testing.images import TestImage, make_image
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import wait_until

OPEN = """
[auth]
htpasswd = "users"

[[auth.policies]]
subjects = ["everyone"]
repositories = ["**"]
actions = ["pull", "push"]
"""


def basic(name: str, password: str) -> Mapping[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"}


ANA, BOB = basic("ana", "of ana"), basic("bob", "of bob")


def write_users(directory: Path) -> None:
    hashes = {name: bcrypt.hashpw(f"of {name}".encode(), bcrypt.gensalt(4)).decode() for name in ("ana", "bob")}
    (directory / "users").write_text("".join(f"{name}:{hashed}\n" for name, hashed in hashes.items()))


def of_each_worker(server: RoadsteadServer) -> list[Client]:
    return [server.client_of(worker) for worker in server.workers]


def push_image(client: Client, name: str) -> TestImage:
    image = make_image()
    for blob in image.blobs.values():
        client.push_blob(name, blob)
    client.push_manifest(name, "1", image.raw, image.media_type)
    return image


def is_too_much(answer: Answer) -> bool:
    return (answer.status, answer.code) == (429, "TOOMANYREQUESTS") and int(answer.headers["retry-after"]) >= 1


def test_requests_of_one_address(tmp_path: Path) -> None:
    """The workers share one bucket; a proxy that is trusted says whose it is, and health is never counted."""
    config = '[server]\ntrusted_proxies = ["127.0.0.1"]\n[limits]\nclient_rate = 1\nclient_burst = 20\n'
    with RoadsteadServer(tmp_path, config=config) as server:
        clients = of_each_worker(server)
        began = time.monotonic()
        answers = [clients[number % 2].get("/v2/", {"X-Forwarded-For": "192.0.2.1"}) for number in range(60)]
        took_s = time.monotonic() - began
        other = clients[0].get("/v2/", {"X-Forwarded-For": "192.0.2.2"})
        forged = clients[0].get("/v2/", {"X-Forwarded-For": "192.0.2.3, 192.0.2.1"})
        health = {clients[0].get("/healthz", {"X-Forwarded-For": "192.0.2.1"}).status for _ in range(30)}
        interface = clients[0].get("/api/v1/repositories", {"X-Forwarded-For": "192.0.2.1"})

    through = [answer for answer in answers if answer.status == 200]
    assert 20 <= len(through) <= 20 + took_s + 1
    assert all(is_too_much(answer) for answer in answers if answer.status != 200)
    assert (other.status, forged.status, health) == (200, 429, {200})
    assert interface.status == 429


def test_requests_of_one_user(tmp_path: Path) -> None:
    """Wherever they come from; another user is not meant, and neither is who hasn't signed in."""
    write_users(tmp_path)
    with RoadsteadServer(tmp_path, config=f"{OPEN}\n[limits]\nuser_rate = 1\nuser_burst = 10\n") as server:
        clients = of_each_worker(server)
        answers = [clients[number % 2].get("/v2/", ANA) for number in range(40)]
        others = [clients[number % 2].get("/v2/").status for number in range(40)]

        assert 10 <= sum(answer.status == 200 for answer in answers) < 40
        assert any(is_too_much(answer) for answer in answers)
        assert clients[0].get("/v2/", BOB).status == 200
        assert set(others) == {401}  # sent for a token, not away


def test_pulls_of_a_window(tmp_path: Path) -> None:
    """As Docker Hub tells it: GET counts, HEAD and blobs don't, answers say what is left, then 429."""
    write_users(tmp_path)
    with RoadsteadServer(tmp_path, config=f"{OPEN}\n[limits]\nanonymous_pulls = 3\nuser_pulls = 5\n") as server:
        clients, path = of_each_worker(server), "/v2/team/app/manifests/1"
        push_image(clients[0], "team/app")
        heads = [clients[number % 2].head(path) for number in range(4)]
        gets = [clients[number % 2].get(path) for number in range(5)]
        of_ana = [clients[number % 2].get(path, ANA) for number in range(6)]

    assert {head.headers["ratelimit-remaining"] for head in heads} == {"3;w=21600"}
    assert [get.status for get in gets] == [200, 200, 200, 429, 429]
    assert [get.headers["ratelimit-remaining"] for get in gets] == [f"{left};w=21600" for left in (2, 1, 0, 0, 0)]
    assert {get.headers["ratelimit-limit"] for get in gets} == {"3;w=21600"}
    assert gets[0].headers["docker-ratelimit-source"] == "127.0.0.1"
    assert is_too_much(gets[-1])
    assert 21000 < int(gets[-1].headers["retry-after"]) <= 21600
    assert [get.status for get in of_ana] == [200] * 5 + [429]


def test_a_manifest_asked_for_as_a_blob_is_a_pull(tmp_path: Path) -> None:
    """Else whoever knows its digest would have it without end; blobs go on, of which a pull may still need some."""
    with RoadsteadServer(tmp_path, config="[limits]\nanonymous_pulls = 2\n") as server:
        client = server.client()
        image = push_image(client, "team/app")
        manifest, layer = (f"/v2/team/app/blobs/{digest}" for digest in (image.digest, next(iter(image.blobs))))
        answers = [client.get(manifest) for _ in range(3)]

        assert [answer.status for answer in answers] == [200, 200, 429]
        assert is_too_much(answers[-1])
        assert client.get("/v2/team/app/manifests/1").status == 429
        assert client.head(manifest).status == client.get(layer).status == 200


def test_pulls_over_replicas(tmp_path: Path, postgres_url: str) -> None:
    """Two servers on one database count together."""
    config = f'[database]\nurl = "{postgres_url}"\n[limits]\nanonymous_pulls = 4\n'
    with ExitStack() as stack:
        servers = [
            stack.enter_context(RoadsteadServer(tmp_path / name, config=config, workers=1)) for name in ("a", "b")
        ]
        push_image(servers[0].client(), "team/app")
        clients = [server.client() for server in servers]
        statuses = [clients[number % 2].get("/v2/team/app/manifests/1").status for number in range(6)]

    assert statuses == [200] * 4 + [429] * 2


def begin_upload(server: RoadsteadServer, client: Client, headers: Mapping[str, str]) -> http.client.HTTPConnection:
    """Begin to send a blob, and stop in the middle of it: from then on it has its place.

    The server says that it wants the body (RFC 9110 §10.1.1) when it begins to read, and it reads nothing before it has
    looked at the limits.
    """
    location = client.post("/v2/team/app/blobs/uploads/", None, headers).headers["location"]
    connection = http.client.HTTPConnection(server.host, timeout=30)
    connection.putrequest("PATCH", location)
    for name, value in {**headers, "Content-Length": "2000000", "Expect": "100-continue"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.send(b"x" * 1_500_000)
    return connection


@pytest.mark.parametrize(
    ("limit", "who", "other", "others_too"),
    [("client_uploads", ANA, BOB, True), ("user_uploads", ANA, BOB, False)],
)
def test_uploads_at_once(
    tmp_path: Path, limit: str, who: Mapping[str, str], other: Mapping[str, str], *, others_too: bool
) -> None:
    """Over both workers; as soon as one is over there is a place again, also when its client just went away."""
    write_users(tmp_path)
    data = b"another blob"
    path = f"/v2/team/app/blobs/uploads/?digest={Digest.of(data)}"
    with RoadsteadServer(tmp_path, config=f"{OPEN}\n[limits]\n{limit} = 2\n") as server:
        clients = of_each_worker(server)
        under_way = [begin_upload(server, clients[number % 2], who) for number in range(2)]
        refused = clients[0].post(path, data, who)
        refused_there = clients[1].post(path, data, who)
        of_other = clients[0].post(path, data, other)
        under_way[0].close()
        taken = until(lambda: clients[1].post(path, data, who), 201, server)
        under_way[1].close()

    assert is_too_much(refused)
    assert is_too_much(refused_there)
    assert of_other.status == (429 if others_too else 201)
    assert taken.status == 201


def until(ask: Callable[[], Answer], status: int, server: RoadsteadServer) -> Answer:
    """Ask until that status comes, for what another connection does reaches its worker in its own time."""
    answers: list[Answer] = []

    def has_come() -> bool:
        answers.append(ask())
        return answers[-1].status == status

    assert wait_until(has_come, timeout=timedelta(seconds=30)), (answers[-1], server.log)
    return answers[-1]


def test_large_blobs(tmp_path: Path) -> None:
    """413 by the announced size, and where a chunked body or a further chunk goes beyond; the limit itself is fine."""
    large = b"x" * 100_001
    digest = Digest.of(large)
    with RoadsteadServer(tmp_path, config='[limits]\nmax_blob_bytes = "100KB"\n') as server, server.client() as client:

        def session() -> str:
            return client.post("/v2/team/app/blobs/uploads/").headers["location"]

        begun = session()
        assert client.patch(begun, large[:60_000]).status == 202
        refused = [
            client.post(f"/v2/team/app/blobs/uploads/?digest={digest}", large),
            client.patch(session(), large),
            client.patch(session(), iter([large[:60_000], large[60_000:]])),
            client.patch(begun, large[60_000:]),
            client.put(f"{begun}?digest={digest}", large[60_000:]),
        ]
        client.push_blob("team/app", large[:-1])

        assert [(answer.status, answer.code) for answer in refused] == [(413, "SIZE_INVALID")] * 5
        assert client.head(f"/v2/team/app/blobs/{digest}").status == 404


def test_short_chunks_of_a_large_blob(tmp_path: Path) -> None:
    """Those that the session's row keeps count as others do."""
    data = b"x" * 20_000
    with RoadsteadServer(tmp_path, config='[limits]\nmax_blob_bytes = "30KB"\n') as server, server.client() as client:
        location = client.post("/v2/team/app/blobs/uploads/").headers["location"]
        statuses = [client.patch(location, data).status for _ in range(2)]
        whole = client.put(f"{location}?digest={Digest.of(data + data)}", data)

    assert [*statuses, whole.status, whole.code] == [202, 413, 413, "SIZE_INVALID"]


def test_a_silent_client_is_taken_to_be_gone(tmp_path: Path) -> None:
    """After as long as settings say, and what it held is let go."""
    with RoadsteadServer(tmp_path, config='[limits]\nbody_idle = "1s"\n') as server, server.client() as client:
        began = time.monotonic()
        connection = begin_upload(server, client, {})
        answer = connection.getresponse()
        took_s = time.monotonic() - began
        connection.close()

    assert answer.status == 400
    assert 1 <= took_s < 25


def test_guessing_is_slowed_down_by_all_workers(tmp_path: Path) -> None:
    """The workers count wrong passwords together."""
    write_users(tmp_path)
    with RoadsteadServer(tmp_path, config=OPEN) as server:
        clients = of_each_worker(server)
        statuses = [clients[number % 2].get("/v2/", basic("ana", f"guess {number}")).status for number in range(14)]

    # While these are made, one or another is forgiven.
    assert statuses[:FAILURES] == [401] * FAILURES
    assert statuses[-1] == 429


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("client_rate = 0", "limits.client_rate: expected 1 or more"),
        ("user_burst = 5", "limits.user_burst: goes with limits.user_rate"),
        ("anonymous_pulls = 0", "limits.anonymous_pulls: expected 1 or more"),
        ('pull_window = "0s"', "limits.pull_window: expected 1s or more"),
        ('body_idle = "0s"', "limits.body_idle: expected more than 0s"),
        ("client_rates = 1", "did you mean"),
    ],
)
def test_what_makes_no_sense_is_told(tmp_path: Path, line: str, said: str) -> None:
    """By `config check`, with the key."""
    (tmp_path / "roadstead.toml").write_text(f"[limits]\n{line}\n")
    command = [sys.executable, "-m", "roadstead", "config", "check", str(tmp_path / "roadstead.toml")]

    checked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert checked.returncode == 1
    assert said in checked.stdout
