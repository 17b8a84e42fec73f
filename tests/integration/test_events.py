"""Events on their way to receivers that fail, hang, lie and restart, from a server that is killed."""

import hashlib
import hmac
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import bcrypt
import pytest

from roadstead.background import LEASE_NAME
from roadstead.oci.digest import Digest
from roadstead.testing.client import Client
from roadstead.testing.images import make_image
from roadstead.testing.processes import children
from roadstead.testing.receivers import Manner, Receiver
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import wait_until

IMAGE = make_image(layers=1, size=50)


def endpoint(receiver: Receiver, name: str = "a", **more: object) -> str:
    """Return the settings of an endpoint."""
    facts = {"name": name, "url": receiver.url, "timeout": "500ms", "backoff": "50ms", "threshold": 3, **more}
    return "[[events.endpoints]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in facts.items())


def toml(value: object) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)


def push_image(client: Client, repository: str, tag: str) -> None:
    """Push the image with its blobs: three events."""
    for data in IMAGE.blobs.values():
        client.push_blob(repository, data)
    client.push_manifest(repository, tag, IMAGE.raw, IMAGE.media_type)


def tags_of(events: list[dict[str, Any]], repository: str) -> list[str]:
    """Return the tags that were told of a repository, in order, repetitions left out."""
    told = [event["target"]["tag"] for event in events if event["target"].get("tag") and is_of(event, repository)]
    return list(dict.fromkeys(told))


def is_of(event: dict[str, Any], repository: str) -> bool:
    """Say whether an event is of this repository."""
    return bool(event["target"]["repository"] == repository)


