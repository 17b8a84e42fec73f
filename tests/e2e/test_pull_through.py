"""Engines and tools pull Docker Hub's images from us, as a mirror or by our name; the Hub is a registry of Debian's."""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from tests.e2e.containers import Containers
from tests.integration.test_proxy import ACCEPT, push

from roadstead.testing.containerd import Containerd
from roadstead.testing.dockerd import DockerEngine, open_own_engine
from roadstead.testing.go_clients import CRANE, find_or_build
from roadstead.testing.images import TestImage, TestIndex, make_attestation, make_image, make_index
from roadstead.testing.registry_peer import RegistryPeer
from roadstead.testing.server import RoadsteadServer

CONFIG = """
[[upstreams]]
host = "docker.io"
url = "URL"
default_for = ["library/*"]
platforms = []

[[augment.rules]]
match = "docker.io/library/*:added"
env = ["ADDED=yes"]
"""
PLATFORMS = ("linux/amd64", "linux/arm64", "linux/s390x")


@dataclass(frozen=True, slots=True)
class Hub:
    """An image of several platforms at the upstream, as `docker.io/library/…:1` and, added to by a rule, `:added`."""

    server: RoadsteadServer
    name: str
    images: tuple[TestImage, ...]

    def image(self, platform: str) -> TestImage:
        """Return the image of a platform."""
        return self.images[PLATFORMS.index(platform)]

    def config_digest(self, tag: str, platform: str) -> str:
        """Return the digest of the config that a platform's image is served with."""
        path = f"/v2/docker.io/library/{self.name}/manifests"
        client = self.server.client()
        for entry in client.get(f"{path}/{tag}", ACCEPT).json()["manifests"]:
            if entry["platform"]["architecture"] == platform.partition("/")[2]:
                return str(client.get(f"{path}/{entry['digest']}", ACCEPT).json()["config"]["digest"])
        raise AssertionError(f"{tag} has no {platform}")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, registry_peer: RegistryPeer) -> Iterator[RoadsteadServer]:
    """The server that all tests here share."""
    config = CONFIG.replace("URL", registry_peer.url)
    with RoadsteadServer(tmp_path_factory.mktemp("proxy"), config=config, workers=1) as server:
        yield server


@pytest.fixture
def hub(proxy: RoadsteadServer, registry_peer: RegistryPeer) -> Hub:
    """An image that nobody has pulled yet."""
    name = uuid4().hex[:12]
    images = tuple(make_image(platform=platform, seed=f"{name}{platform}") for platform in PLATFORMS)
    index: TestIndex = make_index([*images, *(make_attestation(image) for image in images)])
    for tag in ("1", "added"):
        push(registry_peer.host, f"library/{name}", index, tag)
    return Hub(proxy, name, images)


def test_containerd_by_its_mirrors(hub: Hub, containerd: Containerd, tmp_path: Path) -> None:
    """`hosts.toml` for docker.io names us: `ctr` asks with `?ns=`, gets its platform, and never asks the Hub."""
    folder = tmp_path / "docker.io"
    folder.mkdir()
    (folder / "hosts.toml").write_text(
        f'server = "https://registry-1.docker.io"\n[host."{hub.server.url}"]\n  capabilities = ["pull", "resolve"]\n'
    )
    for tag in ("1", "added"):
        image = f"docker.io/library/{hub.name}:{tag}"
        containerd.ctr("images", "pull", "--hosts-dir", str(tmp_path), "--platform", "linux/arm64", image)
        held = containerd.ctr("content", "ls", "--quiet").stdout.split()
        assert str(hub.image("linux/arm64").layers[0].digest) in held, tag
        assert str(hub.image("linux/amd64").layers[0].digest) not in held, tag
        config = hub.config_digest(tag, "linux/arm64")
        assert config in held, tag
        assert ('"ADDED=yes"' in containerd.ctr("content", "get", config).stdout) is (tag == "added"), tag
        containerd.ctr("images", "rm", "--sync", image)


