"""Images in files, written by the tools that people have, brought in by the command, and pulled again."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
import zstandard
from tests.e2e.containers import Containers
from tests.integration.adoption import ACCEPT, findings, import_tree, push

from roadstead.oci.digest import Digest
from roadstead.oci.mediatypes import OCI_LAYER_TAR
from roadstead.testing.client import Client
from roadstead.testing.containerd import open_containerd
from roadstead.testing.dockerd import DockerEngine
from roadstead.testing.images import make_image, make_index
from roadstead.testing.layouts import layout_files, pack_layout
from roadstead.testing.registry_peer import open_registry_peer
from roadstead.testing.server import RoadsteadServer

LAYER_BYTES = 256 << 20


def bring(*arguments: str | Path, check: bool = True) -> dict:
    """Run ``roadstead import`` and return its report."""
    return import_tree(*map(str, arguments), check=check)


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    """podman and skopeo with a storage of their own."""
    (tmp_path / "tools").mkdir()
    clients = Containers(tmp_path / "tools")
    yield clients
    clients.run("buildah", "rmi", "--all", "--force")


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files by name."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def pulled_id(engine: DockerEngine, name: str) -> str:
    """Pull an image and return its id."""
    engine.docker("pull", name)
    return engine.docker("image", "inspect", "--format", "{{.Id}}", name).stdout.strip()


@pytest.mark.parametrize("kind", ["tar", "gz", "zst"])
def test_docker_save_while_the_server_runs(tmp_path: Path, docker_engine: DockerEngine, kind: str) -> None:
    """Two images that share a layer, one under two names: the server answers at once, and the ids are the same."""
    base, app = f"team/base-{kind}:1", f"team/app-{kind}:1"
    base_id = docker_engine.import_busybox(base)
    (tmp_path / "Dockerfile").write_text(f'FROM {base}\nRUN ["/bin/busybox", "touch", "/made"]\nENV A=B\n')
    docker_engine.docker("build", "--network=none", "-t", app, str(tmp_path))
    app_id = docker_engine.docker("image", "inspect", "--format", "{{.Id}}", app).stdout.strip()
    docker_engine.docker("tag", app, f"example.com/team/other-{kind}:2")
    saved = tmp_path / "saved.tar"
    docker_engine.docker("save", "-o", str(saved), base, app, f"example.com/team/other-{kind}:2")
    docker_engine.docker("rmi", "--force", base, app, f"example.com/team/other-{kind}:2")
    if kind != "tar":
        compress = gzip.compress if kind == "gz" else zstandard.compress
        saved.write_bytes(compress(saved.read_bytes()))

    with RoadsteadServer(tmp_path / "server") as server:
        report = bring(saved, "--data", server.data)
        names = [f"{server.host}/{name}" for name in (base, app, f"team/other-{kind}:2")]
        ids = [pulled_id(docker_engine, name) for name in names]
        docker_engine.docker("rmi", "--force", *names)

    assert ids == [base_id, app_id, app_id]
    assert report["findings"] == []
    assert {f"{image['repository']}:{image['tag']}" for image in report["images"]} == {
        base, app, f"team/other-{kind}:2"}  # fmt: skip


def test_docker_save_before_the_server_starts(tmp_path: Path, docker_engine: DockerEngine) -> None:
    """Its data directory is made where there is none; the links are written, so that distribution could serve it."""
    name = "team/early:1"
    image_id = docker_engine.import_busybox(name)
    saved, data = tmp_path / "saved.tar", tmp_path / "server" / "data"
    docker_engine.docker("save", "-o", str(saved), name)
    docker_engine.docker("rmi", name)

    first, again = bring(saved, "--data", data), bring(saved, "--data", data)
    with RoadsteadServer(tmp_path / "server") as server:
        assert pulled_id(docker_engine, f"{server.host}/{name}") == image_id
        docker_engine.docker("rmi", f"{server.host}/{name}")
    with open_registry_peer(data) as peer, closing(Client(peer.host)) as client:
        answer = client.get("/v2/team/early/manifests/1", ACCEPT)

    assert (first["blobs"], again["blobs"], again["blobs_there"]) == (2, 0, 2)
    assert answer.headers["docker-content-digest"] == first["images"][0]["digest"]
    assert [layer["mediaType"] for layer in answer.json()["layers"]] == [OCI_LAYER_TAR]


def test_what_skopeo_and_podman_write(tmp_path: Path, containers: Containers) -> None:
    """Docker archives, layouts and their archives, all made of one image: its config is the same everywhere."""
    image = make_image(seed="tools", layers=2)
    write(containers.directory / "layout", layout_files([(image, {"org.opencontainers.image.ref.name": "1"})]))
    copies = {
        "oci:copy:1": "copy",
        "oci:named:team/named:1": "named",
        "oci-archive:oci.tar:team/oci:1": "oci.tar",
        "docker-archive:docker.tar:team/docker:1": "docker.tar",
    }
    for target in copies:
        containers.run("skopeo", "copy", "--quiet", "oci:layout:1", target)
    containers.run("podman", "load", "--quiet", "--input", "docker.tar")
    for form in ("docker-archive", "oci-archive"):
        saved = f"podman-{form}.tar"
        containers.run("podman", "save", "--quiet", "--format", form, "-o", saved, "docker.io/team/docker:1")
    wanted = {
        "copy": ("team/copy", ["--repository", "team/copy"]),
        "named": ("team/named", []),
        "oci.tar": ("team/oci", []),
        "docker.tar": ("team/docker", []),
        "podman-docker-archive.tar": ("team/podman", ["--repository", "team/podman"]),
        "podman-oci-archive.tar": ("team/podman-oci", ["--repository", "team/podman-oci"]),
    }

    with RoadsteadServer(tmp_path / "server") as server, closing(Client(server.host)) as client:
        for source, (repository, options) in wanted.items():
            report = bring(containers.directory / source, "--data", server.data, *options)
            assert report["findings"] == [], source
            assert [one["repository"] for one in report["images"]] == [repository], source
            answer = client.get(f"/v2/{repository}/manifests/1")
            assert answer.json()["config"]["digest"] == str(image.config_digest), source
            if source in ("copy", "named", "oci.tar"):
                assert answer.headers["docker-content-digest"] == str(image.digest)
        containers.run("skopeo", "copy", "--quiet", "--src-tls-verify=false",
                       f"docker://{server.host}/team/docker:1", "oci:back:1")  # fmt: skip
    assert (containers.directory / f"back/blobs/sha256/{image.config_digest.encoded}").read_bytes() == image.config


def test_what_containerd_exports(tmp_path: Path) -> None:
    """A layout with Docker's list beside it, as Docker 25 saves too: the manifests' exact bytes are kept."""
    images = [make_image(seed=name, platform=f"linux/{name}") for name in ("amd64", "arm64")]
    index = make_index(images)
    name = "registry.example.com/team/app:1"
    folder = tmp_path / "layout"
    write(folder, layout_files([(index, {"io.containerd.image.name": name})]))
    pack_layout(folder, tmp_path / "in.tar")
    with open_containerd() as daemon:
        daemon.ctr("images", "import", "--all-platforms", "--no-unpack", str(tmp_path / "in.tar"))
        daemon.ctr("images", "export", "--all-platforms", str(tmp_path / "all.tar"), name)
        daemon.ctr("images", "export", "--platform", "linux/amd64", str(tmp_path / "one.tar"), name)
    with tarfile.open(tmp_path / "all.tar") as tar:
        assert {"index.json", "manifest.json", "oci-layout"} <= set(tar.getnames())

    everything = bring(tmp_path / "all.tar", "--data", tmp_path / "data")
    one = bring(tmp_path / "one.tar", "--data", tmp_path / "data", "--repository", "team/one")

    assert everything["images"] == [{"repository": "team/app", "tag": "1", "digest": str(index.digest)}]
    assert one["images"] == [{"repository": "team/one", "tag": "1", "digest": str(images[0].digest)}]
    assert findings(one).keys() <= {"partial"}


def test_a_layout_of_distributions_images(tmp_path: Path, containers: Containers) -> None:
    """``skopeo copy --all`` from a registry into a folder, and from the folder to us: the same digests."""
    index = make_index([make_image(seed="a"), make_image(seed="b", platform="linux/arm64")])
    with open_registry_peer(tmp_path / "peer") as peer, closing(Client(peer.host)) as client:
        push(client, "team/app", index, "1")
        containers.run("skopeo", "copy", "--quiet", "--all", "--src-tls-verify=false",
                       f"docker://{peer.host}/team/app:1", "oci:all:1")  # fmt: skip

    report = bring(containers.directory / "all", "--data", tmp_path / "data", "--repository", "team/app")

    assert report["images"] == [{"repository": "team/app", "tag": "1", "digest": str(index.digest)}]


def test_what_a_source_is_can_be_said(tmp_path: Path) -> None:
    """A folder that is two things has to be named; options of the one kind are refused for the other."""
    image = make_image(seed="both")
    folder = tmp_path / "both"
    write(folder, layout_files([(image, {"org.opencontainers.image.ref.name": "app:1"})]))
    (folder / "docker/registry/v2/repositories").mkdir(parents=True)

    unclear = bring(folder, "--data", tmp_path / "data", check=False)
    named = bring(folder, "--data", tmp_path / "data", "--as", "oci-layout")
    wrong = bring(folder, "--as", "distribution", "--repository", "x", check=False)
    missing = bring(tmp_path / "none.tar", "--data", tmp_path / "data", check=False)

    assert (unclear["status"], wrong["status"], missing["status"]) == (1, 2, 1)
    assert "--as distribution or --as oci-layout" in " ".join(unclear["error"].split())
    assert "none.tar is not there" in missing["error"]
    assert [one["repository"] for one in named["images"]] == ["library/app"]


def test_no_registry_is_made_where_nobody_named_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images would lie where no server looks; a registry that is there, or that settings name, gets them."""
    image = make_image(seed="nowhere")
    write(tmp_path / "layout", layout_files([(image, {"org.opencontainers.image.ref.name": "app:1"})]))
    (tmp_path / "named.toml").write_text('[storage]\npath = "named"\n')
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")

    refused = bring(tmp_path / "layout", check=False)
    left = list(Path().iterdir())
    named = bring(tmp_path / "layout", "--config", tmp_path / "named.toml")
    Path("roadstead-data").mkdir()
    there = bring(tmp_path / "layout")

    assert refused["status"] == 1
    assert "--data DIR" in refused["error"]
    assert left == []
    assert len(named["images"]) == len(there["images"]) == 1
    assert (tmp_path / "named" / "roadstead.db").exists()