def is_tag(event: dict[str, Any], tag: str) -> bool:
    """Say whether an event is of a push of this tag."""
    return bool(event["target"].get("tag") == tag)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that takes everything, until told otherwise."""
    with Receiver() as running:
        yield running


def roadstead(server: RoadsteadServer, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `roadstead events` beside a server."""
    command = [sys.executable, "-m", "roadstead", "events", arguments[0], str(server.directory / "roadstead.toml")]
    command += ["--data", str(server.data), *arguments[1:]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_push_is_told_at_once(receiver: Receiver, tmp_path: Path) -> None:
    """Blobs first, then the manifest; nothing twice."""
    with RoadsteadServer(tmp_path, config=endpoint(receiver)) as server:
        push_image(server.client(), "team/app", "v1")

        assert receiver.wait_for(lambda events: len(events) == 3)
        assert [event["target"]["mediaType"] for event in receiver.taken] == [
            "application/octet-stream",
            "application/octet-stream",
            IMAGE.media_type,
        ]


def test_what_is_not_taken_is_told_again(receiver: Receiver, tmp_path: Path) -> None:
    """Refused, not answered, cut off before the answer, answered too late or with nonsense: the same event with the
    same id and the same bytes, in the order of its repository, until it is taken.
    """
    fine = {Manner.TAKE, Manner.ENDLESS, Manner.TAKE_AND_CLOSE}
    nasty = {f"team/{manner.name.lower()}": manner for manner in Manner if manner not in fine}
    seen: Counter[str] = Counter()

    def behave(event: dict[str, Any]) -> Manner:
        seen[event["id"]] += 1
        return nasty[event["target"]["repository"]] if seen[event["id"]] <= 2 else Manner.TAKE

    receiver.behave = behave
    with RoadsteadServer(tmp_path, config=endpoint(receiver, timeout="300ms")) as server:
        for repository in nasty:
            push_image(server.client(), repository, "v1")
        assert receiver.wait_for(
            lambda _: list(seen.values()) == [3] * 3 * len(nasty), timeout=timedelta(seconds=60)
        ), seen

    assert len(nasty) == 6
    bodies = defaultdict(set)
    for arrival in receiver.arrivals:
        bodies[arrival.events[0]["id"]].add(arrival.body)
    assert {len(found) for found in bodies.values()} == {1}
    for repository in nasty:
        told = [event["id"] for event in receiver.taken if is_of(event, repository)]
        arrived = [arrival.events[0] for arrival in receiver.arrivals]
        assert list(dict.fromkeys(told)) == list(
            dict.fromkeys(event["id"] for event in arrived if is_of(event, repository))
        )


@pytest.mark.parametrize("manner", [Manner.ENDLESS, Manner.TAKE_AND_CLOSE])
def test_a_status_is_enough(receiver: Receiver, tmp_path: Path, manner: Manner) -> None:
    """A receiver that says 200 and goes on talking for ever, or hangs up, has taken the event."""
    receiver.behave = lambda _: manner
    with RoadsteadServer(tmp_path, config=endpoint(receiver)) as server:
        push_image(server.client(), "team/app", "v1")

        assert receiver.wait_for(lambda events: len(events) >= 3)
        server.stop()
    assert len(receiver.arrivals) == 3


def test_an_event_holds_back_its_repository_alone(receiver: Receiver, tmp_path: Path) -> None:
    """One that is refused again and again waits, what comes behind it in its repository too, and nothing else."""
    receiver.behave = lambda event: Manner.REFUSE if is_tag(event, "poison") else Manner.TAKE
    with RoadsteadServer(tmp_path, config=endpoint(receiver)) as server:
        client = server.client()
        for repository in ("team/bad", "team/worse"):
            push_image(client, repository, "poison")
            push_image(client, repository, "after")
        for number in range(5):
            push_image(client, f"team/good{number}", "v1")
        assert receiver.wait_for(lambda events: sum(is_tag(event, "v1") for event in events) == 5)
        assert tags_of(receiver.taken, "team/bad") == []

        receiver.behave = lambda _: Manner.TAKE

        for repository in ("team/bad", "team/worse"):
            assert receiver.wait_for(
                lambda events, name=repository: tags_of(events, name) == ["poison", "after"],
                timeout=timedelta(seconds=90),  # refused so often, it waits for up to a minute
            )


def test_one_after_another(receiver: Receiver, tmp_path: Path) -> None:
    """With `parallel = 1` events of all repositories come in the order in which they happened."""
    receiver.stop()
    # One that isn't taken in time has its own repository wait, and no other: here none is to be late.
    with RoadsteadServer(tmp_path, config=endpoint(receiver, parallel=1, timeout="15s")) as server:
        client = server.client()
        for number in range(12):
            push_image(client, f"team/app{number % 4}", f"v{number}")
        receiver.start()
        assert receiver.wait_for(lambda events: len(events) == 36)
    assert [event["target"].get("tag") for event in receiver.taken if "tag" in event["target"]] == [
        f"v{number}" for number in range(12)
    ]


def test_one_endpoint_does_not_wait_for_another(receiver: Receiver, tmp_path: Path) -> None:
    """One that is down gets everything when it is back, in order; the other isn't held up."""
    down = Receiver()
    config = endpoint(receiver, "up") + endpoint(down, "down")
    with RoadsteadServer(tmp_path, config=config) as server:
        client = server.client()
        for number in range(8):
            push_image(client, "team/app", f"v{number}")
        assert receiver.wait_for(lambda events: len(events) == 24)
        metrics = lambda: client.get("/metrics").body.decode()  # noqa: E731
        assert wait_until(
            lambda: 'registry_notifications_pending_total{endpoint="down"} 24.0' in metrics(),
            timeout=timedelta(seconds=10),
        )
        with down:
            assert down.wait_for(lambda events: len(events) == 24)
            assert tags_of(down.taken, "team/app") == [f"v{number}" for number in range(8)]
        told = metrics()
        assert 'registry_notifications_events_total{endpoint="up",type="Successes"} 24.0' in told
        assert 'registry_notifications_status_total{code="200 OK",endpoint="up"} 24.0' in told
        assert 'registry_notifications_events_total{endpoint="down",type="Errors"}' in told


def test_nothing_is_lost_with_the_processes(receiver: Receiver, tmp_path: Path) -> None:
    """Acknowledged, killed with all processes before a receiver was there, started again: told, in order."""
    receiver.stop()
    config = endpoint(receiver)
    server = RoadsteadServer(tmp_path, config=config).start()
    client = server.client()
    for number in range(5):
        push_image(client, "team/app", f"v{number}")
    server.kill()
    receiver.start()

    with RoadsteadServer(tmp_path, config=config):
        # The dead leader's lease has to run out first.
        assert receiver.wait_for(
            lambda events: tags_of(events, "team/app") == [f"v{number}" for number in range(5)],
            timeout=timedelta(seconds=60),
        )


def test_a_killed_background_process_takes_nothing_with_it(receiver: Receiver, tmp_path: Path) -> None:
    """It comes again with the same lease, and goes on where it was; what is told twice has the same id."""
    with RoadsteadServer(tmp_path, config=endpoint(receiver)) as server:
        client = server.client()
        assert wait_until(lambda: lease_of(server) is not None, timeout=timedelta(seconds=30))
        first = lease_of(server)
        for number in range(6):
            push_image(client, "team/app", f"v{number}")
            if number == 3:
                [background] = set(children(server.pid)) - set(server.workers)
                os.kill(background, signal.SIGKILL)

        assert receiver.wait_for(
            lambda events: tags_of(events, "team/app") == [f"v{number}" for number in range(6)],
            timeout=timedelta(seconds=60),
        )
        second = lease_of(server)
    assert first is not None
    assert second is not None
    assert (first.owner, first.token + 1) == (second.owner, second.token)
    by_id = {event["id"]: event for event in receiver.taken}
    assert len(by_id) == 18


class Held(NamedTuple):
    """Who has the lease of the background work, and how often it was given out by then."""

    owner: str
    token: int


def lease_of(server: RoadsteadServer) -> Held | None:
    """Read it from the database."""
    with closing(sqlite3.connect(f"file:{server.data}/roadstead.db?mode=ro", uri=True)) as database:
        row = database.execute("SELECT owner, token FROM leases WHERE name = ?", [LEASE_NAME]).fetchone()
    return None if row is None else Held(*row)


def test_credentials_stay_where_they_belong(receiver: Receiver, tmp_path: Path) -> None:
    """A redirect to another host isn't followed, one within the host is with the same request; nothing is logged."""
    with Receiver() as thief:
        here = receiver.url.removesuffix("/events")
        config = "[log]\nlevel = 'debug'\n" + "".join(
            endpoint(
                receiver,
                name,
                url=f"{here.replace('//', '//me:hunter2@')}/redirect/{status}{query}",
                headers={"X-Token": ["s3cr3t"]},
            )
            for name, status, query in (
                ("away", 307, f"?to={thief.url}"),
                ("as-get", 302, f"?to={here}/events"),
                ("within", 308, "?to=/events"),
                ("nowhere", 304, ""),
            )
        )
        with RoadsteadServer(tmp_path, config=config) as server:
            server.client().push_blob("team/app", b"x")
            assert receiver.wait_for(lambda events: len(events) == 1)
            states = lambda: {  # noqa: E731
                line["endpoint"]: (line["state"], line["error"] or "")
                for line in map(json.loads, roadstead(server, "list", "--json").stdout.splitlines())
            }
            assert wait_until(
                lambda: (
                    {name for name, (state, _) in states().items() if state == "delivered"} == {"within", "nowhere"}
                ),
                timeout=timedelta(seconds=15),
            )
            found = states()
            log = server.log
        shown = subprocess.run(
            [sys.executable, "-m", "roadstead", "config", "show", str(tmp_path / "roadstead.toml")],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert thief.arrivals == []
    assert "another host" in found["away"][1]
    assert "GET" in found["as-get"][1]
    [within] = [arrival for arrival in receiver.arrivals if arrival.path == "/events"]
    assert (within.header("X-Token"), within.header("Authorization")) == ("s3cr3t", "Basic bWU6aHVudGVyMg==")
    for said in (log, shown, json.dumps(found)):
        assert "s3cr3t" not in said
        assert "hunter2" not in said


def test_signed_cloud_events(receiver: Receiver, tmp_path: Path) -> None:
    """The signature is that of the exact body under the key; the form is that of CloudEvents 1.0."""
    config = endpoint(receiver, format="cloudevents", signing_key="${env:KEY}")
    with RoadsteadServer(tmp_path, config=config, environment={"KEY": "k3y"}) as server:
        push_image(server.client(), "team/app", "v1")
        assert receiver.wait_for(lambda events: len(events) == 3)

    arrival = receiver.arrivals[-1]
    mac = hmac.new(b"k3y", arrival.body, hashlib.sha256).hexdigest()
    assert arrival.header("X-Roadstead-Signature-256") == f"sha256={mac}"
    assert arrival.header("Content-Type") == "application/cloudevents+json"
    event = json.loads(arrival.body)
    assert {name: event[name] for name in ("specversion", "type", "subject", "datacontenttype")} == {
        "specversion": "1.0",
        "type": "dev.roadstead.manifest.push",
        "subject": "team/app:v1",
        "datacontenttype": "application/json",
    }
    assert event["id"] == event["data"]["id"]
    assert event["time"] == event["data"]["timestamp"]
    assert event["source"].startswith("//")


def test_what_is_given_up_is_shown_and_sent_again(receiver: Receiver, tmp_path: Path) -> None:
    """After as many attempts as settings say; the next of its repository goes on, and `replay` brings it back."""
    receiver.behave = lambda event: Manner.REFUSE if is_tag(event, "poison") else Manner.TAKE
    with RoadsteadServer(tmp_path, config=endpoint(receiver, max_attempts=3)) as server:
        client = server.client()
        push_image(client, "team/app", "poison")
        push_image(client, "team/app", "after")
        assert receiver.wait_for(lambda events: any(is_tag(event, "after") for event in events))
        listed = roadstead(server, "list", "--state", "dead", "--json")
        [dead] = [json.loads(line) for line in listed.stdout.splitlines()]
        assert (dead["state"], dead["attempts"], dead["event"]["target"]["tag"]) == ("dead", 3, "poison")
        assert "500" in dead["error"]
        assert "poison" in roadstead(server, "list").stdout
        assert 'roadstead_events_given_up_total{endpoint="a"} 1.0' in client.get("/metrics").body.decode()

        receiver.behave = lambda _: Manner.TAKE
        replayed = roadstead(server, "replay", "--state", "dead", "--json")

        assert json.loads(replayed.stdout) == {"replayed": 1}
        assert receiver.wait_for(lambda events: events[-1]["id"] == dead["id"])


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("replay",), 1, "say which events"),
        (("replay", "--id", "nothing"), 1, "has the id nothing"),
        (("replay", "--state", "pending"), 2, "is sent anyway"),
        (("replay", "--endpoint", "b", "--state", "dead"), 1, "The settings have a."),
        (("list", "--endpoint", "b"), 1, "no endpoint called 'b'"),
        (("list",), 0, "no events"),
    ],
)
def test_wrong_words(arguments: tuple[str, ...], status: int, said: str, quiet_server: RoadsteadServer) -> None:
    """Each is told what to try."""
    done = roadstead(quiet_server, *arguments)

    assert done.returncode == status
    assert said in " ".join((done.stdout + done.stderr).split())
    assert "sent again" not in done.stdout


