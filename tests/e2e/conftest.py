"""One Roadstead with a rule, served by the real command, for the clients of this folder."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.containers import Containers

from roadstead.testing.containerd import Containerd, open_containerd
from roadstead.testing.server import RoadsteadServer

GREETING = "hello from a layer that nobody built in\n"

CONFIG = """
[[augment.rules]]
match = "augmented/*"
layers = ["greeting.tar.gz", "more"]
env = ["GREETED_BY=roadstead"]
workdir = "/opt"

[[augment.rules]]
match = "wrapped/*"
layers = ["more"]
entrypoint = ["/bin/busybox", "echo", "wrapped:"]
"""


@pytest.fixture(scope="session")
def greeter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoadsteadServer]:
    """A server that adds `/greeting.txt` (packed) and `/opt/more.txt` (a directory) to what is below `augmented/`."""
    directory = tmp_path_factory.mktemp("greeter")
    _write(directory / "greeting" / "greeting.txt", GREETING)
    _write(directory / "more" / "opt" / "more.txt", "more\n")
    subprocess.run(
        [sys.executable, "-m", "roadstead", "layer", "pack", "greeting", "--output", "greeting.tar.gz"],
        cwd=directory,
        check=True,
        capture_output=True,
    )
    with RoadsteadServer(directory, config=CONFIG) as server:
        yield server


@pytest.fixture(scope="session")
def containerd() -> Iterator[Containerd]:
    """A containerd for each test process that asks."""
    with open_containerd() as daemon:
        yield daemon


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    """The programs with an empty storage, emptied again afterwards (its files belong to other users)."""
    clients = Containers(tmp_path)
    yield clients
    clients.run("buildah", "rmi", "--all", "--force")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
