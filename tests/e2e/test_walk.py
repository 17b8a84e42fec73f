"""The way of somebody who comes from Wave, with the real engine: a layer packed, Docker Hub's images pulled through.

Rules and container tokens add `/foo.txt`, rules also the layer that mounts S3 buckets. Docker Hub is a registry of
Debian's here; its images have the C libraries that images have: a static busybox, musl, glibc, and none.
"""

import gzip
import json
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.conftest import RUN_DIRECTORY
from tests.e2e.bases import BASES, Base
from tests.e2e.mounting import LAYER, shared_layer
from tests.e2e.test_s3_mount import MAY_MOUNT, Runner

from roadstead.oci.digest import Digest
from roadstead.testing.client import Client
from roadstead.testing.components import require
from roadstead.testing.containerd import Containerd
from roadstead.testing.dockerd import DockerEngine
from roadstead.testing.registry_peer import RegistryPeer
from roadstead.testing.seaweedfs import SeaweedFS
from roadstead.testing.server import RoadsteadServer

CONFIG = f"""
[augment]
location_hosts = ["HOST"]

[[upstreams]]
host = "docker.io"
url = "URL"
default_for = ["library/*"]

[[augment.rules]]
match = "library/*"
layers = ["foo.tar.gz", {{ path = "{LAYER}", platform = "linux/amd64" }}]
entrypoint = ["/opt/roadstead/entry"]
"""
BUSYBOX, MUSL, GLIBC, STATIC = BASES
FOO = "Hello from a rule\n"


@pytest.fixture(scope="module")
def walk(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config, registry_peer: RegistryPeer
) -> Iterator[RoadsteadServer]:
    """A server whose rule adds `/foo.txt` and the mount to the Hub's images."""
    directory = tmp_path_factory.mktemp("walk")
    (directory / "foo").mkdir()
    (directory / "foo" / "foo.txt").write_text(FOO)
    pack(directory, "foo")
    shutil.copy(shared_layer(pytestconfig.stash[RUN_DIRECTORY]), directory / LAYER)
    config = CONFIG.replace("URL", registry_peer.url).replace("HOST", registry_peer.host)
    with RoadsteadServer(directory, config=config, workers=1) as server:
        yield server


class Hub:
    """Docker Hub, with an image for each base that a test asks for, and the engine that pulls it from `localhost`."""

    def __init__(self, walk: RoadsteadServer, peer: RegistryPeer, engine: DockerEngine, folder: Path) -> None:
        self._walk, self._peer, self._engine, self._folder = walk, peer, engine, folder
        self._names: dict[str, str] = {}
        self._pulled: dict[str, str] = {}

    def name(self, base: Base) -> str:
        """Return the name of an image, as `library/…`, that the Hub has and nobody else."""
        if base.name not in self._names:
            name = self._names[base.name] = f"library/{base.name}-{uuid4().hex[:8]}"
            pushed = f"{self._peer.host}/{name}"
            base.put(self._engine, pushed, self._folder)
            self._engine.docker("push", pushed)
            self._engine.docker("rmi", pushed)
        return self._names[base.name]

    def pulled(self, base: Base) -> str:
        """Return the same image's name here, pulled."""
        if base.name not in self._pulled:
            image = f"localhost:{self._walk.port}/{self.name(base)}"
            self._engine.docker("pull", image)
            self._pulled[base.name] = image
        return self._pulled[base.name]

    def leave(self) -> None:
        """Remove what was pulled."""
        if self._pulled:
            self._engine.docker("rmi", "--force", *self._pulled.values())


@pytest.fixture(scope="module")
def hub(
    walk: RoadsteadServer,
    registry_peer: RegistryPeer,
    docker_engine: DockerEngine,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Hub]:
    """The Hub of these tests."""
    made = Hub(walk, registry_peer, docker_engine, tmp_path_factory.mktemp("hub"))
    yield made
    made.leave()


@pytest.fixture
def bucket(seaweedfs: SeaweedFS) -> str:
    """A new bucket."""
    return seaweedfs.create_bucket()


