"""Images as files: OCI image layouts (image-spec image-layout.md), and archives of ``docker save``.

A layout holds manifests with their exact bytes, and so does an archive of Docker 25 or later, which is a layout too;
these are what a registry stores. An older archive, and podman's or skopeo's ``docker-archive``, has no manifest: one is
made of its config and layers, the same at every time. Layers lie in such an archive as they were unpacked, and stay so:
their bytes are their diff_id's, and the image's id stays what it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, BinaryIO, cast

import zstandard

from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Algorithm, Digest, DigestInvalidError, Hasher
from roadstead.oci.layer import DEFAULT_MAX_BYTES as MAX_LAYER_BYTES
from roadstead.oci.layer import LayerInvalidError, LayerTooLargeError, measure
from roadstead.oci.manifest import ManifestInvalidError, parse_index
from roadstead.oci.mediatypes import (
    MANIFESTS,
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    OCI_LAYER_TAR,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
)
from roadstead.oci.reference import (
    ImageReference,
    ReferenceInvalidError,
    RepositoryName,
    Tag,
    TagInvalidError,
)
from roadstead.oci.strict_json import JsonInvalidError, compact, kind, parse_object
from roadstead.registry.bundle import Bundle, BundleFile, BundleInvalidError

MAX_DOCUMENT_BYTES = 4 << 20
"""What is read into memory at once: lists of images, manifests, configs of images without a manifest."""

LAYOUT_FILE = "oci-layout"
INDEX_FILE = "index.json"
SAVED_FILE = "manifest.json"
LEGACY_FILE = "repositories"

REF_NAME = "org.opencontainers.image.ref.name"
"""image-spec annotations.md: the tag, or what a client was told to call the image, often a whole reference."""

CONTAINERD_NAME = "io.containerd.image.name"
"""containerd's and Docker's: the whole reference."""

MAX_IMAGES = 10_000
"""Images that one archive may hold."""

_PIECE = 1 << 20
_GZIP_MAGIC, _ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Format(StrEnum):
    """What images are saved as."""

    LAYOUT = "oci-layout"
    ARCHIVE = "docker-archive"


class NameUnusableError(Exception):
    """What an image is called in a bundle can't name one in a registry."""


@dataclass(frozen=True, slots=True)
class ImageName:
    """What a bundle calls an image; each part may be missing."""

    repository: RepositoryName | None = None
    tag: Tag | None = None


@dataclass(frozen=True, slots=True)
class SavedImage:
    """An image, index or artifact at the top of a bundle."""

    descriptor: Descriptor
    name: ImageName


@dataclass(slots=True)
class Unusable:
    """Something at the top of a bundle that can't be an image in a registry, and why."""

    what: str
    reason: str


@dataclass(slots=True)
class Saved:
    """The images of a bundle, and where their content lies. Lookups block."""

    bundle: Bundle
    images: list[SavedImage] = field(default_factory=list)
    unusable: list[Unusable] = field(default_factory=list)
    _made: dict[Digest, bytes] = field(default_factory=dict)
    _files: dict[Digest, BundleFile] = field(default_factory=dict)

    def size(self, digest: Digest) -> int | None:
        """Return how many bytes there are of a digest; None where there are none. Raises BundleInvalidError."""
        if digest in self._made:
            return len(self._made[digest])
        file = self._find(digest)
        return None if file is None else file.size

    def read(self, digest: Digest) -> bytes:
        """Return small content whole; raises BundleInvalidError where there is none or it is too large."""
        if digest in self._made:
            return self._made[digest]
        file = self._find(digest)
        if file is None:
            raise BundleInvalidError(self.bundle.where, f"{digest} is not in it")
        return read_small(self.bundle, file)

    def open(self, digest: Digest) -> BinaryIO:
        """Return the bytes of what `size` found."""
        file = self._find(digest)
        if file is None:
            raise BundleInvalidError(self.bundle.where, f"{digest} is not in it")
        return self.bundle.open(file)

    def make(self, media_type: str, raw: bytes) -> Descriptor:
        """Add content that isn't in the bundle."""
        digest = Digest.of(raw)
        self._made[digest] = raw
        return Descriptor(media_type, digest, len(raw))

    def place(self, digest: Digest, file: BundleFile) -> None:
        """Say where a digest's bytes lie, if not where a layout has them."""
        self._files[digest] = file

    def _find(self, digest: Digest) -> BundleFile | None:
        return self._files.get(digest) or self.bundle.find(f"blobs/{digest.algorithm}/{digest.encoded}")


def detect(bundle: Bundle) -> Format:
    """Return what a bundle is; what is both is read as a layout. Raises BundleInvalidError. Blocking."""
    if bundle.find(LAYOUT_FILE) is not None and bundle.find(INDEX_FILE) is not None:
        return Format.LAYOUT
    if bundle.find(SAVED_FILE) is not None:
        return Format.ARCHIVE
    if bundle.find(LEGACY_FILE) is not None:
        raise BundleInvalidError(
            bundle.where, "it was saved by Docker before 1.10, in a format without manifests; load it and save it anew"
        )
    raise BundleInvalidError(
        bundle.where,
        f"it is neither an OCI layout ({LAYOUT_FILE} and {INDEX_FILE}) nor an archive of docker save ({SAVED_FILE})",
    )


