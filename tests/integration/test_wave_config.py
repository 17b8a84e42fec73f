"""Wave's own configuration and layer, served as they are: its README's way through."""

import json
from pathlib import Path

from tests.integration.container_api import asked, layer_object, pulled, push

from roadstead.testing.client import Client
from roadstead.testing.images import make_image, make_layer
from roadstead.testing.registry_peer import RegistryPeer
from roadstead.testing.server import RoadsteadServer

THERE = make_image(layers=1, seed="wave")
GLOBAL = make_layer({"foo.txt": b"Hello from the global layer\n"})
OWN = make_layer({"foo.txt": b"Hello from the request\n"})
CONFIG = """
wave:
  allowAnonymous: true
  registries:
    default: docker.io
    docker.io: {username: "${DOCKER_USER:}", password: "${DOCKER_PAT:}"}
roadstead:
  upstreams:
    registries: [{host: docker.io, url: "PEER", default_for: ["**"]}]
"""


def test_the_readmes_way(tmp_path: Path, registry_peer: RegistryPeer) -> None:
    """Without a token every image has the global layer; with one, what was asked for and nothing else."""
    with Client(registry_peer.host) as there:
        push(there, "library/wave", THERE, "1")
    folder = tmp_path / "pack" / "layers"
    folder.mkdir(parents=True)
    (folder / "layer.tar.gzip").write_bytes(GLOBAL.raw)
    append = layer_object(GLOBAL, location="layer.tar.gzip")
    (folder / "layer.json").write_text(json.dumps({"env": ["FOO=bar"], "append": append}))

    with RoadsteadServer(
        tmp_path, config=CONFIG.replace("PEER", registry_peer.url), workers=1, file="config.yml"
    ) as server:
        client = server.client()
        config, layers = pulled(client, f"{server.host}/library/wave:1")
        assert layers[str(GLOBAL.digest)] == GLOBAL.raw
        assert "FOO=bar" in config["config"]["Env"]

        body = {"containerImage": "wave:1", "containerConfig": {"layers": [layer_object(OWN)]}}
        answer = asked(client, body)
        assert answer["targetImage"].endswith("/library/wave:1")
        config, layers = pulled(client, answer["targetImage"])
        assert str(OWN.digest) in layers
        assert str(GLOBAL.digest) not in layers
        assert "FOO=bar" not in config["config"]["Env"]
