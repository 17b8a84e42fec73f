"""The main job with podman, skopeo and buildah, which share a library but not their habits."""

import json
import tarfile
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import pytest
from tests.e2e.conftest import GREETING
from tests.e2e.containers import APT, Containers

from roadstead.testing.components import require
from roadstead.testing.images import make_image, make_index
from roadstead.testing.server import RoadsteadServer


@pytest.fixture
def name() -> str:
    """A repository of this test's own, below the rule's names."""
    return f"augmented/{uuid4().hex[:12]}"


def _root_archive(path: Path) -> Path:
    busybox = require("busybox", install=APT)
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("bin/busybox")
        member.mode = 0o755
        member.size = busybox.stat().st_size
        archive.addfile(member, BytesIO(busybox.read_bytes()))
    return path


def test_buildah_pushes_podman_pulls_and_the_file_is_there(
    greeter: RoadsteadServer, containers: Containers, name: str, tmp_path: Path
) -> None:
    """Built from scratch, pushed, pulled again with the layers, run: the file is printed."""
    archive = _root_archive(tmp_path / "root.tar")
    container = containers.run("buildah", "from", "scratch").strip()
    containers.run("buildah", "add", container, str(archive), "/")
    containers.run("buildah", "commit", container, "built")
    containers.run("buildah", "rm", container)
    containers.run("buildah", "push", "--tls-verify=false", "built", f"docker://{greeter.host}/{name}:1")

    containers.run("podman", "pull", "--tls-verify=false", f"{greeter.host}/{name}:1")
    pulled = containers.run("buildah", "from", "--pull-never", f"{greeter.host}/{name}:1").strip()
    # A chroot runs wherever the tests do; podman's own runtimes want more of the kernel's cgroups than a sandbox has.
    printed = containers.run("buildah", "run", "--isolation", "chroot", pulled, "/bin/busybox", "cat", "/greeting.txt")
    containers.run("buildah", "rm", pulled)

    assert printed == GREETING


def test_skopeo_copies_every_platform_augmented_and_the_original_as_it_was(
    greeter: RoadsteadServer, containers: Containers, name: str, tmp_path: Path
) -> None:
    """By tag all platforms carry the layers; below `as-pushed/` the index is the one that was pushed, to the byte."""
    client = greeter.client()
    index = make_index([make_image(platform="linux/amd64"), make_image(platform="linux/arm64", seed=2)])
    for image in index.children:
        for blob in image.blobs.values():
            client.push_blob(name, blob)
        client.push_manifest(name, str(image.digest), image.raw, image.media_type)
    client.push_manifest(name, "multi", index.raw, index.media_type)
    plain, augmented = tmp_path / "plain", tmp_path / "augmented"

    for source, target in ((f"as-pushed/{name}", plain), (name, augmented)):
        containers.run(
            "skopeo",
            "copy",
            "--all",
            "--src-tls-verify=false",
            f"docker://{greeter.host}/{source}:multi",
            f"dir:{target}",
        )

    assert (plain / "manifest.json").read_bytes() == index.raw
    entries = json.loads((augmented / "manifest.json").read_bytes())["manifests"]
    assert [entry["platform"]["architecture"] for entry in entries] == ["amd64", "arm64"]
    for entry, image in zip(entries, index.children, strict=True):
        child = json.loads((augmented / f"{entry['digest'].partition(':')[2]}.manifest.json").read_bytes())
        assert len(child["layers"]) == len(image.layers) + 2
        config = json.loads((augmented / child["config"]["digest"].partition(":")[2]).read_bytes())
        assert len(config["rootfs"]["diff_ids"]) == len(child["layers"])
        assert "GREETED_BY=roadstead" in config["config"]["Env"]


def test_skopeo_lists_and_deletes(greeter: RoadsteadServer, containers: Containers, name: str) -> None:
    """Deleting what a tag shows deletes the source it was made from: nothing is left under the name."""
    client = greeter.client()
    image = make_image()
    for blob in image.blobs.values():
        client.push_blob(name, blob)
    client.push_manifest(name, "1", image.raw, image.media_type)
    reference = f"docker://{greeter.host}/{name}"
    listed = json.loads(containers.run("skopeo", "list-tags", "--tls-verify=false", reference))
    assert listed["Tags"] == ["1"]

    containers.run("skopeo", "delete", "--tls-verify=false", f"{reference}:1")

    assert client.head(f"/v2/{name}/manifests/1").status == 404
    assert client.head(f"/v2/as-pushed/{name}/manifests/{image.digest}").status == 404
