"""Manifests and indexes (image-spec manifest.md, image-index.md): parsed views that keep the bytes they came in.

A manifest's digest is that of its bytes, so they are never written anew here; what the spec doesn't know stays in
``raw``. What a manifest is, is settled once, by ``parse_manifest``: everybody sees the same kind (CVE-2021-41190).

    ManifestInvalidError            the bytes aren't a manifest (distribution-spec code-6)
    ├── ManifestUnsupportedError    a media type that isn't a manifest's
    └── Schema1UnsupportedError     Docker's first format, gone since Docker 28
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from roadstead.errors import InvalidError
from roadstead.oci.descriptor import (
    Descriptor,
    DescriptorInvalidError,
    check_no_lookalikes,
    parse_annotations,
    parse_artifact_type,
)
from roadstead.oci.digest import Digest
from roadstead.oci.mediatypes import (
    DOCKER_MANIFESTS,
    IMAGE_CONFIGS,
    IMAGE_MANIFESTS,
    MANIFESTS,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1_MANIFESTS,
    bare,
)
from roadstead.oci.strict_json import MAX_DEPTH, JsonInvalidError, JsonObject, kind, parse_object

_FIELDS = frozenset(
    {"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations"}
)
_FOREIGN_TO_IMAGES = ("manifests", "fsLayers", "history")
_FOREIGN_TO_INDEXES = ("config", "layers", "fsLayers", "history")
_GUARDED = _FIELDS | {"fsLayers", "history"}
_FOLDED = frozenset(name.casefold() for name in _GUARDED)


class ManifestInvalidError(InvalidError):
    """Bytes aren't a manifest that can be accepted (distribution-spec code-6); ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"invalid manifest: {reason}")
        self.reason = reason


class ManifestUnsupportedError(ManifestInvalidError):
    """The media type isn't one of a manifest or index that we know."""

    def __init__(self, media_type: str) -> None:
        super().__init__(f"the media type {media_type[:120]!r} isn't a manifest's")
        self.media_type = media_type

    def advice(self) -> str:
        """Name the types that are accepted."""
        return f"Send one of {', '.join(sorted(MANIFESTS))}."


class Schema1UnsupportedError(ManifestInvalidError):
    """The manifest is in Docker's schema 1, which neither current engines nor we read."""

    def __init__(self) -> None:
        super().__init__("Docker image manifest schema 1 isn't supported")

    def advice(self) -> str:
        """Say how such an image can be brought along."""
        return "Convert the image, for example with: skopeo copy --format v2s2 SOURCE TARGET"


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """One image, or an artifact in an image's form (image-spec manifest.md). Made by ``parse_manifest``."""

    raw: bytes = field(repr=False)
    media_type: str
    digest: Digest
    """SHA-256 of ``raw``."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def size(self) -> int:
        """The length of ``raw`` in bytes."""
        return len(self.raw)

    @property
    def is_image(self) -> bool:
        """Whether the config is an image config, so that an engine can run it."""
        return self.config.media_type in IMAGE_CONFIGS

    def references(self) -> tuple[Descriptor, ...]:
        """Return the blobs it needs: the config, then the layers from the base up. The subject isn't one."""
        return (self.config, *self.layers)

    def descriptor(self) -> Descriptor:
        """Return a plain pointer to it."""
        return Descriptor(self.media_type, self.digest, self.size)

    def referrer_descriptor(self) -> Descriptor:
        """Return what the referrers list shows: its type is ``artifactType``, else the config's (end-12a)."""
        return _referrer(self, self.artifact_type or self.config.media_type)


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """A list of manifests, by platform as a rule (image-spec image-index.md). Made by ``parse_manifest``."""

    raw: bytes = field(repr=False)
    media_type: str
    digest: Digest
    """SHA-256 of ``raw``."""

    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def size(self) -> int:
        """The length of ``raw`` in bytes."""
        return len(self.raw)

    def references(self) -> tuple[Descriptor, ...]:
        """Return the manifests it lists, in their order. The subject isn't one."""
        return self.manifests

    def descriptor(self) -> Descriptor:
        """Return a plain pointer to it."""
        return Descriptor(self.media_type, self.digest, self.size)

    def referrer_descriptor(self) -> Descriptor:
        """Return what the referrers list shows: without ``artifactType`` when the index has none (end-12a)."""
        return _referrer(self, self.artifact_type)


AnyManifest: TypeAlias = ImageManifest | ImageIndex


def parse_manifest(raw: bytes, media_type: str | None, *, max_depth: int = MAX_DEPTH) -> AnyManifest:
    """Read a manifest or an index. Pure.

    *media_type* is the ``Content-Type`` it came with, parameters and all, or None; then the ``mediaType`` member
    decides, and without that the document's shape. Raises ManifestInvalidError or one of its kinds.
    """
    try:
        document = parse_object(raw, max_depth=max_depth)
        if not _GUARDED.issuperset(document):
            check_no_lookalikes(document, _GUARDED, _FOLDED)
        kind_of = _media_type(document, bare(media_type) if media_type is not None else None)
        _check_version(document)
        return _image(raw, kind_of, document) if kind_of in IMAGE_MANIFESTS else _index(raw, kind_of, document)
    except JsonInvalidError as error:
        raise ManifestInvalidError(str(error)) from error
    except DescriptorInvalidError as error:  # of the members that manifests and descriptors share
        raise ManifestInvalidError(f"{error.member} {error.reason}") from error


