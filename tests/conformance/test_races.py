"""What happens at the same time happens as if one after the other (registry spec §8.2)."""

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import pytest
from tests.conformance.documents import CONFIG, manifest, push

from roadstead.oci.digest import Digest
from roadstead.oci.mediatypes import OCI_MANIFEST
from roadstead.testing.client import Client, with_query
from roadstead.testing.server import RoadsteadServer

CLIENTS = 6
ROUNDS = 10
BLOB = random.Random(13).randbytes(400_000)
DIGEST = Digest.of(BLOB)
RAWS = [manifest(annotations={"writer": str(number)}) for number in range(CLIENTS)]

_T = TypeVar("_T")


class Crowd:
    """Clients that do something at the same time."""

    def __init__(self, host: str) -> None:
        self._clients = [Client(host) for _ in range(CLIENTS)]
        self._pool = ThreadPoolExecutor(CLIENTS)

    def close(self) -> None:
        """Send them home."""
        self._pool.shutdown()
        for client in self._clients:
            client.close()

    def do(self, works: Sequence[Callable[[Client], _T]]) -> list[_T]:
        """Let each client do one of these works, all starting together; return what they gave, in order."""
        start = Barrier(len(works))

        def one(client: Client, work: Callable[[Client], _T]) -> _T:
            start.wait()
            return work(client)

        return list(self._pool.map(one, self._clients, works))


@pytest.fixture
def crowd(server: RoadsteadServer) -> Iterator[Crowd]:
    """Several clients with a connection each."""
    several = Crowd(server.host)
    yield several
    several.close()


def _put(name: str, reference: object, raw: bytes) -> Callable[[Client], int]:
    def work(client: Client) -> int:
        return client.put(f"/v2/{name}/manifests/{reference}", raw, {"Content-Type": OCI_MANIFEST}).status

    return work


def test_the_same_blob_is_pushed_by_all(crowd: Crowd, client: Client, name: str) -> None:
    """All get 201, in one request and by session, and there is one blob."""

    def post(own: Client) -> int:
        return own.post(f"/v2/{name}/blobs/uploads/?digest={DIGEST}", BLOB).status

    def session(own: Client) -> int:
        location = own.post(f"/v2/{name}/blobs/uploads/").headers["location"]
        own.patch(location, BLOB)
        return own.put(with_query(location, f"digest={DIGEST}")).status

    for _ in range(ROUNDS):
        assert crowd.do([post, session] * (CLIENTS // 2)) == [201] * CLIENTS
        assert client.get(f"/v2/{name}/blobs/{DIGEST}").body == BLOB
        client.delete(f"/v2/{name}/blobs/{DIGEST}")


def test_one_tag_is_pushed_by_all(crowd: Crowd, client: Client, name: str) -> None:
    """All get 201, the tag is at one of theirs, and none of the manifests is lost."""
    client.push_blob(name, CONFIG)

    for number in range(ROUNDS):
        assert crowd.do([_put(name, f"tag-{number}", raw) for raw in RAWS]) == [201] * CLIENTS
        assert client.get(f"/v2/{name}/manifests/tag-{number}").body in RAWS
    for raw in RAWS:
        assert client.get(f"/v2/{name}/manifests/{Digest.of(raw)}").body == raw


def test_only_one_makes_a_tag_that_wasnt_there(crowd: Crowd, client: Client, name: str) -> None:
    """``If-None-Match: *`` lets exactly one of them through: a lock that people build on."""
    client.push_blob(name, CONFIG)

    def make(tag: str, raw: bytes) -> Callable[[Client], int]:
        headers = {"Content-Type": OCI_MANIFEST, "If-None-Match": "*"}
        return lambda own: own.put(f"/v2/{name}/manifests/{tag}", raw, headers).status

    for number in range(ROUNDS):
        statuses = crowd.do([make(f"lock-{number}", raw) for raw in RAWS])
        assert sorted(statuses) == [201] + [412] * (CLIENTS - 1)
        assert client.get(f"/v2/{name}/manifests/lock-{number}").body == RAWS[statuses.index(201)]


def test_a_moving_tag_is_always_somewhere(crowd: Crowd, client: Client, name: str) -> None:
    """Who reads a tag while it moves gets what it was or what it is, whole; never a 404."""
    client.push_blob(name, CONFIG)
    push(client, name, "moving", RAWS[0])

    def move(own: Client) -> list[tuple[int, bytes]]:
        return [(_put(name, "moving", RAWS[turn % CLIENTS])(own), b"") for turn in range(40)]

    def read(own: Client) -> list[tuple[int, bytes]]:
        answers = [own.get(f"/v2/{name}/manifests/moving") for _ in range(120)]
        return [(answer.status, answer.body) for answer in answers]

    seen = crowd.do([move, read, read, move, read, read])

    assert {status for status, _ in seen[0] + seen[3]} == {201}
    assert {status for reads in (1, 2, 4, 5) for status, _ in seen[reads]} == {200}
    assert {body for reads in (1, 2, 4, 5) for _, body in seen[reads]} <= set(RAWS)


def test_a_delete_beside_a_push_leaves_no_orphan(crowd: Crowd, client: Client, name: str) -> None:
    """A manifest deleted by digest while it is tagged: the tag is there with its manifest, or neither is."""
    client.push_blob(name, CONFIG)
    raw, digest = RAWS[0], Digest.of(RAWS[0])

    for _ in range(ROUNDS):
        push(client, name, "kept", raw)
        works = [_put(name, "kept", raw), lambda own: own.delete(f"/v2/{name}/manifests/{digest}").status] * 2
        pushed, deleted, again, twice = crowd.do(works)
        by_tag, by_digest = (client.get(f"/v2/{name}/manifests/{one}").status for one in ("kept", digest))
        tags = client.get(f"/v2/{name}/tags/list").json().get("tags", [])

        assert (pushed, again) == (201, 201)
        assert {deleted, twice} <= {202, 404}
        assert (by_tag, by_digest, tags) in [(200, 200, ["kept"]), (404, 404, [])]


@pytest.mark.parametrize("sent", ["in-a-patch", "in-the-put"])
def test_a_session_is_finished_once(crowd: Crowd, client: Client, name: str, sent: str) -> None:
    """Several PUT and a DELETE of one session: if any is 201 the blob is there whole, else it isn't there."""
    body = BLOB if sent == "in-the-put" else b""

    def finish(location: str) -> Callable[[Client], int]:
        return lambda own: own.put(with_query(location, f"digest={DIGEST}"), body).status

    for _ in range(ROUNDS):
        location = client.post(f"/v2/{name}/blobs/uploads/").headers["location"]
        if sent == "in-a-patch":
            client.patch(location, BLOB)
        *finished, cancelled = crowd.do([finish(location)] * 3 + [lambda own, at=location: own.delete(at).status])
        answer = client.get(f"/v2/{name}/blobs/{DIGEST}")

        assert set(finished) <= {201, 404, 409, 416}
        assert cancelled in {204, 404}
        assert (answer.status, cancelled) == ((200, 404) if 201 in finished else (404, 204))
        assert answer.status == 404 or answer.body == BLOB
        client.delete(f"/v2/{name}/blobs/{DIGEST}")