def pack(directory: Path, name: str) -> dict[str, Any]:
    """Pack a folder by the command, as NAME.tar.gz beside it, and return what it printed."""
    command = [sys.executable, "-m", "roadstead", "layer", "pack", name, "--output", f"{name}.tar.gz"]
    done = subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=60)
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def ask(walk: RoadsteadServer, directory: Path, request: object) -> str:
    """Ask for a container token by curl, as Wave's users do, and return the image to pull."""
    (directory / "container-request.json").write_text(json.dumps(request))
    curl = require("curl", install="apt-get install curl")
    words = ["-H", "Content-Type: application/json", "-X", "POST", f"http://localhost:{walk.port}/container-token"]
    done = subprocess.run(
        [curl, "--silent", "--show-error", "--fail-with-body", *words, "-d", "@container-request.json"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done
    answer = json.loads(done.stdout)
    image: str = answer["targetImage"]
    assert image.startswith(f"localhost:{walk.port}/wt/{answer['containerToken']}/library/"), image
    return image


def test_by_a_rule(hub: Hub, docker_engine: DockerEngine) -> None:
    """`docker run localhost:PORT/library/busybox cat foo.txt` prints the layer's file, without flags or variables."""
    done = docker_engine.docker("run", "--rm", "--network", "none", hub.pulled(BUSYBOX), "cat", "foo.txt")

    assert done.stdout == FOO


def test_by_a_token(walk: RoadsteadServer, hub: Hub, docker_engine: DockerEngine, tmp_path: Path) -> None:
    """With a layer in the request its file is there, and the rule's isn't; with an image alone it is as at the Hub."""
    name = hub.name(BUSYBOX)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "foo.txt").write_text("Hello from a token\n")
    layer = pack(tmp_path, "mine")
    data = f"data:{b64encode((tmp_path / 'mine.tar.gz').read_bytes()).decode()}"
    config = {"layers": [{**layer, "location": data}]}
    changed = ask(walk, tmp_path, {"containerImage": f"docker.io/{name}:latest", "containerConfig": config})
    plain = ask(walk, tmp_path, {"containerImage": name.removeprefix("library/")})

    words = ("run", "--rm", "--network", "none")
    read = docker_engine.docker(*words, changed, "cat", "foo.txt")
    listed = docker_engine.docker(*words, plain, "ls", "/")

    assert read.stdout == "Hello from a token\n"
    assert "bin" in listed.stdout.split()
    assert not {"foo.txt", "opt"} & set(listed.stdout.split())
    docker_engine.docker("rmi", changed, plain)


# Only the soak run takes GNU's and the image without a library: a tutorial is followed with the one, and nearly all of
# test_s3_mount.py with the other.
@pytest.mark.parametrize(
    "base",
    [BUSYBOX, MUSL, pytest.param(GLIBC, marks=pytest.mark.soak), pytest.param(STATIC, marks=pytest.mark.soak)],
    ids=lambda base: base.name,
)
def test_a_bucket_in_any_image(
    hub: Hub, docker_engine: DockerEngine, seaweedfs: SeaweedFS, bucket: str, base: Base
) -> None:
    """By the image's own programs: the server's objects are listed, one is read, and what is written is there."""
    run = Runner(docker_engine, hub.pulled(base), seaweedfs, bucket)
    run.client.put_object(Bucket=bucket, Key="hello.txt", Body=b"hello from S3\n")
    run.client.put_object(Bucket=bucket, Key="deep/er.txt", Body=b"deep\n")
    folder = f"/fusion/s3/{bucket}"

    listed = run(*base.list(folder), flags=MAY_MOUNT, NXF_FUSION_BUCKETS=f"s3://{bucket}")
    copied = run(*base.copy(f"{folder}/hello.txt", f"{folder}/deep/copy.txt"))

    assert listed.returncode == 0, listed
    assert {"hello.txt", "deep"} <= {line.split()[-1] for line in listed.stdout.splitlines()}
    assert copied.returncode == 0, copied
    assert run.read("deep/copy.txt") == b"hello from S3\n"


@pytest.mark.soak
def test_a_bucket_by_a_token(
    walk: RoadsteadServer,
    hub: Hub,
    registry_peer: RegistryPeer,
    docker_engine: DockerEngine,
    seaweedfs: SeaweedFS,
    bucket: str,
    tmp_path: Path,
) -> None:
    """The layer, too large to go with a request, is named by its address; the image mounts as with the rule."""
    raw = (walk.directory / LAYER).read_bytes()
    with Client(registry_peer.host) as there:
        digest = there.push_blob("layers/s3-mount", raw)
    layer = {
        "location": f"{registry_peer.url}/v2/layers/s3-mount/blobs/{digest}",
        "gzipDigest": str(digest),
        "gzipSize": len(raw),
        "tarDigest": str(Digest.of(gzip.decompress(raw))),
    }
    config = {"layers": [layer], "entrypoint": ["/opt/roadstead/entry"]}
    image = ask(walk, tmp_path, {"containerImage": hub.name(BUSYBOX), "containerConfig": config})
    docker_engine.docker("pull", image)
    run = Runner(docker_engine, image, seaweedfs, bucket)
    run.client.put_object(Bucket=bucket, Key="hello.txt", Body=b"hello from S3\n")

    listed = run("ls", "-la", f"/fusion/s3/{bucket}")

    assert (listed.returncode, listed.stdout.split()[-1]) == (0, "hello.txt"), listed
    docker_engine.docker("rmi", image)


@pytest.mark.soak
def test_by_containerd(walk: RoadsteadServer, hub: Hub, containerd: Containerd) -> None:
    """`ctr` pulls and runs the same image; it takes a command for the whole of it."""
    image = f"localhost:{walk.port}/{hub.name(BUSYBOX)}:latest"
    containerd.ctr("images", "pull", "--plain-http", image)

    done = containerd.ctr("run", "--rm", image, uuid4().hex, "cat", "foo.txt")

    assert done.stdout == FOO
    containerd.ctr("images", "rm", "--sync", image)