def parse_image(raw: bytes, media_type: str | None) -> ImageManifest:
    """Read an image manifest as ``parse_manifest`` does; an index is refused: ManifestInvalidError."""
    manifest = parse_manifest(raw, media_type)
    if not isinstance(manifest, ImageManifest):
        raise ManifestInvalidError("it is an index, where one image is needed")
    return manifest


def parse_index(raw: bytes, media_type: str | None) -> ImageIndex:
    """Read an index as ``parse_manifest`` does; one image is refused: ManifestInvalidError."""
    manifest = parse_manifest(raw, media_type)
    if not isinstance(manifest, ImageIndex):
        raise ManifestInvalidError("it is one image, where an index is needed")
    return manifest


def _media_type(document: JsonObject, announced: str | None) -> str:
    """Settle what the document is: the header and the member must agree."""
    member = document.get("mediaType")
    if member is not None and not isinstance(member, str):
        raise ManifestInvalidError(f"mediaType is {kind(member)}, not a string")
    media_type = announced or member or _shape(document)
    if media_type in SCHEMA1_MANIFESTS:
        raise Schema1UnsupportedError
    if media_type not in MANIFESTS:
        raise ManifestUnsupportedError(media_type)
    if member is not None and member != media_type:
        raise ManifestInvalidError(f"it came as {media_type} but says that it is {member[:120]!r}")
    if member is None and media_type in DOCKER_MANIFESTS:
        raise ManifestInvalidError(f"mediaType is absent, which {media_type} needs")
    return media_type


def _shape(document: JsonObject) -> str:
    """Return the OCI type of a document that nobody named; each kind refuses the other's members afterwards."""
    if document.get("schemaVersion") == 1:
        raise Schema1UnsupportedError
    if "config" in document:
        return OCI_MANIFEST
    if "manifests" in document:
        return OCI_INDEX
    raise ManifestInvalidError("it has neither a config nor manifests")


def _check_version(document: JsonObject) -> None:
    version = document.get("schemaVersion")
    if type(version) is int and version == 1:
        raise Schema1UnsupportedError
    if type(version) is not int or version != 2:
        raise ManifestInvalidError(f"schemaVersion is {str(version)[:40]}, not 2")


def _image(raw: bytes, media_type: str, document: JsonObject) -> ImageManifest:
    _refuse(document, _FOREIGN_TO_IMAGES, "an image manifest")
    config = _one(document, "config")
    if config is None:
        raise ManifestInvalidError("config is absent")
    artifact_type = parse_artifact_type(document.get("artifactType"))
    if config.media_type == OCI_EMPTY and artifact_type is None:
        raise ManifestInvalidError(f"artifactType is absent, which a config of type {OCI_EMPTY} needs")
    return ImageManifest(
        raw=raw,
        media_type=media_type,
        digest=Digest.of(raw),
        config=config,
        layers=_many(document, "layers"),
        subject=_one(document, "subject"),
        artifact_type=artifact_type,
        annotations=parse_annotations(document.get("annotations")),
    )


def _index(raw: bytes, media_type: str, document: JsonObject) -> ImageIndex:
    _refuse(document, _FOREIGN_TO_INDEXES, "an index")
    if "manifests" not in document:
        raise ManifestInvalidError("manifests is absent")
    return ImageIndex(
        raw=raw,
        media_type=media_type,
        digest=Digest.of(raw),
        manifests=_many(document, "manifests"),
        subject=_one(document, "subject"),
        artifact_type=parse_artifact_type(document.get("artifactType")),
        annotations=parse_annotations(document.get("annotations")),
    )


def _refuse(document: JsonObject, members: tuple[str, ...], noun: str) -> None:
    """Refuse members of the other kinds, with which a reader could take it for one of them (CVE-2021-41190)."""
    for member in members:
        if document.get(member) is not None:
            raise ManifestInvalidError(f"{noun} with {member} could be taken for something else")


def _one(document: JsonObject, member: str) -> Descriptor | None:
    value = document.get(member)
    if value is None:
        return None
    try:
        return Descriptor.parse(value)
    except DescriptorInvalidError as error:
        _fail(member, error)


def _many(document: JsonObject, member: str) -> tuple[Descriptor, ...]:
    values: Any = document.get(member)
    if values is None:  # Go writes an empty list as null
        return ()
    if not isinstance(values, list):
        raise ManifestInvalidError(f"{member} is {kind(values)}, not an array")
    descriptors = []
    try:
        for value in values:
            descriptors.append(Descriptor.parse(value))  # noqa: PERF401  (the position is needed when it fails)
    except DescriptorInvalidError as error:
        _fail(f"{member}[{len(descriptors)}]", error)
    return tuple(descriptors)


def _fail(where: str, error: DescriptorInvalidError) -> NoReturn:
    raise ManifestInvalidError(f"{where}: {error.member} {error.reason}") from error


def _referrer(manifest: AnyManifest, artifact_type: str | None) -> Descriptor:
    return Descriptor(
        manifest.media_type,
        manifest.digest,
        manifest.size,
        annotations=manifest.annotations,
        artifact_type=artifact_type,
    )
