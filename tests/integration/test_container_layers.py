"""Layers of tokens that lie elsewhere: fetched when the token is asked for, with the rights of who asks."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.integration.container_api import ask, asked, layer_object, pulled, push

from roadstead.testing.client import Client
from roadstead.testing.images import make_image, make_layer
from roadstead.testing.registry_peer import RegistryPeer
from roadstead.testing.server import RoadsteadServer

LAYER = make_layer({"foo.txt": b"from elsewhere\n"})
IMAGE = make_image(seed="elsewhere")
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
