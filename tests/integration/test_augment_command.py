"""``roadstead augment`` against a running service."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.container_api import pulled, push

from roadstead.testing.images import make_image
from roadstead.testing.server import RoadsteadServer

IMAGE = make_image(seed="command")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoadsteadServer]:
    """A server with one image; its settings say where it listens."""
    with RoadsteadServer(tmp_path_factory.mktemp("command"), workers=1) as running:
        push(running.client(), "team/app", IMAGE, "1")
        yield running


def augment(*words: str, directory: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "roadstead", "augment", *words]
    return subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, timeout=60, cwd=directory
    )


def test_the_name_to_pull(server: RoadsteadServer, tmp_path: Path) -> None:
    """A directory and a .tar.gz become layers, the rest of the plan comes along, and the printed name pulls."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "foo.txt").write_text("hello")
    (tmp_path / "settings.toml").write_text(f'[server]\nlisten = "{server.host}"\n')

    done = augment(
        "team/app:1", "settings.toml", "--layer", "files", "--env", "K=V", "--entrypoint", "/bin/x", "--cmd=-c",
        "--cmd", "run", "--workdir", "/w", directory=tmp_path,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    target = done.stdout.strip()
    assert target.startswith(f"{server.host}/wt/")
    config, layers = pulled(server.client(), target)
    assert len(layers) == len(IMAGE.layers) + 1
    made = config["config"]
    assert (made["Entrypoint"], made["Cmd"], made["WorkingDir"]) == (["/bin/x"], ["-c", "run"], "/w")
    assert "K=V" in made["Env"]


def test_json(server: RoadsteadServer, tmp_path: Path) -> None:
    """The whole answer, with the digest that a pull is answered with."""
    done = augment("team/app:1", "--service", server.url, "--env", "K=V", "--json", directory=tmp_path)
    assert json.loads(done.stdout).keys() >= {"targetImage", "targetDigest", "expiration"}


def test_what_the_service_refuses(server: RoadsteadServer, tmp_path: Path) -> None:
    """Status 1, with the service's own words."""
    done = augment("team/nowhere:1", "--service", server.url, directory=tmp_path)
    assert done.returncode == 1
    assert "team/nowhere:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_nobody_there(tmp_path: Path) -> None:
    """The address that was tried, and how to name another."""
    done = augment("team/app:1", "--service", "http://127.0.0.1:1", directory=tmp_path)
    assert done.returncode == 1
    assert "http://127.0.0.1:1" in done.stderr
    assert "--service" in done.stderr