@pytest.fixture(scope="module")
def quiet_server(tmp_path_factory: pytest.TempPathFactory) -> RoadsteadServer:
    """What is left of a server that nobody asked for anything."""
    receiver = Receiver()
    with RoadsteadServer(tmp_path_factory.mktemp("quiet"), config=endpoint(receiver)) as server:
        pass
    return server


def test_pulls_only_for_those_who_want_them(receiver: Receiver, tmp_path: Path) -> None:
    """An endpoint of ours hears of no pull by itself; if it wants pulls, of GET, and of HEAD if it says so."""
    with Receiver() as curious, Receiver() as nosy:
        config = endpoint(receiver, "plain") + endpoint(curious, "curious", actions=["pull"])
        config += endpoint(nosy, "nosy", actions=["pull"], heads=True)
        with RoadsteadServer(tmp_path, config=config) as server:
            client = server.client()
            push_image(client, "team/app", "v1")
            client.head("/v2/team/app/manifests/v1")
            client.get("/v2/team/app/manifests/v1")
            client.get(f"/v2/team/app/blobs/{IMAGE.config_digest}")
            client.get(f"/v2/team/app/blobs/{IMAGE.digest}")  # the manifest
            assert nosy.wait_for(lambda events: len(events) == 4)
            assert curious.wait_for(lambda events: len(events) == 3)
        assert [event["request"]["method"] for event in nosy.taken] == ["HEAD", "GET", "GET", "GET"]
        assert [event["request"]["method"] for event in curious.taken] == ["GET", "GET", "GET"]
        digests = [str(IMAGE.digest), str(IMAGE.config_digest), str(IMAGE.digest)]
        assert [event["target"]["digest"] for event in curious.taken] == digests
    assert {event["action"] for event in receiver.taken} == {"push"}


