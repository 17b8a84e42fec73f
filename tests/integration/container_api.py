"""What tests of container tokens do again and again: ask as curl does, and pull as an engine does."""

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from roadstead.oci.digest import Digest
from roadstead.oci.mediatypes import MANIFESTS
from roadstead.testing.client import Answer, Client
from roadstead.testing.images import TestImage, TestIndex, TestLayer

ACCEPT = {"Accept": ", ".join(sorted(MANIFESTS))}
JSON = {"Content-Type": "application/json"}


def layer_object(layer: TestLayer, **changed: object) -> dict[str, Any]:
    """Return a layer as a request has it, its bytes in its location."""
    return {
        "location": f"data:{b64encode(layer.raw).decode()}",
        "gzipDigest": str(layer.digest),
        "gzipSize": len(layer.raw),
        "tarDigest": str(layer.diff_id),
        **changed,
    }


def ask(
    client: Client, body: Mapping[str, Any], headers: Mapping[str, str] | None = None, path: str = "/container-token"
) -> Answer:
    """Ask for a token."""
    return client.post(path, json.dumps(body).encode(), {**JSON, **(headers or {})})


def asked(client: Client, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the answer to a request for a token, which has to be a good one."""
    answer = ask(client, body, headers)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()
    return found


def path_of(target: str, kind: str = "manifests") -> str:
    """Return the path that an engine asks for an image's name."""
    name, at, digest = target.partition("/")[2].partition("@")
    if not at:
        name, _, digest = name.rpartition(":")
    return f"/v2/{name}/{kind}/{digest}"


def push(client: Client, name: str, image: TestImage | TestIndex, tag: str | None = None) -> None:
    """Push an image, or an index with all that it lists."""
    for one in image.children if isinstance(image, TestIndex) else ():
        push(client, name, one)
    for data in image.blobs.values() if isinstance(image, TestImage) else ():
        client.push_blob(name, data)
    client.push_manifest(name, tag or str(image.digest), image.raw, image.media_type)


def pulled(client: Client, target: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Pull an image as an engine does: HEAD, then by digest, every byte checked; return config and layers."""
    head = client.head(path_of(target), ACCEPT)
    assert head.status == 200, head.headers
    digest = head.headers["docker-content-digest"]
    name = path_of(target).removeprefix("/v2/").partition("/manifests/")[0]
    manifest = client.get(f"/v2/{name}/manifests/{digest}", ACCEPT)
    assert manifest.status == 200, manifest.body
    assert str(Digest.of(manifest.body)) == digest
    document = manifest.json()
    if "manifests" in document:
        host = target.partition("/")[0]
        return pulled(client, f"{host}/{name}@{document['manifests'][0]['digest']}")
    blobs = {}
    for descriptor in (document["config"], *document["layers"]):
        blob = client.get(f"/v2/{name}/blobs/{descriptor['digest']}")
        assert blob.status == 200, blob.body
        assert client.head(f"/v2/{name}/blobs/{descriptor['digest']}").status == 200
        assert str(Digest.of(blob.body)) == descriptor["digest"]
        blobs[descriptor["digest"]] = blob.body
    config: dict[str, Any] = json.loads(blobs.pop(document["config"]["digest"]))
    return config, blobs
