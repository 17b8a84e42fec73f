"""5 GiB in and out, also to slow readers, in the memory of a few pieces.

SOAK_GIB is the size (default 5), SOAK_SLOW_S how long the slow readers read (default 60).
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.soak.memory import (
    BOUND_BYTES,
    MIB,
    Blob,
    BlobUpstream,
    Watched,
    pull,
    push_streamed,
    push_whole,
    slow_readers,
    speed,
    warm,
)

from roadstead.oci.digest import Digest
from roadstead.testing.server import RoadsteadServer

SIZE = int(os.environ.get("SOAK_GIB", "5")) << 30
SLOW_S = float(os.environ.get("SOAK_SLOW_S", "60"))


@pytest.mark.soak
@pytest.mark.parametrize("push", [push_whole, push_streamed])
def test_gibibytes_go_in_and_out_in_little_memory(
    tmp_path: Path, push: Callable[[RoadsteadServer, Blob, Digest], None]
) -> None:
    """A blob of 5 GiB is pushed, pulled as fast as it comes, and pulled by 16 clients at 5 MB/s each."""
    blob = Blob(SIZE, push.__name__.encode())
    digest = blob.digest()
    with RoadsteadServer(tmp_path) as server:
        warm(server)
        watched = Watched(server)
        with watched.watching():
            began = time.monotonic()
            push(server, blob, digest)
            print(f"\n{push.__name__}: {speed(SIZE, began)}; {watched}")
            began = time.monotonic()
            pull(server, digest)
            print(f"pull: {speed(SIZE, began)}; {watched}")
            with slow_readers(server, digest, count=16, bytes_per_s=5_000_000):
                time.sleep(SLOW_S)
            print(f"16 slow readers for {SLOW_S:.0f} s: {watched}")
        stored = server.data / "docker"
    assert sum(path.stat().st_size for path in stored.rglob("data")) >= SIZE
    for path in stored.rglob("data"):
        path.unlink()  # so much isn't kept with the last runs of the tests

    assert watched.growth <= BOUND_BYTES, str(watched)
    assert watched.samples > SIZE // (200 * MIB), "it was looked at too rarely"


@pytest.mark.soak
def test_gibibytes_are_pulled_through_in_little_memory(tmp_path: Path) -> None:
    """A blob of 5 GiB of an upstream is pulled by one client as it arrives, and by 16 slow ones behind it; once."""
    blob = Blob(SIZE, b"pulled through")
    digest = blob.digest()
    small = {str(one.digest()): one for one in (Blob(2 * MIB, b"%d" % number) for number in range(8))}
    repository = "up.example/large/app"
    with BlobUpstream({str(digest): blob, **small}) as upstream:
        config = f'[[upstreams]]\nhost = "up.example"\nurl = "{upstream.url}"\n'
        with RoadsteadServer(tmp_path, config=config) as server:
            warm(server)
            for worker, each in zip(server.workers, (list(small)[:4], list(small)[4:]), strict=False):
                client = server.client_of(worker)
                for one in each:
                    assert client.get(f"/v2/{repository}/blobs/{one}").status == 200
            asked = upstream.asked
            watched = Watched(server)
            with watched.watching():
                began = time.monotonic()
                with slow_readers(server, digest, count=16, bytes_per_s=5_000_000, repository=repository):
                    pull(server, digest, repository)
                    print(f"\npulled through: {speed(SIZE, began)}; {watched}")
                    time.sleep(SLOW_S)
                print(f"16 slow readers for {SLOW_S:.0f} s: {watched}")
            stored = server.data / "docker"
            assert upstream.asked == asked + 1
    for path in (*stored.rglob("data"), *(tmp_path / "data" / "arriving").glob("*")):
        path.unlink()  # so much isn't kept with the last runs of the tests

    assert watched.growth <= BOUND_BYTES, str(watched)
    assert watched.samples > SIZE // (200 * MIB), "it was looked at too rarely"
