"""The layer that mounts buckets, for arm64: every program of it starts, and a container reads and writes a bucket.

Under qemu's emulator where the machine is another. That is not the processor itself: how fast it is, and what only
hardware does, isn't seen here. Nor are other users than root: the emulator has threads of its own, and the kernel lets
no process with several make a user namespace (unshare(2), EINVAL).
"""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from tests.e2e.mounting import shared_packages
from tests.e2e.test_s3_mount import MAY_MOUNT, Runner
from tests.soak.emulation import arm64_programs, emulator

from roadstead.layers.deb import Package
from roadstead.layers.elf import MACHINES, Program
from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.oci.layer import pack
from roadstead.oci.mediatypes import OCI_CONFIG, OCI_MANIFEST
from roadstead.testing.dockerd import DockerEngine
from roadstead.testing.seaweedfs import SeaweedFS
from roadstead.testing.server import RoadsteadServer

LAYER = "s3-mount-arm64.tar.gz"
CONFIG = f"""
[[augment.rules]]
match = "mounted/*"
layers = [{{ path = "{LAYER}", platform = "linux/arm64" }}]
entrypoint = ["/opt/roadstead/entry"]
"""
PATIENCE = timedelta(minutes=5)
VERSIONS = {"s3fs": "Amazon Simple Storage Service File System", "env": "GNU coreutils", "unshare": "util-linux"}


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layer, made by the command as the page says it."""
    path = tmp_path_factory.mktemp("layer") / LAYER
    command = [sys.executable, "-m", "roadstead", "layer", "s3-mount", "--architecture", "arm64", "--output", str(path)]
    packages = ["--packages", str(shared_packages("arm64"))]
    subprocess.run([*command, *packages], check=True, capture_output=True, timeout=300)
    return path


@pytest.mark.soak
def test_every_program_starts(layer: Path, tmp_path: Path) -> None:
    """All of them are for arm64; the loader finds every library in the layer; each says its version."""
    shutil.unpack_archive(layer, tmp_path, filter="tar")
    home = tmp_path / "opt/roadstead"
    programs = [*(home / "bin").iterdir(), *(home / "lib").iterdir()]
    assert {Program.parse(path.name, path.read_bytes()).machine for path in programs} == {MACHINES["arm64"]}

    def run(*words: str | Path) -> str:
        # Nothing of this machine's own is found where the emulator looks first for what begins with a slash.
        command = [emulator(), "-L", tmp_path, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env={})
        assert done.returncode == 0, (words, done)
        return done.stdout

    loader = (home / "lib/ld.so", "--library-path", home / "lib")
    for name, said in VERSIONS.items():
        listed = run(*loader, "--list", home / "bin" / name)
        found = [line.partition(" => ")[2].partition(" (")[0] for line in listed.splitlines() if " => " in line]
        assert found
        assert {str(Path(path).parent) for path in found} == {str(home / "lib")}, listed
        assert said in run(*loader, home / "bin" / name, "--version")
    assert run(home / "bin/busybox", "echo", "started") == "started\n"
    assert "tini version" in run(home / "bin/tini", "--version")


@pytest.fixture(scope="module")
def image(layer: Path, tmp_path_factory: pytest.TempPathFactory, docker_engine: DockerEngine) -> Iterator[str]:
    """The name of an image for arm64 with busybox alone, pushed and pulled back with the layer."""
    directory = tmp_path_factory.mktemp("mounting-arm64")
    shutil.copy(layer, directory / LAYER)
    [package] = [Package.read(path) for path in shared_packages("arm64").glob("busybox-static_*.deb")]
    busybox = package.find("bin/busybox") or package.find("usr/bin/busybox")
    assert busybox is not None
    root = directory / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/busybox").write_bytes(busybox)
    (root / "bin/busybox").chmod(0o755)
    with RoadsteadServer(directory, config=CONFIG, workers=1) as server, arm64_programs():
        repository = f"mounted/{uuid4().hex[:12]}"
        push(server, repository, root)
        name = f"{server.host}/{repository}:1"
        docker_engine.docker("pull", "--platform", "linux/arm64", name)
        yield name
        docker_engine.docker("rmi", "--force", name)


def push(server: RoadsteadServer, repository: str, root: Path) -> None:
    """Push an image for arm64 of what is in a folder; Docker's own import makes them for this machine alone."""
    content = io.BytesIO()
    packed = pack(root, content)
    rootfs = {"type": "layers", "diff_ids": [str(packed.tar_digest)]}
    config = json.dumps({"architecture": "arm64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    descriptors = [Descriptor(OCI_CONFIG, Digest.of(config), len(config)).as_json(), packed.descriptor().as_json()]
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptors[0], "layers": descriptors[1:]}
    client = server.client()
    for data in (config, content.getvalue()):
        client.push_blob(repository, data)
    client.push_manifest(repository, "1", json.dumps(manifest).encode(), OCI_MANIFEST)


@pytest.mark.soak
@pytest.mark.parametrize("flags", [(), ("--read-only",)])
def test_a_container_reads_and_writes_a_bucket(
    image: str, docker_engine: DockerEngine, seaweedfs: SeaweedFS, flags: tuple[str, ...]
) -> None:
    """The entry mounts, the program sees files, and what it writes is in the bucket when it has ended, as it likes."""
    bucket = seaweedfs.create_bucket()
    run = Runner(docker_engine, image, seaweedfs, bucket)
    run.client.put_object(Bucket=bucket, Key="hello.txt", Body=b"hello from S3\n")
    steps = ("/bin/busybox uname -m", "cat hello.txt", "echo one >new.txt", "echo two >>new.txt", "exit 3")
    script = " && ".join((f"cd /fusion/s3/{bucket}", *steps))
    arguments = run.arguments((*MAY_MOUNT, *flags, "--platform", "linux/arm64"), {"ROADSTEAD_S3_TIMEOUT_S": "200"})

    done = docker_engine.docker(
        "run", "--rm", *arguments, "/bin/busybox", "sh", "-c", script, check=False, timeout=PATIENCE
    )

    assert (done.returncode, done.stdout, done.stderr) == (3, "aarch64\nhello from S3\n", ""), done
    assert run.read("new.txt") == b"one\ntwo\n"
