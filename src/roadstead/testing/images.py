"""Images for tests: real tar layers, configs and manifests, the same bytes at every call.

What varies is said by arguments; ``seed`` makes another image of the same shape. Contents have no pattern and are
stored rather than deflated, so that a layer is a little larger than asked, and quickly made.
"""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from roadstead.oci.descriptor import ATTESTATION_ANNOTATION, ATTESTATION_MANIFEST, Descriptor, Platform
from roadstead.oci.digest import Digest
from roadstead.oci.manifest import ImageIndex, ImageManifest, parse_manifest
from roadstead.oci.mediatypes import (
    DOCKER_CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
)
from roadstead.oci.strict_json import compact

CREATED = "2024-01-02T03:04:05Z"  # when every image was made
_DOCKER_TYPES = (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER_GZIP)
_OCI_TYPES = (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER_GZIP)
_REFERENCE_ANNOTATION = "vnd.docker.reference.digest"
_IN_TOTO = "application/vnd.in-toto+json"


@dataclass(frozen=True, slots=True)
class TestLayer:
    """A layer: gzip as stored, and the digest of the tar inside."""

    __test__: ClassVar[bool] = False  # A noun of ours, no class of tests for pytest to collect.

    raw: bytes
    diff_id: Digest

    @property
    def digest(self) -> Digest:
        """Return the digest of the bytes as stored."""
        return Digest.of(self.raw)


@dataclass(frozen=True, slots=True)
class TestImage:
    """A manifest with everything it needs; an artifact has the same form."""

    __test__: ClassVar[bool] = False

    raw: bytes
    media_type: str
    config: bytes
    layers: tuple[TestLayer, ...]
    platform: Platform | None = None
    annotations: Mapping[str, str] | None = None  # those of its entry in an index

    @property
    def digest(self) -> Digest:
        """Return the manifest's digest."""
        return Digest.of(self.raw)

    @property
    def size(self) -> int:
        """Return the manifest's length in bytes."""
        return len(self.raw)

    @property
    def config_digest(self) -> Digest:
        """Return the digest of the config."""
        return Digest.of(self.config)

    @property
    def manifest(self) -> ImageManifest:
        """Return the manifest, parsed."""
        manifest = parse_manifest(self.raw, self.media_type)
        assert isinstance(manifest, ImageManifest)
        return manifest

    @property
    def blobs(self) -> dict[Digest, bytes]:
        """Return config and layers by digest: what has to be pushed before the manifest."""
        return {self.config_digest: self.config} | {layer.digest: layer.raw for layer in self.layers}

    def descriptor(self) -> Descriptor:
        """Return the entry that an index has for it."""
        annotations = dict(self.annotations or {})
        return Descriptor(self.media_type, self.digest, self.size, annotations=annotations, platform=self.platform)


@dataclass(frozen=True, slots=True)
class TestIndex:
    """An index with everything it lists: images, or indexes again."""

    __test__: ClassVar[bool] = False

    raw: bytes
    media_type: str
    children: "tuple[TestImage | TestIndex, ...]"

    @property
    def digest(self) -> Digest:
        """Return the index's digest."""
        return Digest.of(self.raw)

    @property
    def size(self) -> int:
        """Return the index's length in bytes."""
        return len(self.raw)

    @property
    def index(self) -> ImageIndex:
        """Return the index, parsed."""
        index = parse_manifest(self.raw, self.media_type)
        assert isinstance(index, ImageIndex)
        return index

    def descriptor(self) -> Descriptor:
        """Return the entry that an index around it has for it."""
        return Descriptor(self.media_type, self.digest, self.size)


