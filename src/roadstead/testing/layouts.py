"""Images as files that clients push from: an OCI image layout, and its archive with what ``docker load`` wants."""

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from roadstead.oci.digest import Digest
from roadstead.oci.mediatypes import OCI_INDEX
from roadstead.oci.strict_json import compact
from roadstead.testing.images import TestImage, TestIndex


def write_layout(directory: Path, image: TestImage, *, name: str) -> None:
    """Write an image layout (image-spec image-layout.md) with one image, *name* being its ``host/repository:tag``.

    Programs differ in where they look for the name: the tag is its reference, containerd reads an annotation of its
    own, and Docker a ``manifest.json`` beside the index.
    """
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for digest, data in {**image.blobs, image.digest: image.raw}.items():
        (blobs / digest.encoded).write_bytes(data)
    entry = image.descriptor().as_json()
    entry["annotations"] = {
        "org.opencontainers.image.ref.name": name.rpartition(":")[2],
        "io.containerd.image.name": name,
    }
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (directory / "index.json").write_bytes(
        compact({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}),
    )
    saved = {
        "Config": f"blobs/sha256/{image.config_digest.encoded}",
        "RepoTags": [name],
        "Layers": [f"blobs/sha256/{layer.digest.encoded}" for layer in image.layers],
    }
    (directory / "manifest.json").write_text(json.dumps([saved]))


def pack_layout(directory: Path, archive: Path) -> None:
    """Write a layout's archive: its files in a tar, as ``docker save`` writes them."""
    with tarfile.open(archive, "w") as tar:
        for path in sorted(directory.rglob("*")):
            tar.add(path, arcname=str(path.relative_to(directory)), recursive=False)


def layout_files(
    entries: Sequence[tuple[TestImage | TestIndex, Mapping[str, str]]], *, without: Sequence[Digest] = ()
) -> dict[str, bytes]:
    """Return the files of a layout by name: images and indexes with the annotations of their entries.

    Content of the digests in *without* is left out, as engines do that keep one platform of an index.
    """
    listed = [{**image.descriptor().as_json(), "annotations": dict(marks)} for image, marks in entries]
    contents = dict(content for image, _ in entries for content in _contents(image))
    return {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": compact({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}),
    } | {
        f"blobs/{digest.algorithm}/{digest.encoded}": data for digest, data in contents.items() if digest not in without
    }


def _contents(image: TestImage | TestIndex) -> Iterator[tuple[Digest, bytes]]:
    yield image.digest, image.raw
    if isinstance(image, TestImage):
        yield from image.blobs.items()
        return
    for child in image.children:
        yield from _contents(child)
