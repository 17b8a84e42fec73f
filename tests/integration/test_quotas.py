"""Limits on what repositories hold, at the real server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from roadstead.oci.digest import Digest
from roadstead.storage import keys
from roadstead.testing.client import Client
from roadstead.testing.server import RoadsteadServer

CONFIG = """
[[registry.quotas]]
repositories = "small/**"
max_bytes = 100000

[[registry.quotas]]
repositories = "tiny/**"
max_bytes = 30000

[[registry.quotas]]
repositories = "streamed/**"
max_bytes = 3000000

[[registry.quotas]]
repositories = "many/**"
max_bytes = 100000

[limits]
max_blob_bytes = 4000000
"""
LIMIT = 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoadsteadServer]:
    with RoadsteadServer(tmp_path_factory.mktemp("quotas"), config=CONFIG) as running:
        yield running


@pytest.fixture
def client(server: RoadsteadServer) -> Client:
    return server.client()


def session(client: Client, name: str) -> str:
    return client.post(f"/v2/{name}/blobs/uploads/").headers["location"]


def test_uploads_end_at_the_limit(client: Client) -> None:
    """By the announced size before anything is read, or as a chunked body goes beyond; until there is room again."""
    half = b"a" * (LIMIT // 2)
    client.push_blob("small/one", half)
    too_much = b"b" * (LIMIT // 2 + 1)
    digest = Digest.of(too_much)

    location = session(client, "small/two")
    refused = [
        client.post(f"/v2/small/two/blobs/uploads/?digest={digest}", too_much),
        client.put(f"{location}?digest={digest}", too_much),
        client.patch(location, too_much),
        client.patch(session(client, "small/two"), iter([too_much[:30_000], too_much[30_000:]])),
    ]
    assert [(answer.status, answer.code) for answer in refused] == [(403, "DENIED")] * 4
    assert "small/** may hold 100000 bytes and hold 50000" in refused[0].json()["errors"][0]["message"]
    assert client.head(f"/v2/small/two/blobs/{digest}").status == 404
    client.push_blob("large/enough", too_much)

    last = b"c" * (LIMIT - len(half))
    client.push_blob("small/two", last)
    full = client.post("/v2/small/three/blobs/uploads/")
    assert (full.status, full.code) == (403, "DENIED")
    mounted = client.post(f"/v2/small/three/blobs/uploads/?mount={Digest.of(half)}&from=small/one")
    assert mounted.status == 403

    assert client.delete(f"/v2/small/two/blobs/{Digest.of(last)}").status == 202
    client.push_blob("small/three", b"d" * 10)


def test_chunks_of_one_upload_count_together(client: Client) -> None:
    """Each is small enough; the second is too much, and what came before is still there to be given up."""
    location = session(client, "small/chunks")
    first = client.patch(location, b"x" * 40_000)
    second = client.patch(location, b"x" * 70_000)

    assert (first.status, second.status, second.code) == (202, 403, "DENIED")
    assert client.get(location).headers["range"] == "0-39999"
    assert client.delete(location).status == 204


def test_chunks_too_short_for_a_file_count_together(client: Client) -> None:
    """Short ones are kept in the session's row until they are many, and count from the first byte."""
    location = session(client, "tiny/chunks")
    data = b"x" * 20_000
    first = client.patch(location, data)
    more = client.patch(location, data)
    whole = client.put(f"{location}?digest={Digest.of(data + data)}", data)

    assert (first.status, more.status, whole.status, whole.code) == (202, 403, 403, "DENIED")
    assert client.get(location).headers["range"] == "0-19999"
    assert client.put(f"{location}?digest={Digest.of(data)}").status == 201


