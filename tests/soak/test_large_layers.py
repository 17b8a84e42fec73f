"""A layer of a gibibyte for one token: packed, pushed, checked and pulled in the memory of a few pieces.

SOAK_LAYER_MIB is the size (default 1024).
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.container_api import push
from tests.soak.memory import BOUND_BYTES, MIB, Blob, Watched, warm

from roadstead.testing.images import make_image
from roadstead.testing.server import RoadsteadServer

SIZE = int(os.environ.get("SOAK_LAYER_MIB", "1024")) * MIB
SMALL = 2 * MIB  # too large for a request, and nothing else


@pytest.mark.soak
def test_a_large_layer_of_a_token_takes_little_memory(tmp_path: Path) -> None:
    """Neither the command, which packs and pushes it, nor the server, which takes and checks it, grows with it."""
    with RoadsteadServer(tmp_path / "server", workers=1) as server:
        push(server.client(), "team/app", make_image(seed="large layers"), "1")
        warm(server)
        before = augmented(server, packable(tmp_path / "small", SMALL))
        watched = Watched(server)
        with watched.watching():
            after = augmented(server, packable(tmp_path / "large", SIZE))
        for path in (server.data / "docker").rglob("data"):
            path.unlink()  # so much isn't kept with the last runs of the tests
    (tmp_path / "large" / "noise").unlink()
    print(f"\n{SIZE / MIB:.0f} MiB: the command {before / MIB:.0f} and {after / MIB:.0f} MiB, the server {watched}")

    assert after - before <= BOUND_BYTES
    assert watched.growth <= BOUND_BYTES, str(watched)


def packable(directory: Path, size: int) -> Path:
    directory.mkdir()
    with (directory / "noise").open("wb") as file:
        for piece in Blob(size, str(size).encode()).pieces():
            file.write(piece)
    return directory


def augmented(server: RoadsteadServer, directory: Path) -> int:
    """Run the command with a directory as the layer; return the most memory that it had, in bytes."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(directory.parent)}
    command = [sys.executable, "-m", "roadstead", "augment", "team/app:1", "--service", server.url]
    process = subprocess.Popen([*command, "--layer", str(directory)], env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * 1024