def make_layer(files: Mapping[str, bytes]) -> TestLayer:
    """Return a layer with these files, by path."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in sorted(files.items()):
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    data = tar.getvalue()
    return TestLayer(gzip.compress(data, compresslevel=0, mtime=0), Digest.of(data))


def make_image(
    *,
    layers: int | Sequence[Mapping[str, bytes]] = 1,
    size: int = 1024,
    platform: str = "linux/amd64",
    docker: bool = False,
    config: Mapping[str, Any] | None = None,
    history: bool = True,
    annotations: Mapping[str, str] | None = None,
    seed: str = "",
) -> TestImage:
    """Return an image of one platform.

    `layers` is how many, with one file of `size` bytes each, or the files of each layer by path. `config` is merged
    into the config's own ``config`` member (``Env``, ``Entrypoint``, ``Labels``…); `annotations` are the manifest's.
    """
    made = tuple(make_layer(files) for files in _files(layers, size, seed))
    target = Platform.parse(platform)
    document: dict[str, Any] = {"created": CREATED, **target.as_json()}
    document["config"] = {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": ["sh"], **(config or {})}
    document["rootfs"] = {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in made]}
    if history:
        document["history"] = [{"created": CREATED, "created_by": f"ADD layer {n}"} for n in range(len(made))]
    raw_config = compact(document)
    types = (
        (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER_GZIP) if docker else (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER_GZIP)
    )
    raw = _manifest(types, raw_config, made, annotations=annotations)
    return TestImage(raw, types[0], raw_config, made, target)


def make_index(
    images: "Sequence[TestImage | TestIndex]",
    *,
    docker: bool = False,
    annotations: Mapping[str, str] | None = None,
) -> TestIndex:
    """Return an index of these, in this order."""
    media_type = DOCKER_LIST if docker else OCI_INDEX
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type}
    document["manifests"] = [image.descriptor().as_json() for image in images]
    if annotations:
        document["annotations"] = dict(annotations)
    return TestIndex(compact(document), media_type, tuple(images))


def make_attestation(image: TestImage) -> TestImage:
    """Return what BuildKit puts beside an image in its index: an image's form, platform ``unknown/unknown``."""
    statement = compact({"_type": "https://in-toto.io/Statement/v0.1", "subject": [str(image.digest)]})
    layer = TestLayer(statement, Digest.of(statement))
    unknown = Platform("unknown", "unknown")
    rootfs = {"type": "layers", "diff_ids": [str(layer.diff_id)]}
    config = compact({**unknown.as_json(), "config": {}, "rootfs": rootfs})
    raw = _manifest((OCI_MANIFEST, OCI_CONFIG, _IN_TOTO), config, (layer,))
    marks = {_REFERENCE_ANNOTATION: str(image.digest), ATTESTATION_ANNOTATION: ATTESTATION_MANIFEST}
    return TestImage(raw, OCI_MANIFEST, config, (layer,), unknown, marks)


def make_artifact(
    artifact_type: str = "application/vnd.example.sbom",
    content: bytes = b"{}",
    *,
    subject: Descriptor | None = None,
    annotations: Mapping[str, str] | None = None,
) -> TestImage:
    """Return an artifact with one blob (image-spec manifest.md, artifact usage), perhaps a referrer of `subject`."""
    blob = TestLayer(content, Digest.of(content))
    raw = _manifest(
        (OCI_MANIFEST, OCI_EMPTY, artifact_type),
        b"{}",
        (blob,),
        artifact_type=artifact_type,
        subject=subject,
        annotations=annotations,
    )
    return TestImage(raw, OCI_MANIFEST, b"{}", (blob,))


def _files(layers: int | Sequence[Mapping[str, bytes]], size: int, seed: str) -> Sequence[Mapping[str, bytes]]:
    if not isinstance(layers, int):
        return layers
    return [{f"layer-{n}.bin": _content(f"{seed}/{n}", size)} for n in range(layers)]


def _content(name: str, size: int) -> bytes:
    """Return bytes without pattern, always the same for a name: an extendable hash gives as many as are wanted."""
    return hashlib.shake_128(name.encode()).digest(size)


def _manifest(
    types: tuple[str, str, str],
    config: bytes,
    layers: Sequence[TestLayer],
    *,
    artifact_type: str | None = None,
    subject: Descriptor | None = None,
    annotations: Mapping[str, str] | None = None,
) -> bytes:
    media_type, config_type, layer_type = types
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type}
    if artifact_type is not None:
        document["artifactType"] = artifact_type
    document["config"] = Descriptor(config_type, Digest.of(config), len(config)).as_json()
    document["layers"] = [Descriptor(layer_type, layer.digest, len(layer.raw)).as_json() for layer in layers]
    if subject is not None:
        document["subject"] = subject.as_json()
    if annotations:
        document["annotations"] = dict(annotations)
    return compact(document)