@pytest.mark.parametrize("begun", [0, 1_000_000])
def test_a_stream_of_no_said_length_ends_at_the_limit(server: RoadsteadServer, client: Client, begun: int) -> None:
    """Beyond it the answer is 403 with the reason, as Docker's client takes for final; what had come is let go at once,
    and the session stands where it stood.
    """
    name = f"streamed/{begun}"
    location = session(client, name)
    if begun:
        assert client.patch(location, b"a" * begun).status == 202
    before = stored_bytes(server)

    refused = client.patch(location, iter([b"b" * 500_000] * 7))
    at_once = client.post(f"/v2/{name}/blobs/uploads/?digest={Digest.of(b'c' * 3_500_000)}", iter([b"c" * 500_000] * 7))

    assert [(answer.status, answer.code) for answer in (refused, at_once)] == [(403, "DENIED")] * 2
    assert "streamed/** may hold 3000000 bytes" in refused.json()["errors"][0]["message"]
    assert stored_bytes(server) == before
    assert client.get(location).headers["range"] == f"0-{max(begun - 1, 0)}"
    assert client.head(f"/v2/{name}/blobs/{Digest.of(b'b' * 3_500_000)}").status == 404
    client.push_blob(name, name.ljust(1_000).encode())
    assert client.delete(location).status == 204
    assert stored_bytes(server) == before - begun + 1_000


def stored_bytes(server: RoadsteadServer) -> int:
    """Return the bytes of all blobs, and of what is on its way in."""
    places = [server.data / keys.UPLOADS, server.data / keys.ROOT / "blobs"]
    return sum(path.stat().st_size for place in places for path in place.rglob("*") if path.is_file())


def test_open_sessions_count(server: RoadsteadServer, client: Client) -> None:
    """What they have taken in is there, whether it is finished or not; one that is given up makes room."""
    first, second = session(client, "many/open"), session(client, "many/open")
    assert client.patch(first, b"x" * 60_000).status == 202

    refused = [one.patch(second, b"y" * 60_000).status for one in map(server.client_of, server.workers)]

    assert refused == [403, 403]
    assert client.delete(first).status == 204
    assert client.patch(second, b"y" * 60_000).status == 202
    digest = Digest.of(b"y" * 60_000)
    assert [client.put(f"{second}?digest={digest}").status for _ in range(2)] == [201, 201]
    assert client.delete(f"/v2/many/open/blobs/{digest}").status == 202


def test_what_comes_at_once_has_room_together(server: RoadsteadServer) -> None:
    """Many that would fit alone: a worker lets in as many as fit, and there is room for the rest of it afterwards."""
    worker = server.workers[0]
    clients = [server.client_of(worker) for _ in range(12)]
    layers = [bytes([number]) * 40_000 for number in range(12)]

    def push(number: int) -> int:
        target = f"/v2/many/atonce/blobs/uploads/?digest={Digest.of(layers[number])}"
        return clients[number].post(target, layers[number] if number % 2 else iter([layers[number]])).status

    with ThreadPoolExecutor(12) as pushing:
        statuses = list(pushing.map(push, range(12)))

    assert sorted(statuses) == [201, 201, *[403] * 10]
    clients[0].push_blob("many/atonce", b"z" * 20_000)
    for layer in layers:
        clients[0].delete(f"/v2/many/atonce/blobs/{Digest.of(layer)}")
    clients[0].delete(f"/v2/many/atonce/blobs/{Digest.of(b'z' * 20_000)}")


def test_mounts_count(client: Client) -> None:
    """By what the repository holds more then: nothing, where it has the blob already."""
    data = [bytes([number]) * 60_000 for number in range(2)]
    digests = [client.push_blob("elsewhere/app", each) for each in data]

    mounted = [client.post(f"/v2/many/mounted/blobs/uploads/?mount={digest}&from=elsewhere/app") for digest in digests]
    again = client.post(f"/v2/many/mounted/blobs/uploads/?mount={digests[0]}&from=elsewhere/app")
    unknown = client.post(f"/v2/many/mounted/blobs/uploads/?mount={Digest.of(b'?')}&from=elsewhere/app")

    assert [answer.status for answer in mounted] == [201, 403]
    assert (again.status, unknown.status) == (201, 202)
    assert client.delete(f"/v2/many/mounted/blobs/{digests[0]}").status == 202