def read_saved(bundle: Bundle, format: Format) -> Saved:  # noqa: A002 -- the word for it
    """Return the images of a bundle; raises BundleInvalidError where it can't be read at all. Blocking."""
    return _read_layout(bundle) if format is Format.LAYOUT else _read_archive(bundle)


def read_small(bundle: Bundle, file: BundleFile) -> bytes:
    """Return a small file's bytes; raises BundleInvalidError. Blocking."""
    if file.size > MAX_DOCUMENT_BYTES:
        raise BundleInvalidError(bundle.where, f"{file.name!r} has {file.size:,} bytes, which no manifest has")
    with bundle.open(file) as stream:
        # A file that grows meanwhile isn't followed.
        return stream.read(file.size)


# OCI layouts -----------------------------------------------------------------------------------------------------


def _read_layout(bundle: Bundle) -> Saved:
    _check_version(bundle)
    try:
        index = parse_index(_document(bundle, INDEX_FILE), None)
    except ManifestInvalidError as error:
        raise BundleInvalidError(bundle.where, f"{INDEX_FILE}: {error.reason}") from error
    _check_count(bundle, INDEX_FILE, len(index.manifests))
    saved = Saved(bundle)
    for descriptor in index.manifests:
        if descriptor.media_type not in MANIFESTS:
            saved.unusable.append(Unusable(str(descriptor.digest), f"its type is {descriptor.media_type}"))
            continue
        try:
            saved.images.append(SavedImage(descriptor, _name_of(descriptor)))
        except NameUnusableError as error:
            saved.unusable.append(Unusable(str(descriptor.digest), str(error)))
    return saved


def _check_version(bundle: Bundle) -> None:
    try:
        version = parse_object(_document(bundle, LAYOUT_FILE)).get("imageLayoutVersion")
    except JsonInvalidError as error:
        raise BundleInvalidError(bundle.where, f"{LAYOUT_FILE}: {error.reason}") from error
    if not isinstance(version, str) or not version.startswith("1."):
        raise BundleInvalidError(bundle.where, f"{LAYOUT_FILE}: imageLayoutVersion is {str(version)[:40]!r}, not 1.x")


def _name_of(descriptor: Descriptor) -> ImageName:
    whole, ref = descriptor.annotations.get(CONTAINERD_NAME), descriptor.annotations.get(REF_NAME)
    if whole is not None:
        return parse_name(whole)
    if ref is None:
        return ImageName()
    if any(mark in ref for mark in "/:@"):  # no tag has these: clients write whole references here too
        return parse_name(ref)
    try:
        return ImageName(tag=Tag.parse(ref))
    except TagInvalidError as error:
        raise NameUnusableError(str(error)) from error


def parse_name(text: str) -> ImageName:
    """Return what a whole reference names, without its host: it is to be this registry's now. Pure.

    Raises NameUnusableError.
    """
    if text.partition(":")[0] in set(Algorithm):  # it would be read as a repository `sha256` with a long tag
        raise NameUnusableError(f"{text[:80]!r} is a digest, not a name")
    try:
        reference = ImageReference.parse(text, default_tag=None)
    except ReferenceInvalidError as error:
        raise NameUnusableError(str(error)) from error
    return ImageName(reference.repository, reference.tag)


# Archives of docker save -----------------------------------------------------------------------------------------


def _read_archive(bundle: Bundle) -> Saved:
    saved = Saved(bundle)
    for position, entry in enumerate(_entries(bundle)):
        where = f"{SAVED_FILE}[{position}]"
        try:
            descriptor, texts = _made_image(saved, where, entry), _texts(bundle, where, entry, "RepoTags")
        except (BundleInvalidError, LayerInvalidError) as error:
            saved.unusable.append(Unusable(where, error.reason))
            continue
        for text in texts:
            try:
                saved.images.append(SavedImage(descriptor, parse_name(text)))
            except NameUnusableError as error:
                saved.unusable.append(Unusable(text[:200], str(error)))
        if not texts:
            saved.images.append(SavedImage(descriptor, ImageName()))
    return saved