def test_what_does_not_come_whole_fails(tmp_path: Path) -> None:
    """Status 1, and the report on standard output all the same."""
    image = make_image(seed="damaged")
    files = layout_files([(image, {"org.opencontainers.image.ref.name": "app:1"})], without=[image.config_digest])
    write(tmp_path / "layout", files)

    done = subprocess.run(
        [sys.executable, "-m", "roadstead", "import", str(tmp_path / "layout"), "--data", str(tmp_path / "data")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "images of which something is missing, left out: 1" in done.stdout
    assert str(image.config_digest) in done.stdout


def test_names_that_mean_something_else(tmp_path: Path) -> None:
    """Images that nobody could pull are left out, with the reason; what hides an upstream's comes, and is told."""
    image = make_image(seed="collides")
    write(tmp_path / "layout", layout_files([(image, {"org.opencontainers.image.ref.name": "library/app:1"})]))
    config = tmp_path / "roadstead.toml"
    config.write_text('[[upstreams]]\nhost = "up.example"\ndefault_for = ["library/*"]\n')
    into = (tmp_path / "layout", "--config", config, "--data", tmp_path / "data")

    hides = bring(*into)
    taken = bring(*into, "--repository", "up.example/team/app", check=False)

    assert [one["repository"] for one in hides["images"]] == ["library/app"]
    (told,) = hides["findings"]
    assert told["finding"] == "shadowing"
    assert told["first"][0].startswith("library/app: it is among the names that the upstream up.example")
    assert taken["images"] == []
    assert "nobody could pull up.example/team/app" in taken["findings"][0]["first"][0]


def test_images_join_a_tree_without_a_database(tmp_path: Path) -> None:
    """The database is built from the tree first: with one image in it, it would never learn of the others."""
    with open_registry_peer(tmp_path / "root") as peer, closing(Client(peer.host)) as client:
        image = make_image(seed="theirs")
        push(client, "team/theirs", image, "1")
    ours = make_image(seed="ours")
    write(tmp_path / "layout", layout_files([(ours, {"org.opencontainers.image.ref.name": "team/ours:1"})]))

    bring(tmp_path / "layout", "--data", tmp_path / "root")

    config = f'[storage]\npath = "{tmp_path}/root"\n'
    with RoadsteadServer(tmp_path / "server", config=config) as server, closing(Client(server.host)) as client:
        assert client.get("/v2/team/theirs/manifests/1").headers["docker-content-digest"] == str(image.digest)
        assert client.get("/v2/team/ours/manifests/1").headers["docker-content-digest"] == str(ours.digest)


_MEASURED = """
import resource, sys
from roadstead.cli.main import app
try:
    app(["import", *sys.argv[1:], "--json"])
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def test_memory_stays_flat(tmp_path: Path) -> None:
    """A layer of 256 MiB takes no more memory than one of a few bytes."""
    peaks = []
    for number, size in enumerate((1 << 10, LAYER_BYTES)):
        archive = tmp_path / f"{number}.tar"
        write_archive(archive, size)
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED, str(archive), "--data", str(tmp_path / "data")],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout)["findings"] == []
        peaks.append(int(done.stderr.split()[-1]))

    print(f"\nimport of a layer of {LAYER_BYTES >> 20} MiB: {peaks[1] >> 10} MiB, of 1 KiB: {peaks[0] >> 10} MiB")
    assert peaks[1] < peaks[0] + 32 * 1024


def write_archive(path: Path, size: int) -> None:
    """Write an archive with one layer: a tar with one file of zeros."""
    layer = path.with_suffix(".layer")
    with tarfile.open(layer, "w") as tar, (path.parent / "zeros").open("wb+") as zeros:
        zeros.truncate(size)
        member = tarfile.TarInfo("zeros")
        member.size = size
        tar.addfile(member, zeros)
    with layer.open("rb") as file:
        diff_id = _digest(file)
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}})
    name = f"{Digest.of(config.encode()).encoded}.json"
    listed = json.dumps([{"Config": name, "RepoTags": [f"team/{path.stem}:1"], "Layers": ["layer.tar"]}])
    (path.parent / "config").write_text(config)
    (path.parent / "list").write_text(listed)
    with tarfile.open(path, "w") as tar:
        tar.add(layer, "layer.tar")
        tar.add(path.parent / "config", name)
        tar.add(path.parent / "list", "manifest.json")


def _digest(file) -> str:
    return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
