"""A blob passes through in pieces: no process grows with it (design decision 4).

``tests/soak/test_memory.py`` does the same with 5 GiB.
"""

from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from tests.soak.memory import BOUND_BYTES, MIB, Blob, Watched, pull, push_streamed, push_whole, slow_readers, warm

from roadstead.testing.client import Client
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import wait_until


@pytest.mark.parametrize("push", [push_whole, push_streamed])
def test_a_large_blob_goes_in_and_out_in_little_memory(tmp_path: Path, push) -> None:
    """200 MiB are pushed, pulled, and pulled by clients that are slow to read."""
    blob = Blob(200 * MIB, b"large")
    digest = blob.digest()
    with RoadsteadServer(tmp_path) as server:
        warm(server)
        watched = Watched(server)
        with watched.watching():
            push(server, blob, digest)
            pull(server, digest)
            with slow_readers(server, digest, count=8, bytes_per_s=5_000_000):
                enough = watched.samples + 50
                assert wait_until(lambda: watched.samples >= enough, timeout=timedelta(seconds=60))

    assert watched.growth <= BOUND_BYTES, str(watched)


def test_a_large_blob_of_an_upstream_arrives_in_little_memory(tmp_path: Path) -> None:
    """200 MiB come through for clients that are slow to read and one that isn't, all from one download."""
    blob = Blob(200 * MIB, b"pulled through")
    digest = blob.digest()
    with RoadsteadServer(tmp_path / "there", workers=1) as there:
        push_whole(there, blob, digest)
        upstream = f'[[upstreams]]\nhost = "up.example"\nurl = "{there.url}"\ndefault_for = ["large/*"]\n'
        with RoadsteadServer(tmp_path / "here", config=upstream) as server:
            for worker in server.workers:
                warm_by_pulling(there, server, worker)
            watched = Watched(server)
            with watched.watching(), slow_readers(server, digest, count=8, bytes_per_s=5_000_000):
                pull(server, digest)
                enough = watched.samples + 50
                assert wait_until(lambda: watched.samples >= enough, timeout=timedelta(seconds=60))

    assert watched.growth <= BOUND_BYTES, str(watched)


def warm_by_pulling(there: RoadsteadServer, server: RoadsteadServer, worker: int) -> None:
    """Have a worker pull something through: what it loads for that is part of its idle state."""
    data = b"%d" % worker * MIB
    with closing(Client(there.host)) as client:
        digest = client.push_blob("large/warm", data)
    assert server.client_of(worker).get(f"/v2/large/warm/blobs/{digest}").body == data
