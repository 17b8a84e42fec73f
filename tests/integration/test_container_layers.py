"""Layers of tokens that lie elsewhere: fetched when the token is asked for, with the rights of who asks."""

import random
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.integration.container_api import ask, asked, layer_object, pulled, push
from typer.testing import CliRunner

from roadstead.cli.main import app
from roadstead.testing.client import Client
from roadstead.testing.images import make_image, make_layer
from roadstead.testing.registry_peer import RegistryPeer
from roadstead.testing.server import RoadsteadServer

LAYER = make_layer({"foo.txt": b"from elsewhere\n"})
IMAGE = make_image(seed="elsewhere")
TOOLS = make_image(layers=2, seed="tools")
CONFIG = """
[augment]
location_hosts = ["PEER"]

[auth]
accounts = true

[[auth.policies]]
subjects = ["anonymous"]
repositories = ["team/*", "up.example/tools/*"]
actions = ["pull", "push", "augment"]

[[auth.policies]]
subjects = ["anonymous"]
repositories = ["kept/*"]
actions = ["push"]

[[upstreams]]
host = "up.example"
url = "http://PEER"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, registry_peer: RegistryPeer) -> Iterator[RoadsteadServer]:
    """A server whose visitors may pull some repositories, here and of an upstream, and not others."""
    with Client(registry_peer.host) as there:
        for name in ("tools/layers", "secret/layers"):
            there.push_blob(name, LAYER.raw)
            push(there, name, TOOLS, "1")
    with RoadsteadServer(tmp_path_factory.mktemp("elsewhere"), config=CONFIG.replace("PEER", registry_peer.host)) as on:
        push(on.client(), "team/app", IMAGE, "1")
        yield on


@pytest.fixture
def client(server: RoadsteadServer) -> Iterator[Client]:
    """A connection of the test's own."""
    with Client(server.host) as client:
        yield client


def wanted(location: str, **changed: object) -> Mapping[str, Any]:
    layers = [layer_object(LAYER, location=location, **changed)]
    return {"containerImage": "team/app:1", "containerConfig": {"layers": layers}}


@pytest.mark.parametrize(
    "location",
    [
        f"http://PEER/v2/tools/layers/blobs/{LAYER.digest}",
        f"docker://PEER/tools/layers@{LAYER.digest}",
        f"docker://PEER/v2/tools/layers/blobs/{LAYER.digest}",
        f"docker://up.example/tools/layers@{LAYER.digest}",
    ],
)
def test_a_layer_that_lies_elsewhere(client: Client, registry_peer: RegistryPeer, location: str) -> None:
    """By an address, as a blob of a registry, and as one of an upstream: the image that is pulled has it."""
    answer = asked(client, wanted(location.replace("PEER", registry_peer.host)))
    _, layers = pulled(client, answer["targetImage"])
    assert layers[str(LAYER.digest)] == LAYER.raw


def test_an_upstreams_layer_needs_the_right_to_pull_it(client: Client) -> None:
    """We could read it there; who asks may not, and hears nothing of what is there."""
    answers = [ask(client, wanted(f"docker://up.example/secret/{name}@{LAYER.digest}")) for name in ("layers", "none")]
    assert [answer.status for answer in answers] == [403, 403]
    assert "secret/layers, which you may not pull" in answers[0].json()["message"]


@pytest.mark.parametrize(
    ("location", "changed", "said"),
    [
        ("http://127.0.0.1:1/layer", {}, "can't be asked from here"),
        ("http://169.254.169.254/latest/meta-data", {}, "can't be asked from here"),
        (f"docker://127.0.0.1:1/tools/layers@{LAYER.digest}", {}, "can't be asked from here"),
        ("http://PEER/v2/tools/layers/blobs/none", {}, "layer 1: "),
        (f"http://PEER/v2/tools/layers/blobs/{LAYER.digest}", {"gzipSize": 5}, "5"),
        (f"docker://PEER/tools/layers@{LAYER.digest}", {"tarDigest": f"sha256:{'0' * 64}"}, "the tar inside"),
        (f"docker://PEER/tools/layers@sha256:{'0' * 64}", {}, "names sha256:000"),
        ("docker://PEER/tools/layers:tag", {}, "no digest"),
        ("http://u:p@PEER/layer", {}, "password"),
    ],
)
def test_layers_that_are_not_had(
    client: Client, registry_peer: RegistryPeer, location: str, changed: Mapping[str, object], said: str
) -> None:
    """400 that names the layer; of addresses that aren't asked always in the same words."""
    answer = ask(client, wanted(location.replace("PEER", registry_peer.host), **changed))
    assert answer.status == 400, answer.body
    assert answer.json()["message"].startswith("layer 1: ")
    assert said in answer.json()["message"]


