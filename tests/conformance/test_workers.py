"""Several workers answer as one (design decisions 3 and 4; registry spec §8.2).

A connection stays with one worker; which one is read from ``/proc``. So each test certainly talks to both.
"""

import itertools
import random
from collections.abc import Iterator

import pytest
from tests.conformance.documents import CONFIG, manifest, push

from roadstead.oci.digest import Algorithm, Digest
from roadstead.testing.client import Client, with_query
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.wire import clients_of_all_workers

WORKERS = 2
ROUNDS = 2000  # of a change and a question each
CHUNK = 100_000
BLOB = random.Random(11).randbytes(10 * CHUNK)


@pytest.fixture
def each_worker(server: RoadsteadServer) -> Iterator[list[Client]]:
    """Two clients of each worker, those of one worker never side by side."""
    rounds = [clients_of_all_workers(server.host, server.pid, workers=WORKERS) for _ in range(2)]
    clients = [by_process[process] for by_process in rounds for process in sorted(rounds[0])]
    yield clients
    for client in clients:
        client.close()


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_an_upload_goes_from_worker_to_worker(each_worker: list[Client], name: str, algorithm: Algorithm) -> None:
    """Each chunk is taken by another worker than the one before; the digest is verified over all of them."""
    turn = itertools.cycle(each_worker)
    location = next(turn).post(f"/v2/{name}/blobs/uploads/").headers["location"]

    for start in range(0, len(BLOB), CHUNK):
        headers = {"Content-Range": f"{start}-{start + CHUNK - 1}"}
        answer = next(turn).patch(location, BLOB[start : start + CHUNK], headers)
        assert (answer.status, answer.headers["range"]) == (202, f"0-{start + CHUNK - 1}")
        assert next(turn).get(location).headers["range"] == f"0-{start + CHUNK - 1}"

        next(turn)  # so that the next chunk changes sides
    digest = Digest.of(BLOB, algorithm)
    answer = next(turn).put(with_query(location, f"digest={digest}"))

    assert answer.status == 201
    assert [client.get(f"/v2/{name}/blobs/{digest}").body == BLOB for client in each_worker] == [True] * 4


def test_a_wrong_digest_is_found_over_all_workers(each_worker: list[Client], name: str) -> None:
    """Chunks that came through different workers are still checked as one."""
    turn = itertools.cycle(each_worker)
    location = next(turn).post(f"/v2/{name}/blobs/uploads/").headers["location"]
    for start in range(0, 3 * CHUNK, CHUNK):
        next(turn).patch(location, BLOB[start : start + CHUNK])

    answer = next(turn).put(with_query(location, f"digest={Digest.of(BLOB[: 2 * CHUNK])}"))

    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert [client.get(location).status for client in each_worker] == [404] * 4


def test_an_acknowledged_change_is_seen_by_all(each_worker: list[Client], name: str, other: str) -> None:
    """After a tag moved or went, a manifest was deleted, a blob unlinked or mounted, no worker tells the old state.

    Each round changes something through one connection and asks at once through the next one.
    """
    first = each_worker[0]
    first.push_blob(name, CONFIG)
    digest = first.push_blob(other, b"goes to and fro")
    raws = [manifest(annotations={"turn": text}) for text in ("even", "odd")]
    images = [push(first, name, f"fixed-{turn}", raw) for turn, raw in enumerate(raws)]
    blob = f"/v2/{name}/blobs/{digest}"

    turn = itertools.cycle(each_worker)
    stale: list[str] = []
    for number in range(-(-ROUNDS // 6)):
        image = images[number % 2]
        push(next(turn), name, "moving", image.raw)
        if next(turn).head(f"/v2/{name}/manifests/moving").headers["docker-content-digest"] != str(image.digest):
            stale.append(f"{number}: tag moved")
        assert next(turn).delete(f"/v2/{name}/manifests/moving").status == 202
        if next(turn).head(f"/v2/{name}/manifests/moving").status != 404:
            stale.append(f"{number}: tag deleted")
        assert next(turn).post(f"/v2/{name}/blobs/uploads/?mount={digest}&from={other}").status == 201
        if next(turn).head(blob).status != 200:
            stale.append(f"{number}: blob mounted")
        assert next(turn).delete(blob).status == 202
        if next(turn).head(blob).status != 404:
            stale.append(f"{number}: blob unlinked")
        assert next(turn).delete(f"/v2/{name}/manifests/{image.digest}").status == 202
        if next(turn).head(f"/v2/{name}/manifests/fixed-{number % 2}").status != 404:
            stale.append(f"{number}: manifest deleted")
        push(next(turn), name, f"fixed-{number % 2}", image.raw)
        if next(turn).get(f"/v2/{name}/manifests/{image.digest}").body != image.raw:
            stale.append(f"{number}: manifest pushed again")
        next(turn)  # so that the next round goes the other way

    assert stale == []
