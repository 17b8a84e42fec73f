"""The main job with the real engine: push, pull with a layer added on the way, run."""

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest
from tests.e2e.conftest import GREETING

from roadstead.testing.dockerd import DockerEngine
from roadstead.testing.server import RoadsteadServer

BUSYBOX = ("/bin/busybox",)


@pytest.fixture
def pushed(greeter: RoadsteadServer, docker_engine: DockerEngine) -> Iterator[str]:
    """The name, without its tag, of an image that was pushed as `:1` and is no longer on the engine."""
    name = f"{greeter.host}/augmented/{uuid4().hex[:12]}"
    docker_engine.import_busybox(f"{name}:1")
    docker_engine.docker("push", f"{name}:1")
    docker_engine.docker("rmi", f"{name}:1")
    yield name
    images = docker_engine.docker("images", "--quiet", "--no-trunc", name).stdout.split()
    if images:
        docker_engine.docker("rmi", "--force", *set(images))


def _run(engine: DockerEngine, image: str, *command: str) -> str:
    return engine.docker("run", "--rm", "--network", "none", image, *command).stdout


def _digest(server: RoadsteadServer, name: str, reference: str) -> str:
    path = f"/v2/{name.partition('/')[2]}/manifests/{reference}"
    return server.client().head(path).headers["docker-content-digest"]


def _original_digest(server: RoadsteadServer, name: str) -> str:
    return server.client().head(f"/v2/as-pushed/{name.partition('/')[2]}/manifests/1").headers["docker-content-digest"]


def test_a_pulled_image_has_the_layers_of_its_rule(
    greeter: RoadsteadServer, docker_engine: DockerEngine, pushed: str
) -> None:
    """Push, pull, run: the files of both layers are there, with the environment and directory of the rule."""
    docker_engine.docker("pull", f"{pushed}:1")

    assert _run(docker_engine, f"{pushed}:1", *BUSYBOX, "cat", "/greeting.txt") == GREETING
    assert _run(docker_engine, f"{pushed}:1", *BUSYBOX, "cat", "/opt/more.txt") == "more\n"
    assert _run(docker_engine, f"{pushed}:1", *BUSYBOX, "sh", "-c", "echo $GREETED_BY; pwd") == "roadstead\n/opt\n"
    assert _run(docker_engine, f"{pushed}:1") == "roadstead\n", "its own command still runs"


def test_by_digest_and_as_pushed_it_is_the_original(
    greeter: RoadsteadServer, docker_engine: DockerEngine, pushed: str
) -> None:
    """By the digest that was pushed, and below `as-pushed/`, nothing was added."""
    original = _original_digest(greeter, pushed)
    host, _, path = pushed.partition("/")
    assert _digest(greeter, pushed, "1") != original

    for image in (f"{pushed}@{original}", f"{host}/as-pushed/{path}:1"):
        docker_engine.docker("pull", image)
        listed = _run(docker_engine, image, *BUSYBOX, "ls", "/")
        assert "greeting.txt" not in listed
        docker_engine.docker("rmi", image)


def test_the_served_digest_pulls_again(greeter: RoadsteadServer, docker_engine: DockerEngine, pushed: str) -> None:
    """What a pull by tag gave is found under its own digest, as Swarm and Kubernetes will ask for it."""
    docker_engine.docker("pull", f"{pushed}:1")
    inspected = json.loads(docker_engine.docker("image", "inspect", f"{pushed}:1").stdout)[0]
    by_digest = inspected["RepoDigests"][0]
    assert by_digest.rpartition("@")[2] == _digest(greeter, pushed, "1")
    docker_engine.docker("rmi", f"{pushed}:1")

    docker_engine.docker("pull", by_digest)

    assert _run(docker_engine, by_digest, *BUSYBOX, "cat", "/greeting.txt") == GREETING


def test_an_augmented_image_is_not_augmented_again(
    greeter: RoadsteadServer, docker_engine: DockerEngine, pushed: str
) -> None:
    """Pull, tag, push, pull: the image that comes back is the one that went, with no layer twice."""
    docker_engine.docker("pull", f"{pushed}:1")
    before = json.loads(docker_engine.docker("image", "inspect", f"{pushed}:1").stdout)[0]
    docker_engine.docker("tag", f"{pushed}:1", f"{pushed}:2")
    docker_engine.docker("push", f"{pushed}:2")
    docker_engine.docker("rmi", f"{pushed}:1", f"{pushed}:2")

    docker_engine.docker("pull", f"{pushed}:2")

    after = json.loads(docker_engine.docker("image", "inspect", f"{pushed}:2").stdout)[0]
    assert after["RootFS"]["Layers"] == before["RootFS"]["Layers"]
    assert after["Config"]["Env"] == before["Config"]["Env"]
    assert _digest(greeter, pushed, "2") == _digest(
        greeter, f"{pushed.partition('/')[0]}/as-pushed/{pushed.partition('/')[2]}", "2"
    )


def test_an_entrypoint_of_a_rule_wraps_the_command(greeter: RoadsteadServer, docker_engine: DockerEngine) -> None:
    """The rule's entrypoint runs in front of the image's own command."""
    image = f"{greeter.host}/wrapped/{uuid4().hex[:12]}:1"
    docker_engine.import_busybox(image)
    docker_engine.docker("push", image)
    docker_engine.docker("rmi", image)

    docker_engine.docker("pull", image)

    assert _run(docker_engine, image, "as", "asked") == "wrapped: as asked\n"
    docker_engine.docker("rmi", image)


def test_an_image_no_rule_matches_comes_back_as_it_went(greeter: RoadsteadServer, docker_engine: DockerEngine) -> None:
    """The same image id, without a change."""
    image = f"{greeter.host}/plain/{uuid4().hex[:12]}:1"
    built = docker_engine.import_busybox(image)
    docker_engine.docker("push", image)
    docker_engine.docker("rmi", image)

    docker_engine.docker("pull", image)

    assert docker_engine.docker("image", "inspect", "--format", "{{.Id}}", image).stdout.strip() == built
    docker_engine.docker("rmi", image)