def test_podman_by_its_mirrors(hub: Hub, containers: Containers, tmp_path: Path) -> None:
    """`registries.conf` names us as a mirror of docker.io; the image has the Hub's name afterwards."""
    (tmp_path / "registries.conf").write_text(
        'unqualified-search-registries = []\n[[registry]]\nprefix = "docker.io"\nlocation = "docker.io"\n'
        f'[[registry.mirror]]\nlocation = "{hub.server.host}/docker.io"\ninsecure = true\n'
    )
    for tag in ("1", "added"):
        image = f"docker.io/library/{hub.name}:{tag}"
        containers.run("podman", "pull", "--arch", "arm64", image)
        [seen] = json.loads(containers.run("podman", "image", "inspect", image))
        assert (seen["Architecture"], seen["RepoTags"]) == ("arm64", [image])
        assert ("ADDED=yes" in (seen["Config"].get("Env") or [])) is (tag == "added")


def test_docker_by_its_mirrors(hub: Hub) -> None:
    """`registry-mirrors` of the daemon names us: `docker pull NAME` gets the Hub's image here."""
    with open_own_engine(mirror=hub.server.url) as engine:
        engine.docker("pull", "--platform", "linux/arm64", f"{hub.name}:1")
        seen = engine.docker("image", "inspect", "--format", "{{.Architecture}} {{.RepoTags}}", f"{hub.name}:1")
    assert seen.stdout.split() == ["arm64", f"[{hub.name}:1]"]


def test_docker_by_our_name(hub: Hub, docker_engine: DockerEngine) -> None:
    """Short and long names are the same image, of the platform that is asked for, with what the rule adds."""
    names = [f"{hub.server.host}/{path}/{hub.name}" for path in ("library", "docker.io", "docker.io/library")]
    try:
        for name in names:
            docker_engine.docker("pull", "--platform", "linux/arm64", f"{name}:added")
        seen = docker_engine.docker(
            "image", "inspect", "--format", "{{.Architecture}} {{.Config.Env}} {{.Id}}", *(f"{n}:added" for n in names)
        )
        lines = seen.stdout.splitlines()
        assert len(set(lines)) == 1
        assert lines[0].startswith("arm64 [")
        assert "ADDED=yes" in lines[0]
    finally:
        docker_engine.docker("rmi", "--force", *(f"{name}:added" for name in names), check=False)


def _skopeo(containers: Containers, image: str, platform: str) -> str:
    words = ("inspect", "--config", "--tls-verify=false", "--override-arch", platform.partition("/")[2])
    return containers.run("skopeo", *words, f"docker://{image}")


def _crane(_: Containers, image: str, platform: str) -> str:
    command = [str(find_or_build(CRANE)), "config", "--platform", platform, image]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("config", [_skopeo, _crane])
def test_tools_get_each_platform(
    hub: Hub, containers: Containers, config: Callable[[Containers, str, str], str]
) -> None:
    """Of an index as it is, and of one that a rule adds to."""
    for tag in ("1", "added"):
        for platform in PLATFORMS[1:]:
            got = json.loads(config(containers, f"{hub.server.host}/docker.io/library/{hub.name}:{tag}", platform))
            assert got["architecture"] == platform.partition("/")[2]
            assert ("ADDED=yes" in got["config"].get("Env", [])) is (tag == "added")


def test_attestations_come_along(hub: Hub, containers: Containers, tmp_path: Path) -> None:
    """`skopeo copy --all` brings what speaks of each platform's image, also where a rule adds to them."""
    for tag in ("1", "added"):
        target = tmp_path / tag
        source = f"docker://{hub.server.host}/docker.io/library/{hub.name}:{tag}"
        containers.run("skopeo", "copy", "--all", "--src-tls-verify=false", source, f"dir:{target}")
        entries = json.loads((target / "manifest.json").read_bytes())["manifests"]
        kinds = sorted(entry["platform"]["architecture"] for entry in entries)
        assert kinds == ["amd64", "arm64", "s390x", "unknown", "unknown", "unknown"], tag
