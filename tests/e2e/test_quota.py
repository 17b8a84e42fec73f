"""A quota that is hit in the middle of a push by the real engine."""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from roadstead.storage import keys
from roadstead.testing.dockerd import DockerEngine
from roadstead.testing.server import RoadsteadServer

CONFIG = """
[[registry.quotas]]
repositories = "small/**"
max_bytes = 200000
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoadsteadServer]:
    with RoadsteadServer(tmp_path_factory.mktemp("quota"), config=CONFIG) as running:
        yield running


def test_docker_is_told_of_a_quota(server: RoadsteadServer, docker_engine: DockerEngine, tmp_path: Path) -> None:
    """Layers are streamed without a length: the push ends at once with the reason, and leaves nothing behind."""
    image = f"{server.host}/small/{uuid4().hex[:12]}:1"
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY large /\n")
    (tmp_path / "large").write_bytes(os.urandom(2_000_000))
    docker_engine.docker("build", "--tag", image, str(tmp_path))

    refused = docker_engine.docker("push", image, check=False)

    docker_engine.docker("rmi", image)
    assert refused.returncode == 1
    assert "denied: repositories small/** may hold 200000 bytes" in refused.stdout + refused.stderr
    staged = [path for path in (server.data / keys.UPLOADS).rglob("*") if path.is_file()]
    assert staged == []
    patches = [line for line in server.log.splitlines() if "PATCH" in line]
    assert len(patches) == 1, patches  # it isn't tried again
