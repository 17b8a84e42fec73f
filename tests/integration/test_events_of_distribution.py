"""Our notifications beside those of distribution itself, for the same requests, field by field."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from roadstead.oci.digest import Digest
from roadstead.testing.client import Client, with_query
from roadstead.testing.images import TestImage, TestIndex, make_image, make_index
from roadstead.testing.receivers import Arrival, Receiver
from roadstead.testing.registry_peer import open_registry_peer
from roadstead.testing.server import RoadsteadServer

IMAGE = make_image(layers=2, size=200)
DOCKER_IMAGE = make_image(layers=1, size=100, docker=True, seed="docker")
INDEX = make_index([IMAGE, make_image(platform="linux/arm64/v8", size=100)])
AGENT = {"User-Agent": "docker/27.1", "X-Forwarded-For": "203.0.113.9, 10.0.0.1"}

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")

Steps = Sequence[tuple[str, int, Sequence[Arrival]]]


def notifications(receiver: Receiver, **endpoint: object) -> dict[str, object]:
    """Return distribution's section."""
    return {
        "events": {"includereferences": True},
        "endpoints": [
            {
                "name": "listener",
                "url": receiver.url,
                "headers": {"Authorization": ["Basic dTpw"], "X-Several": ["a", "b"]},
                "timeout": "2s",
                "threshold": 5,
                "backoff": "1s",
                **endpoint,
            }
        ],
    }


class Driven:
    """One registry, and what it tells of each request."""

    def __init__(self, host: str, receiver: Receiver) -> None:
        self.client = Client(host)
        self.steps: list[tuple[str, int, Sequence[Arrival]]] = []
        self._receiver = receiver
        self._host = host

    def ask(self, told: int, method: str, path: str, body: bytes | None = None, **headers: str) -> None:
        """Make a request that is told so many times, and keep what was told."""
        before = len(self._receiver.arrivals)
        answer = self.client.request(method, path, body, {**AGENT, **headers})
        assert self._receiver.wait_for(lambda _: len(self._receiver.arrivals) >= before + told), (method, path, told)
        self.steps.append((f"{method} {path}", answer.status, self._receiver.arrivals[before:]))
        self.location = answer.headers.get("location", "").replace(f"http://{self._host}", "")

    def push_blob(self, name: str, data: bytes, *, chunked: bool = False) -> None:
        """Push a blob, in one piece or with a PATCH before."""
        digest = Digest.of(data)
        answer = self.client.post(f"/v2/{name}/blobs/uploads/", headers=AGENT)
        location = answer.headers["location"].replace(f"http://{self._host}", "")
        if chunked:
            answer = self.client.patch(location, data, {**AGENT, "Content-Type": "application/octet-stream"})
            location = answer.headers["location"].replace(f"http://{self._host}", "")
        self.ask(1, "PUT", with_query(location, f"digest={digest}"), b"" if chunked else data)

    def push(self, name: str, reference: str, image: TestImage | TestIndex) -> None:
        """Push a manifest whose parts are there."""
        self.ask(1, "PUT", f"/v2/{name}/manifests/{reference}", image.raw, **{"Content-Type": image.media_type})


def drive(registry: Driven) -> Steps:
    """Do everything that is told of, and what isn't."""
    layer = next(digest for digest in IMAGE.blobs if digest != IMAGE.config_digest)
    accept = {"Accept": IMAGE.media_type}
    for image in (IMAGE, DOCKER_IMAGE, *(child for child in INDEX.children if isinstance(child, TestImage))):
        for data in image.blobs.values():
            registry.push_blob("team/app", data)
    registry.push_blob("team/app", IMAGE.blobs[layer], chunked=True)
    registry.push("team/app", "v1", IMAGE)
    registry.push("team/app", "v1", IMAGE)
    registry.push("team/app", str(IMAGE.digest), IMAGE)
    registry.push("team/app", "docker", DOCKER_IMAGE)
    for child in INDEX.children:
        registry.push("team/app", str(child.digest), child)
    registry.push("team/app", "many", INDEX)
    for method in ("GET", "HEAD"):
        registry.ask(1, method, "/v2/team/app/manifests/v1", **accept)
        registry.ask(1, method, f"/v2/team/app/manifests/{IMAGE.digest}", **accept)
        registry.ask(1, method, f"/v2/team/app/blobs/{layer}")
    registry.ask(1, "GET", f"/v2/team/app/blobs/{layer}", **{"If-None-Match": f'"{layer}"'})
    registry.ask(1, "GET", f"/v2/team/app/blobs/{layer}", Range="bytes=1-5")
    registry.ask(0, "GET", "/v2/team/app/manifests/v1", **accept, **{"If-None-Match": f'"{IMAGE.digest}"'})
    registry.ask(0, "GET", "/v2/team/app/manifests/missing", **accept)
    registry.ask(0, "GET", f"/v2/team/app/blobs/sha256:{'0' * 64}")
    registry.ask(0, "GET", "/v2/team/app/tags/list")
    registry.ask(1, "POST", f"/v2/team/other/blobs/uploads/?mount={layer}&from=team/app")
    registry.ask(1, "POST", f"/v2/team/other/blobs/uploads/?mount={layer}&from=team/app")
    registry.ask(0, "POST", f"/v2/team/other/blobs/uploads/?mount=sha256:{'1' * 64}&from=team/app")
    registry.ask(1, "DELETE", f"/v2/team/other/blobs/{layer}")
    registry.ask(2, "DELETE", f"/v2/team/app/manifests/{IMAGE.digest}")
    registry.ask(1, "GET", "/v2/team/app/manifests/docker", Accept=DOCKER_IMAGE.media_type)  # nothing came behind it
    return registry.steps


