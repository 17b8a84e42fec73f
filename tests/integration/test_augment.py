"""Rules with layers from everywhere, over real servers: what is served, what is refused, what outlives a crash."""

import asyncio
import base64
import gzip
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zstandard
from tests.integration.container_api import asked, path_of, pulled
from tests.integration.token_service import token_service

from roadstead.augment.plan import MARK
from roadstead.oci.digest import Digest
from roadstead.oci.mediatypes import DOCKER_LAYER_ZSTD, MANIFESTS, OCI_LAYER_ZSTD
from roadstead.testing.client import Client
from roadstead.testing.components import require
from roadstead.testing.images import TestImage, TestIndex, make_image, make_index, make_layer
from roadstead.testing.registry_peer import open_registry_peer
from roadstead.testing.scripted_upstream import PASSWORD, USER
from roadstead.testing.server import RoadsteadServer

ACCEPT = {"Accept": ", ".join(sorted(MANIFESTS))}
LAYER = make_layer({"foo.txt": b"hello\n"})


def push(client: Client, name: str, image: TestImage | TestIndex, tag: str | None = None) -> None:
    """Push an image, or an index with all that it lists."""
    for one in image.children if isinstance(image, TestIndex) else ():
        push(client, name, one)
    for data in image.blobs.values() if isinstance(image, TestImage) else ():
        client.push_blob(name, data)
    client.push_manifest(name, tag or str(image.digest), image.raw, image.media_type)


