"""``roadstead augment`` against a running service."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.integration.container_api import pulled, push

from roadstead.cli.augment import measured
from roadstead.cli.pushing_layers import LayerChangedError, push_layers
from roadstead.db.engine import open_database
from roadstead.oci.reference import RepositoryName
from roadstead.registry.gc import CONDEMNED_FOR, Collector, Policy, Untagged
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.testing.clock import FrozenClock
from roadstead.testing.images import make_image, make_layer
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


LARGE = make_layer({"noise": random.Random(11).randbytes(2 << 20)})


def large_layer(directory: Path) -> str:
    path = directory / "large.tar.gz"
    path.write_bytes(LARGE.raw)
    return str(path)


def test_a_large_layer_is_pushed_first(server: RoadsteadServer, tmp_path: Path) -> None:
    """One that doesn't fit into the request goes to the image's repository, once, or to another that is named."""
    words = ("team/app:1", "--service", server.url, "--layer", large_layer(tmp_path))
    first, again = augment(*words, directory=tmp_path), augment(*words, directory=tmp_path)
    elsewhere = augment(*words, "--layers-to", "team/layers", directory=tmp_path)

    for done, told in (
        (first, f"pushed as team/app@{LARGE.digest}"),
        (again, f"found, and not sent again as team/app@{LARGE.digest}"),
        (elsewhere, f"pushed as team/layers@{LARGE.digest}"),
    ):
        assert done.returncode == 0, done.stderr
        assert told in done.stderr
        _, layers = pulled(server.client(), done.stdout.strip())
        assert layers[str(LARGE.digest)] == LARGE.raw
    assert server.client().head(f"/v2/team/layers/blobs/{LARGE.digest}").status == 200


@pytest.mark.parametrize(
    ("size", "error"), [(1 << 20, LayerChangedError), (0, LayerChangedError), ((2 << 20) + 4096, None)]
)
def test_a_layer_that_changes_while_it_is_pushed(
    server: RoadsteadServer, tmp_path: Path, size: int, error: type[Exception] | None
) -> None:
    """Cut short it is told; what somebody adds at the end wasn't measured, and isn't sent."""
    home = RepositoryName(f"team/changed-{size}")
    with ExitStack() as kept:
        layer = measured(large_layer(tmp_path), kept)
        os.truncate(layer.given, size)
        with nullcontext() if error is None else pytest.raises(error, match=r"large\.tar\.gz has changed"):
            push_layers([layer], server.url, home, None, None)
    assert server.client().head(f"/v2/{home}/blobs/{LARGE.digest}").status == (404 if error else 200)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("quay.io/org/img:1",), 1, "--layers-to"),
        (("team/app:1", "--layers-to", "Team"), 2, "--layers-to"),
        (("team/app:1", "--layers-to", "as-pushed/no/app"), 1, "can't be pushed to as-pushed/no/app"),
    ],
)
def test_where_a_large_layer_can_not_go(
    server: RoadsteadServer, tmp_path: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    """No repository is known, none is named, or none that takes a push."""
    done = augment(*words, "--service", server.url, "--layer", large_layer(tmp_path), directory=tmp_path)
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (status, True, False), done.stderr


async def test_a_pushed_layer_outlives_collection(server: RoadsteadServer, tmp_path: Path) -> None:
    """It stays while a token needs it, whatever becomes of tag and image, and goes when the last token has ended."""
    client = server.client()
    push(client, "held/app", IMAGE, "1")
    (tmp_path / "held.tar.gz").write_bytes(make_layer({"noise": random.Random(12).randbytes(2 << 20)}).raw)
    done = augment("held/app:1", "--service", server.url, "--layer", "held.tar.gz", directory=tmp_path)
    digest = done.stderr.strip().rpartition("@")[2]
    target = done.stdout.strip()
    database = await open_database(f"sqlite:///{server.data}/roadstead.db", migrate=False)
    driver = FilesystemDriver(server.data)
    clock = FrozenClock(datetime.now(UTC) + timedelta(hours=30))  # no lease of a push holds any more, the token does
    policy = Policy(untagged=Untagged.DELETE, untagged_after=timedelta(0))
    collector = Collector(database.collection, database.catalog, driver, clock, policy)

    async def collect() -> None:
        for _ in range(3):
            await database.containers.purge(now=clock.now(), forget_before=clock.now() - timedelta(days=7))
            await collector.run()
            clock.advance(CONDEMNED_FOR)

    try:
        await collect()
        assert digest in pulled(client, target)[1]
        assert client.head(f"/v2/held/app/blobs/{digest}").status == 404  # of the repository's own it is none

        push(client, "held/app", make_image(seed="another"), "1")
        assert client.delete(f"/v2/held/app/manifests/{IMAGE.digest}").status == 202
        await collect()
        assert digest in pulled(client, target)[1]

        clock.advance(timedelta(days=3))
        await collect()
        assert not list((server.data / "docker").rglob(f"{digest.removeprefix('sha256:')}/data"))
    finally:
        await database.close()
        await driver.close()
