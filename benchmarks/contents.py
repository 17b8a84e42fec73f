"""What is pushed and pulled: images and blobs without pattern, as many different ones as are wanted."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from itertools import count

from benchmarks.wire import Bytes, Link, path_of

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"

_serial = count()


class Road(StrEnum):
    """How a client brings a blob, after it asked with HEAD and started a session with POST."""

    PATCH = "PATCH and PUT"  # docker, podman, skopeo, crane
    PUT = "PUT"  # containerd, BuildKit


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob in pieces, so that large ones share all but their end."""

    digest: str
    parts: Sequence[Bytes]

    @property
    def size(self) -> int:
        """Return its size in bytes."""
        return sum(len(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest and its blobs."""

    manifest: bytes
    blobs: tuple[Blob, ...]

    @property
    def digest(self) -> str:
        """Return the manifest's digest."""
        return _sha256(self.manifest)


class LargeBlobs:
    """Blobs of one size that differ in their last bytes, so that a new one costs next to nothing."""

    def __init__(self, size: int) -> None:
        self._common = hashlib.shake_128(b"large").digest(1 << 20) * (size >> 20)
        self._common = self._common[: size - 16]
        self._hash = hashlib.sha256(self._common)

    def make(self) -> Blob:
        """Return a blob that no one has seen."""
        end = b"%016d" % next(_serial)
        running = self._hash.copy()
        running.update(end)
        return Blob(f"sha256:{running.hexdigest()}", (memoryview(self._common), end))


def make_blob(size: int) -> Blob:
    """Return a small blob that no one has seen."""
    data = hashlib.shake_128(b"%d" % next(_serial)).digest(size)
    return Blob(_sha256(data), (data,))


def make_image(layers: Sequence[int]) -> Image:
    """Return an image that no one has seen, its layers of these sizes."""
    blobs = [make_blob(size) for size in layers]
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Labels": {"serial": str(next(_serial))}},
        "rootfs": {"type": "layers", "diff_ids": [blob.digest for blob in blobs]},
        "history": [{"created_by": f"ADD layer {number}"} for number in range(len(blobs))],
    }
    raw = json.dumps(document).encode()
    config = Blob(_sha256(raw), (raw,))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _descriptor(_CONFIG_TYPE, config),
        "layers": [_descriptor(_LAYER_TYPE, blob) for blob in blobs],
    }
    return Image(json.dumps(manifest).encode(), (config, *blobs))


def push_blob(link: Link, repository: str, blob: Blob, road: Road) -> None:
    """Bring a blob, unless it is there."""
    head = link.ask("HEAD", f"/v2/{repository}/blobs/{blob.digest}", expect=(200, 404))
    if head.status == 200:
        return
    location = _location(link.ask("POST", f"/v2/{repository}/blobs/uploads/", expect=202).headers)
    body: Sequence[Bytes] = blob.parts
    if road is Road.PATCH:
        location = _location(link.ask("PATCH", location, body, expect=202, headers=_OCTETS, chunked=True).headers)
        body = ()
    joint = "&" if "?" in location else "?"
    link.ask("PUT", f"{location}{joint}digest={blob.digest}", body, expect=201, headers=_OCTETS)


def push_image(link: Link, repository: str, tag: str, image: Image, road: Road) -> None:
    """Bring an image's blobs, one after the other, and its manifest."""
    for blob in image.blobs:
        push_blob(link, repository, blob, road)
    target = f"/v2/{repository}/manifests/{tag}"
    link.ask("PUT", target, (image.manifest,), expect=201, headers=f"Content-Type: {MANIFEST_TYPE}\r\n")


def push_images(port: int, repository: str, images: Sequence[Image], *, at_once: int, tag: str, road: Road) -> None:
    """Bring images, each to a tag of its own, by as many clients as are to work at the same time."""
    numbered = list(enumerate(images))

    def work(first: int) -> None:
        with Link(port) as link:
            for number, image in numbered[first::at_once]:
                push_image(link, repository, f"{tag}-{number}", image, road)

    with ThreadPoolExecutor(at_once) as clients:
        list(clients.map(work, range(at_once)))


def pull_image(link: Link, repository: str, tag: str) -> int:
    """Fetch a manifest and everything that it lists; return the bytes that came."""
    accept = f"Accept: {MANIFEST_TYPE}\r\n"
    answer = link.ask("GET", f"/v2/{repository}/manifests/{tag}", expect=200, headers=accept)
    total = answer.size
    for digest in _listed(json.loads(answer.body)):
        total += link.ask("GET", f"/v2/{repository}/blobs/{digest}", expect=200, keep=False).size
    return total


def _listed(manifest: dict) -> Iterator[str]:
    yield manifest["config"]["digest"]
    for layer in manifest["layers"]:
        yield layer["digest"]


_OCTETS = "Content-Type: application/octet-stream\r\n"


def _location(headers: object) -> str:
    return path_of(headers["location"])  # type: ignore[index]


def _descriptor(media_type: str, blob: Blob) -> dict[str, object]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
