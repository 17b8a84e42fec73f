"""The real engine pulls another registry's image through Roadstead, with a layer added on the way."""

from pathlib import Path
from uuid import uuid4

import pytest

from roadstead.testing.dockerd import DockerEngine
from roadstead.testing.registry_peer import RegistryPeer
from roadstead.testing.server import RoadsteadServer

GREETING = "hello from a layer that nobody built in\n"
CONFIG = """
[[upstreams]]
host = "docker.io"
url = "URL"
default_for = ["library/*"]

[[augment.rules]]
match = "library/*:latest"
layers = ["layer"]
"""


@pytest.fixture
def upstream_image(registry_peer: RegistryPeer, docker_engine: DockerEngine) -> str:
    """The name of an image below `library/` that only another registry has."""
    name = f"library/{uuid4().hex[:12]}"
    image = f"{registry_peer.host}/{name}:latest"
    docker_engine.import_busybox(image)
    docker_engine.docker("push", image)
    docker_engine.docker("rmi", image)
    return name


def test_an_upstreams_image_is_added_to(
    tmp_path: Path, registry_peer: RegistryPeer, docker_engine: DockerEngine, upstream_image: str
) -> None:
    """`docker pull HOST/library/…` through a default upstream: the rule's file is in it, and its command still runs."""
    (tmp_path / "layer").mkdir()
    (tmp_path / "layer" / "greeting.txt").write_text(GREETING)
    with RoadsteadServer(tmp_path, config=CONFIG.replace("URL", registry_peer.url)) as server:
        image = f"{server.host}/{upstream_image}:latest"
        original = f"{server.host}/as-pushed/{upstream_image}:latest"
        docker_engine.docker("pull", image)
        try:
            ran = docker_engine.docker(
                "run", "--rm", "--network", "none", image, "/bin/busybox", "cat", "/greeting.txt"
            )
            assert ran.stdout == GREETING
            assert docker_engine.docker("run", "--rm", "--network", "none", image).stdout == "roadstead\n"
            docker_engine.docker("pull", original)
            listed = docker_engine.docker("run", "--rm", "--network", "none", original, "/bin/busybox", "ls", "/")
            assert "greeting.txt" not in listed.stdout
        finally:
            docker_engine.docker("rmi", "--force", image, original, check=False)