@pytest.fixture(scope="module")
def distribution() -> Iterator[Steps]:
    """What distribution 2.8 tells."""
    with Receiver() as receiver, open_registry_peer(more={"notifications": notifications(receiver)}) as peer:
        driven = Driven(peer.host, receiver)
        with closing(driven.client):
            yield drive(driven)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steps]:
    """What we tell, configured by the same section of distribution's file."""
    directory = tmp_path_factory.mktemp("roadstead")
    with Receiver() as receiver:
        config = {
            "version": "0.1",
            "log": {"level": "debug"},
            "storage": {"filesystem": {"rootdirectory": str(directory / "root")}, "delete": {"enabled": True}},
            "notifications": notifications(receiver),
        }
        with RoadsteadServer(directory, config=json.dumps(config), file="config.yml") as server:
            driven = Driven(server.host, receiver)
            with closing(driven.client):
                yield drive(driven)


def normalised(arrival: Arrival) -> dict[str, Any]:
    """Return an envelope with what differs from run to run replaced, after a look that it has its form."""
    [event] = arrival.events
    for path in (("id",), ("request", "id"), ("source", "instanceID")):
        holder: Any = event
        for name in path[:-1]:
            holder = holder[name]
        assert UUID.fullmatch(holder[path[-1]]), path
        holder[path[-1]] = "uuid"
    assert MOMENT.fullmatch(event["timestamp"])
    event["timestamp"] = "moment"
    text = json.dumps(event)
    host = event["request"]["host"]
    assert event["source"]["addr"].endswith(host.rpartition(":")[2])
    return dict(json.loads(text.replace(host, "HOST").replace(event["source"]["addr"], "MACHINE")))


def test_the_same_requests_are_told(distribution: Steps, ours: Steps) -> None:
    """Each as often, and answered alike."""
    assert [(step.partition(" ")[0], status, len(told)) for step, status, told in ours] == [
        (step.partition(" ")[0], status, len(told)) for step, status, told in distribution
    ]


def test_the_envelopes_are_the_same(distribution: Steps, ours: Steps) -> None:
    """Member by member and in the same order, but for ids, moments and ports."""
    for (step, _, theirs), (_, _, told) in zip(distribution, ours, strict=True):
        assert [json.dumps(normalised(each)) for each in told] == [json.dumps(normalised(each)) for each in theirs], (
            step
        )


def test_the_requests_are_the_same(distribution: Steps, ours: Steps) -> None:
    """One event each, indented alike, of the same type, with the same headers configured."""
    theirs, told = distribution[0][2][0], ours[0][2][0]
    names = ("Content-Type", "Authorization")

    assert [told.header(name) for name in names] == [theirs.header(name) for name in names]
    assert [value for name, value in told.headers if name == "X-Several"] == ["a", "b"]
    assert [line.partition(b":")[0] for line in told.body.splitlines()[:8]] == [
        line.partition(b":")[0] for line in theirs.body.splitlines()[:8]
    ]
    assert [len(each.events) for _, _, arrivals in ours for each in arrivals] == [
        len(each.events) for _, _, arrivals in distribution for each in arrivals
    ]


@pytest.mark.parametrize(
    "rules",
    [
        {"ignoredmediatypes": [IMAGE.media_type]},
        {"ignore": {"mediatypes": ["application/octet-stream"], "actions": ["pull", "delete"]}},
    ],
)
def test_the_same_is_ignored(rules: Mapping[str, object], tmp_path: Path) -> None:
    """By media type and by action."""
    told: list[list[tuple[str, str]]] = []
    with Receiver() as theirs, open_registry_peer(more={"notifications": notifications(theirs, **rules)}) as peer:
        told.append(ignoring(peer.host, theirs, pulls="ignore" not in rules))
    with Receiver() as receiver:
        config = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(tmp_path / "root")}, "delete": {"enabled": True}},
            "notifications": notifications(receiver, **rules),
        }
        with RoadsteadServer(tmp_path, config=json.dumps(config), file="config.yml") as server:
            told.append(ignoring(server.host, receiver, pulls="ignore" not in rules))

    assert told[0] == told[1] != []


def ignoring(host: str, receiver: Receiver, *, pulls: bool) -> list[tuple[str, str]]:
    """Push, pull and delete, and return what was told when the last push was."""
    with closing(Client(host)) as client:
        for image in (IMAGE, DOCKER_IMAGE):
            for data in image.blobs.values():
                answer = client.post("/v2/a/blobs/uploads/")
                client.put(
                    with_query(answer.headers["location"].replace(f"http://{host}", ""), f"digest={Digest.of(data)}"),
                    data,
                )
            client.push_manifest("a", "x", image.raw, image.media_type)
        client.get("/v2/a/manifests/x", {"Accept": DOCKER_IMAGE.media_type})
        client.delete(f"/v2/a/manifests/{IMAGE.digest}")
        client.push_manifest("a", "last", DOCKER_IMAGE.raw, DOCKER_IMAGE.media_type)
        wanted = {"push", "pull"} if pulls else {"push"}  # ours tells of pulls within the second
        assert receiver.wait_for(
            lambda events: (
                any(event["target"].get("tag") == "last" for event in events)
                and wanted <= {event["action"] for event in events}
            )
        )
    return sorted((event["action"], event["target"].get("mediaType", "")) for event in receiver.taken)