def _entries(bundle: Bundle) -> Sequence[dict[str, Any]]:
    raw = _document(bundle, SAVED_FILE)
    try:
        # It is an array, and only objects are read strictly: its own place is in one.
        entries = parse_object(b'{"images":' + raw + b"}")["images"]
    except JsonInvalidError as error:
        raise BundleInvalidError(bundle.where, f"{SAVED_FILE}: {error.reason}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BundleInvalidError(bundle.where, f"{SAVED_FILE} isn't an array of objects")
    _check_count(bundle, SAVED_FILE, len(entries))
    return entries


def _check_count(bundle: Bundle, name: str, count: int) -> None:
    if count > MAX_IMAGES:
        raise BundleInvalidError(bundle.where, f"{name} lists {count:,} images; {MAX_IMAGES:,} at most")


def _made_image(saved: Saved, where: str, entry: dict[str, Any]) -> Descriptor:
    """Make the manifest of one image, and return what points at it."""
    bundle = saved.bundle
    name = entry.get("Config")
    if not isinstance(name, str):
        raise BundleInvalidError(bundle.where, f"{where}: Config is {kind(name)}, not a string")
    config_raw = _document(bundle, name)
    config = _config(saved, name, config_raw)
    paths, diff_ids = _texts(bundle, where, entry, "Layers"), _diff_ids(bundle, name, config_raw)
    if len(paths) != len(diff_ids):
        raise BundleInvalidError(
            bundle.where, f"{where} has {len(paths)} layers, but its config says {len(diff_ids)} (rootfs.diff_ids)"
        )
    layers = [_layer(saved, path, diff_id) for path, diff_id in zip(paths, diff_ids, strict=True)]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.as_json(),
        "layers": [layer.as_json() for layer in layers],
    }
    return saved.make(OCI_MANIFEST, compact(document))


def _config(saved: Saved, name: str, raw: bytes) -> Descriptor:
    """Return the config's descriptor; its name is the image's id, if it is that of a digest."""
    stem = name.rpartition("/")[2].removesuffix(".json")
    digest = Digest.of(raw)
    if len(stem) == Algorithm.SHA256.hex_length and stem != digest.encoded:
        raise BundleInvalidError(saved.bundle.where, f"the config {name!r} has the digest {digest}: it is damaged")
    file = saved.bundle.find(name)
    assert file is not None  # noqa: S101 -- it was read just now
    saved.place(digest, file)
    return Descriptor(OCI_CONFIG, digest, len(raw))


def _diff_ids(bundle: Bundle, name: str, raw: bytes) -> Sequence[Digest]:
    try:
        rootfs = parse_object(raw).get("rootfs")
        diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        if not isinstance(diff_ids, list) or not all(isinstance(one, str) for one in diff_ids):
            raise BundleInvalidError(bundle.where, f"the config {name!r} has no rootfs.diff_ids")
        return [Digest.parse(one) for one in diff_ids]
    except (JsonInvalidError, DigestInvalidError) as error:
        raise BundleInvalidError(bundle.where, f"the config {name!r}: {error}") from error


def _layer(saved: Saved, path: str, diff_id: Digest) -> Descriptor:
    """Return a layer's descriptor. A plain tar's digest is its diff_id, and is checked when the layer is stored."""
    bundle = saved.bundle
    file = bundle.find(path)
    if file is None:
        raise BundleInvalidError(bundle.where, f"the layer {path!r} is not in it")
    with bundle.open(file) as stream:
        first = stream.read(len(_ZSTD_MAGIC))
    if first.startswith(_GZIP_MAGIC):
        digest, media_type = _measured(bundle, file, diff_id), OCI_LAYER_GZIP
    elif first == _ZSTD_MAGIC:
        digest, media_type = _measured_zstd(bundle, file, diff_id), OCI_LAYER_ZSTD
    else:
        digest, media_type = diff_id, OCI_LAYER_TAR
    saved.place(digest, file)
    return Descriptor(media_type, digest, file.size)


def _measured(bundle: Bundle, file: BundleFile, diff_id: Digest) -> Digest:
    with bundle.open(file) as stream:
        layer = measure(stream)
    _check_diff_id(bundle, file, layer.tar_digest, diff_id)
    return layer.gzip_digest


def _measured_zstd(bundle: Bundle, file: BundleFile, diff_id: Digest) -> Digest:
    stored, unpacked = Hasher(), Hasher()
    try:
        with bundle.open(file) as stream:
            reader = zstandard.ZstdDecompressor().stream_reader(
                cast("BinaryIO", _Watched(stream, stored)), read_across_frames=True
            )
            while piece := reader.read(_PIECE):
                unpacked.update(piece)
                if unpacked.size > MAX_LAYER_BYTES:
                    raise LayerTooLargeError(MAX_LAYER_BYTES)
    except zstandard.ZstdError as error:
        raise LayerInvalidError(f"the zstd of {file.name!r} is broken: {error}") from error
    _check_diff_id(bundle, file, unpacked.digest(), diff_id)
    return stored.digest()


class _Watched:
    """A stream whose bytes a hasher sees."""

    def __init__(self, stream: BinaryIO, hasher: Hasher) -> None:
        self._stream = stream
        self._hasher = hasher

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._hasher.update(data)
        return data


def _check_diff_id(bundle: Bundle, file: BundleFile, found: Digest, wanted: Digest) -> None:
    if found != wanted:
        raise BundleInvalidError(bundle.where, f"the layer {file.name!r} unpacks to {found}, not {wanted}")


def _texts(bundle: Bundle, where: str, entry: dict[str, Any], member: str) -> list[str]:
    values = entry.get(member)
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise BundleInvalidError(bundle.where, f"{where}: {member} isn't an array of strings")
    return values


def _document(bundle: Bundle, name: str) -> bytes:
    file = bundle.find(name)
    if file is None:
        raise BundleInvalidError(bundle.where, f"{name!r} is not in it")
    return read_small(bundle, file)