def pull(client: Client, name: str, reference: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the manifest and the config of an image; each layer has to be there as described."""
    answer = client.get(f"/v2/{name}/manifests/{reference}", ACCEPT)
    assert answer.status == 200, answer.body
    manifest = answer.json()
    for descriptor in (manifest["config"], *manifest["layers"]):
        blob = client.get(f"/v2/{name}/blobs/{descriptor['digest']}")
        assert blob.status == 200, blob.body
        assert (str(Digest.of(blob.body)), len(blob.body)) == (descriptor["digest"], descriptor["size"])
    return manifest, client.get(f"/v2/{name}/blobs/{manifest['config']['digest']}").json()


def rule(match: str, **members: object) -> str:
    lines = [f"{name} = {value if isinstance(value, str) else json.dumps(value)}" for name, value in members.items()]
    return "\n".join(["[[augment.rules]]", f'match = "{match}"', *lines, ""])


def inline(layer: bytes) -> str:
    return f"data:{base64.b64encode(layer).decode()}"


ZSTD_LAYER = make_layer({"zstd.txt": b"zstd\n"})


def zstd_of(raw: bytes) -> bytes:
    return zstandard.compress(gzip.decompress(raw))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoadsteadServer]:
    """A server whose rules need nobody else."""
    config = (
        rule("inline/*", layers=[inline(LAYER.raw)], labels=["a=1", "b=ü"])
        + rule("zstd/*", layers=[inline(zstd_of(ZSTD_LAYER.raw))])
        + rule("env/*", env=["ADDED=1"], entrypoint=["/wrapper"])
    )
    with RoadsteadServer(tmp_path_factory.mktemp("augment"), config=config, workers=1) as made:
        yield made


@pytest.fixture
def client(server: RoadsteadServer) -> Iterator[Client]:
    with server.client() as made:
        yield made


def test_an_inline_layer_and_labels(client: Client) -> None:
    """What the rule carries itself is on top, and the labels are set beside the mark."""
    image = make_image(config={"Labels": {"kept": "yes", "a": "0"}})
    push(client, "inline/app", image, "1")

    manifest, config = pull(client, "inline/app", "1")

    assert manifest["layers"][-1]["digest"] == str(LAYER.digest)
    assert config["rootfs"]["diff_ids"][-1] == str(LAYER.diff_id)
    labels = config["config"]["Labels"]
    assert labels.pop(MARK)
    assert labels == {"kept": "yes", "a": "1", "b": "ü"}


@pytest.mark.parametrize(("docker", "media_type"), [(False, OCI_LAYER_ZSTD), (True, DOCKER_LAYER_ZSTD)])
def test_a_zstd_layer(client: Client, docker: bool, media_type: str) -> None:
    """It is added as it is, called what each family calls it."""
    name = f"zstd/docker-{docker}".lower()
    push(client, name, make_image(docker=docker), "1")

    manifest, config = pull(client, name, "1")

    assert manifest["layers"][-1]["mediaType"] == media_type
    assert config["rootfs"]["diff_ids"][-1] == str(ZSTD_LAYER.diff_id)


def test_an_image_with_zstd_layers_keeps_them(client: Client) -> None:
    """A gzip layer comes on top of them."""
    base = make_image()
    data = zstd_of(base.layers[0].raw)
    document = json.loads(base.raw)
    document["layers"] = [{"mediaType": OCI_LAYER_ZSTD, "digest": str(Digest.of(data)), "size": len(data)}]
    for blob in (data, base.config):
        client.push_blob("inline/zstd-base", blob)
    client.push_manifest("inline/zstd-base", "1", json.dumps(document).encode(), base.media_type)

    manifest, _ = pull(client, "inline/zstd-base", "1")

    assert [layer["digest"] for layer in manifest["layers"]] == [str(Digest.of(data)), str(LAYER.digest)]
    assert manifest["layers"][0]["mediaType"] == OCI_LAYER_ZSTD


def test_a_mark_keeps_no_rule_off(client: Client) -> None:
    """A pusher's label is only a label; what was pulled and is pushed stays what it is, until another rule comes."""
    push(client, "env/marked", make_image(config={"Labels": {MARK: "sha256:any"}, "Entrypoint": ["/app"]}), "1")

    manifest, config = pull(client, "env/marked", "1")
    assert "ADDED=1" in config["config"]["Env"]
    raw = client.get("/v2/env/marked/manifests/1", ACCEPT).body
    for name in ("env/again", "inline/again"):
        for descriptor in (manifest["config"], *manifest["layers"]):
            client.push_blob(name, client.get(f"/v2/env/marked/blobs/{descriptor['digest']}").body)
        client.push_manifest(name, "1", raw, manifest["mediaType"])

    assert client.get("/v2/env/again/manifests/1", ACCEPT).body == raw
    both, config = pull(client, "inline/again", "1")
    assert both["layers"] == [*manifest["layers"], both["layers"][-1]]
    assert both["layers"][-1]["digest"] == str(LAYER.digest)
    assert "ADDED=1" in config["config"]["Env"]


def test_wave_s_profile(tmp_path: Path) -> None:
    """Of an index linux/amd64 is augmented as Wave does it; the others stay, byte for byte."""
    amd64, arm64 = make_image(config={"Entrypoint": ["/app"]}), make_image(platform="linux/arm64")
    config = '[augment]\nprofile = "wave"\n' + rule("team/*", layers=[inline(LAYER.raw)], env=["A=1"])
    with RoadsteadServer(tmp_path, config=config, workers=1) as server, server.client() as client:
        push(client, "team/app", make_index([amd64, arm64]), "1")
        first, second = client.get("/v2/team/app/manifests/1", ACCEPT).json()["manifests"]
        assert second["digest"] == str(arm64.digest)
        manifest, config_document = pull(client, "team/app", first["digest"])
    assert config_document["config"]["Env"][-2:] == ["A=1", "WAVE_ENTRY_CHAIN=/app"]
    assert manifest["layers"][-1]["mediaType"] == "application/vnd.docker.image.rootfs.diff.tar.gzip"


def test_wave_s_profile_below_a_token(tmp_path: Path) -> None:
    """A token's image is made as Wave makes it, too: the chain comes last, whether or not an entrypoint is given."""
    amd64, arm64 = make_image(config={"Entrypoint": ["/app", "-x"]}), make_image(platform="linux/arm64")
    with RoadsteadServer(tmp_path, config='[augment]\nprofile = "wave"\n', workers=1) as server:
        client = server.client()
        push(client, "team/app", make_index([amd64, arm64]), "1")
        answer = asked(client, {"containerImage": "team/app:1", "containerConfig": {"env": ["A=1"]}})
        listed = client.get(path_of(answer["targetImage"]), ACCEPT).json()["manifests"]
        config_document, _ = pulled(client, answer["targetImage"])
    assert listed[1]["digest"] == str(arm64.digest)
    assert config_document["config"]["Env"][-2:] == ["A=1", 'WAVE_ENTRY_CHAIN=["/app","-x"]']


# What was collected is derived again


COLLECTED = '[gc]\nuntagged = "delete"\n' + rule("team/*", layers=[inline(LAYER.raw)], env=["A=1"])


def in_database(server: RoadsteadServer, *statements: str) -> None:
    """Change facts while nobody serves."""
    with closing(sqlite3.connect(server.data / "roadstead.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        for statement in statements:
            connection.execute(statement)


def roadstead(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    command = [sys.executable, "-m", "roadstead", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, text=True, timeout=60)


def test_a_pinned_digest_is_derived_again(tmp_path: Path) -> None:
    """The tag moved, source and derived image were collected: with the source back the pinned digest is pulled as ever.

    So it is where what was derived is lost alone. Between, the server is killed: nothing is there in part.
    """
    image, other = make_index([make_image(), make_image(platform="linux/arm64", seed="2")]), make_image(seed="3")
    server = RoadsteadServer(tmp_path, config=COLLECTED, workers=1)
    server.start()
    client = server.client()
    push(client, "team/app", image, "1")
    pinned = client.get("/v2/team/app/manifests/1", ACCEPT)
    derived = {entry["digest"]: pull(client, "team/app", entry["digest"]) for entry in pinned.json()["manifests"]}
    digest = str(Digest.of(pinned.body))
    push(client, "team/app", other, "1")
    server.kill()
    in_database(
        server,
        "UPDATE manifests SET pushed_at = 0",
        "UPDATE tag_journal SET at = 0",
        "UPDATE blobs SET lease_until = 0",
    )
    collected = roadstead("gc", tmp_path / "roadstead.toml", "--data", server.data)
    assert collected.returncode == 0, collected.stderr

    server.start()
    client = server.client()
    assert client.get(f"/v2/team/app/manifests/{digest}", ACCEPT).status == 404
    assert client.get(f"/v2/team/app/manifests/{image.digest}", ACCEPT).status == 404
    push(client, "team/app", image, "old")
    assert client.get(f"/v2/team/app/manifests/{digest}", ACCEPT).body == pinned.body
    server.kill()
    configs = {manifest["config"]["digest"] for manifest, _ in derived.values()}
    in_database(
        server,
        "DELETE FROM manifests WHERE derived",
        *(f"DELETE FROM repository_blobs WHERE digest = '{config}'" for config in configs),
        *(f"DELETE FROM blobs WHERE digest = '{config}'" for config in configs),
    )

    with server, server.client() as client:
        for config in configs:
            assert str(Digest.of(client.get(f"/v2/team/app/blobs/{config}").body)) == config
        for child, had in derived.items():
            assert pull(client, "team/app", child) == had
        assert client.get(f"/v2/team/app/manifests/{digest}", ACCEPT).body == pinned.body


# Layers of registries


def registry_rules(url: str, more: str, image: TestImage) -> str:
    host = "up.example"
    layer = image.layers[0]
    upstream = f'[[upstreams]]\nhost = "{host}"\nurl = "{url}"\n{more}\n'
    return (
        upstream
        + rule("blob/*", layers=[f"docker://{host}/v2/org/tools/blobs/{layer.digest}"])
        + rule("include/*", includes=[f"{host}/org/tools:1"])
    )


def adds_tools(directory: Path, config: str, image: TestImage) -> None:
    """Have a new server add the layers of an image that a registry holds."""
    with RoadsteadServer(directory, config=config, workers=1) as server, server.client() as client:
        for name, layers in (("blob/app", image.layers[:1]), ("include/app", image.layers)):
            push(client, name, make_image(), "1")
            manifest, _ = pull(client, name, "1")
            assert [one["digest"] for one in manifest["layers"][1:]] == [str(layer.digest) for layer in layers]


def test_a_docker_registry_with_passwords_as_source(tmp_path: Path) -> None:
    """Debian's docker-registry behind htpasswd: a blob of it, and all layers of an image; a wrong password stops the
    start with a word about whose it is."""
    htpasswd = require("htpasswd", install="apt-get install apache2-utils")
    hashed = subprocess.run([htpasswd, "-Bbn", "-C", "4", USER, PASSWORD], capture_output=True, check=True).stdout
    (tmp_path / "htpasswd").write_bytes(hashed)
    image = make_image(layers=2, seed="tools")
    root = tmp_path / "root"
    with open_registry_peer(root) as peer, Client(peer.host) as client:
        push(client, "org/tools", image, "1")
    more: Mapping[str, object] = {"auth": {"htpasswd": {"realm": "r", "path": str(tmp_path / "htpasswd")}}}
    with open_registry_peer(root, more=more) as peer:
        signed = f'username = "{USER}"\npassword = "{PASSWORD}"'
        adds_tools(tmp_path / "right", registry_rules(peer.url, signed, image), image)
        (tmp_path / "nobody.toml").write_text(registry_rules(peer.url, "", image))
        failed = roadstead("serve", tmp_path / "nobody.toml", "--data", tmp_path / "nobody", "--listen", "127.0.0.1:0")
    assert failed.returncode == 1
    assert "blob/*" in failed.stderr
    assert "denied" in failed.stderr
    # What was fetched is kept: a start needs the registry no more, but for tags of included images.
    config = registry_rules("http://127.0.0.1:9", "", image).split("[[augment.rules]]")
    without_include = "[[augment.rules]]".join(config[:2])
    with RoadsteadServer(tmp_path / "right", config=without_include, workers=1) as server, server.client() as client:
        pull(client, "blob/app", "1")


async def test_a_docker_registry_with_tokens_as_source(tmp_path: Path) -> None:
    """Debian's docker-registry that believes a token service."""
    image = make_image(layers=2, seed="tools")
    root = tmp_path / "root"
    with open_registry_peer(root) as peer, Client(peer.host) as client:
        push(client, "org/tools", image, "1")
    async with token_service(tmp_path, USER, PASSWORD) as service:
        with open_registry_peer(root, more={"auth": service.trust()}) as peer:
            more = f'username = "{USER}"\npassword = "{PASSWORD}"\ntrusted_hosts = ["{service.url[7:]}"]'
            config = registry_rules(peer.url, more, image)
            await asyncio.to_thread(adds_tools, tmp_path / "data", config, image)
    assert any(asked.startswith(f"{USER} repository:org/tools:pull") for asked in service.asked)