def including(*images: str, **config: object) -> Mapping[str, Any]:
    return {"containerImage": "team/app:1", "containerIncludes": images, "containerConfig": config}


def test_included_images(client: Client, registry_peer: RegistryPeer) -> None:
    """Their layers lie on those of the request, in order; from an upstream, and from a registry that we may ask."""
    for image in ("up.example/tools/layers:1", f"{registry_peer.host}/tools/layers@{TOOLS.digest}"):
        answer = asked(client, including(image, layers=[layer_object(LAYER)]))
        config, layers = pulled(client, answer["targetImage"])
        added = [str(one.diff_id) for one in (LAYER, *TOOLS.layers)]
        assert config["rootfs"]["diff_ids"][-len(added) :] == added
        assert all(layers[str(one.digest)] == one.raw for one in (LAYER, *TOOLS.layers))


@pytest.mark.parametrize(
    ("image", "status", "said"),
    [
        ("up.example/secret/layers:1", 403, "secret/layers, which you may not pull"),
        ("up.example/secret/none:1", 403, "secret/none, which you may not pull"),
        ("up.example/tools/layers:none", 400, "up.example/tools/layers:none"),
        ("127.0.0.1:1/tools/layers:1", 400, "can't be asked from here"),
        ("10.0.0.1/tools/layers:1", 400, "can't be asked from here"),
    ],
)
def test_images_that_are_not_included(client: Client, image: str, status: int, said: str) -> None:
    """What who asks may not pull, what isn't there, and what isn't asked."""
    answer = ask(client, including(image))
    assert (answer.status, said in answer.json()["message"]) == (status, True), answer.body


def test_our_own_layers_and_images(client: Client, server: RoadsteadServer) -> None:
    """By our host they are read where they lie: a layer larger than a request carries is pushed first."""
    large = make_layer({"noise": random.Random(7).randbytes(2 << 20)})
    client.push_blob("team/layers", large.raw)
    push(client, "team/tools", TOOLS, "1")
    location = f"docker://{server.host}/team/layers@{large.digest}"
    body = including(f"{server.host}/team/tools:1", layers=[layer_object(large, location=location)])
    _, layers = pulled(client, asked(client, body)["targetImage"])
    assert layers[str(large.digest)] == large.raw
    assert {str(one.digest) for one in TOOLS.layers} <= layers.keys()


def test_our_own_layers_need_the_right_to_pull_them(client: Client, server: RoadsteadServer) -> None:
    """Who may only push to a repository reads nothing of it so; and what tokens derived has no such name."""
    client.push_blob("kept/layers", LAYER.raw)
    for name in ("kept/layers", "wt/" + "0" * 64, "as-pushed/team/app"):
        assert ask(client, wanted(f"docker://{server.host}/{name}@{LAYER.digest}")).status == 403
        assert ask(client, including(f"{server.host}/{name}:1")).status == 403
    answer = ask(client, wanted(f"docker://{server.host}/team/none@{LAYER.digest}"))
    assert (answer.status, b"roadstead.invalid" in answer.body) == (400, False)


def test_the_command_includes_images(client: Client, server: RoadsteadServer) -> None:
    """`--include` adds them."""
    arguments = ["augment", "team/app:1", "--service", f"http://{server.host}"]
    ran = CliRunner().invoke(app, [*arguments, "--include", "up.example/tools/layers:1"])
    assert ran.exit_code == 0, ran.output
    _, layers = pulled(client, ran.stdout.strip())
    assert {str(one.digest) for one in TOOLS.layers} <= layers.keys()
