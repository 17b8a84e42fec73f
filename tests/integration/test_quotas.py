"""Limits on what repositories hold, at the real server."""

from collections.abc import Iterator

import pytest

from roadstead.oci.digest import Digest
from roadstead.testing.client import Client
from roadstead.testing.server import RoadsteadServer

CONFIG = """
[[registry.quotas]]
repositories = "small/**"
max_bytes = 100000
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