def test_on_postgresql(receiver: Receiver, tmp_path: Path, postgres_url: str) -> None:
    """The same, woken by notifications, from two servers of which one delivers: each event once, each repository in
    order.
    """
    config = f'[storage]\npath = "{tmp_path}/data"\n[database]\nurl = "{postgres_url}"\n{endpoint(receiver)}'
    with RoadsteadServer(tmp_path / "a", config=config) as a, RoadsteadServer(tmp_path / "b", config=config) as b:

        def push(server: RoadsteadServer, repository: str) -> None:
            with closing(Client(server.host)) as client:
                for number in range(5):
                    push_image(client, repository, f"v{number}")

        threads = [
            threading.Thread(target=push, args=(server, f"team/{name}{number}"))
            for name, server in (("a", a), ("b", b))
            for number in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert receiver.wait_for(lambda events: len(events) == 60)
    for repository in ("team/a0", "team/a1", "team/b0", "team/b1"):
        assert tags_of(receiver.taken, repository) == [f"v{number}" for number in range(5)]
    assert len({event["id"] for event in receiver.taken}) == 60


def test_a_conflict_is_not_told(receiver: Receiver, tmp_path: Path) -> None:
    """What was answered with an error didn't happen."""
    with RoadsteadServer(tmp_path, config=endpoint(receiver)) as server:
        client = server.client()
        refused = client.put("/v2/team/app/manifests/v1", IMAGE.raw, {"Content-Type": IMAGE.media_type})
        missing = client.delete(f"/v2/team/app/blobs/{Digest.of(b'nothing')}")
        client.push_blob("team/app", b"x")

        assert receiver.wait_for(lambda events: len(events) == 1)
        assert (refused.code, missing.code) == ("MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN")
        assert receiver.taken[0]["target"]["digest"] == str(Digest.of(b"x"))


def test_the_actor_is_who_signed_in(receiver: Receiver, tmp_path: Path) -> None:
    """By the name that was signed in with; who is refused makes no event."""
    passwords = tmp_path / "htpasswd"
    passwords.write_text(f"ana:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    config = f'[auth]\nhtpasswd = "{passwords}"\n{endpoint(receiver)}'
    with RoadsteadServer(tmp_path, config=config) as server:
        client = server.client()
        path = f"/v2/team/app/blobs/uploads/?digest={Digest.of(b'x')}"
        refused = client.post(path, b"x")
        pushed = client.post(path, b"x", {"Authorization": f"Basic {b64encode(b'ana:secret').decode()}"})

        assert (refused.status, pushed.status) == (401, 201)
        assert receiver.wait_for(lambda events: len(events) == 1)
    assert receiver.taken[0]["actor"] == {"name": "ana"}
