"""Manifests and indexes for the conformance tests, as plain JSON: members of any name and worth can be put in."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roadstead.oci.digest import Algorithm, Digest
from roadstead.oci.mediatypes import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from roadstead.testing.client import Client

CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{}}'


@dataclass(frozen=True, slots=True)
class Pushed:
    """A manifest that a repository holds now."""

    raw: bytes
    media_type: str
    digest: Digest

    @property
    def as_descriptor(self) -> dict[str, Any]:
        """Return the pointer to it."""
        return {"mediaType": self.media_type, "digest": str(self.digest), "size": len(self.raw)}


def descriptor(
    content: bytes, media_type: str = OCI_LAYER_GZIP, algorithm: Algorithm = Algorithm.SHA256, **members: Any
) -> dict[str, Any]:
    """Return the pointer to these bytes."""
    return {"mediaType": media_type, "digest": str(Digest.of(content, algorithm)), "size": len(content), **members}


def manifest(
    config: Mapping[str, Any] | None = None,
    layers: Sequence[Mapping[str, Any]] = (),
    *,
    media_type: str = OCI_MANIFEST,
    **members: Any,
) -> bytes:
    """Return an image manifest, spaced as no canonical writer would: its bytes have to survive."""
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": config or descriptor(CONFIG, OCI_CONFIG),
        "layers": list(layers),
        **members,
    }
    return json.dumps(document, indent=3).encode() + b"\n\n"


def index(children: Sequence[Mapping[str, Any]] = (), *, media_type: str = OCI_INDEX, **members: Any) -> bytes:
    """Return an index of these children."""
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": list(children), **members}
    return json.dumps(document, indent=1).encode()


def push(client: Client, name: str, reference: str, raw: bytes, media_type: str = OCI_MANIFEST) -> Pushed:
    """Push a manifest."""
    return Pushed(raw, media_type, client.push_manifest(name, reference, raw, media_type))


def push_image(client: Client, name: str, reference: str, *, text: str = "one") -> Pushed:
    """Push a small image with its blobs; another *text* makes another image."""
    layer = f"the layer of {text}".encode()
    client.push_blob(name, CONFIG)
    client.push_blob(name, layer)
    return push(client, name, reference, manifest(layers=[descriptor(layer)]))


def push_bare(client: Client, name: str, reference: str, *, text: str = "", **members: Any) -> Pushed:
    """Push a manifest without layers, different for each *text*; its config must be there."""
    return push(client, name, reference, manifest(annotations={"text": text}, **members))
