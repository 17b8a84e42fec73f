"""A new image from an old one: arithmetic on values, pure, the same digests for the same inputs.

The documents are changed where the change is and nowhere else: members keep their order, unknown ones stay. What a
change leaves as it was is returned as it was, byte for byte; a changed document is written compactly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from roadstead.errors import InvalidError
from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.oci.image_config import ImageConfig
from roadstead.oci.layer import PackedLayer
from roadstead.oci.manifest import ImageIndex, ImageManifest, parse_image, parse_index
from roadstead.oci.mediatypes import like
from roadstead.oci.strict_json import JsonObject, compact, parse_object

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""When an added layer says it was made, unless a plan says otherwise: a clock would make each pull's digest another."""


class ImageInvalidError(InvalidError):
    """A manifest and a config don't make an image together."""

    def __init__(self, manifest: Digest, reason: str) -> None:
        super().__init__(f"{manifest} isn't an image that can be changed: {reason}")
        self.manifest = manifest
        self.reason = reason


class ChangeInvalidError(InvalidError):
    """A change can't be made to any image: an environment entry without a name, a position that isn't there."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the image can't be changed like this: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Image:
    """One platform's image: a manifest and the config it points to."""

    manifest: ImageManifest
    config: ImageConfig

    def __post_init__(self) -> None:
        pointer = self.manifest.config
        if not self.manifest.is_image:
            raise ImageInvalidError(self.manifest.digest, f"its config is of type {pointer.media_type}")
        if Digest.of(self.config.raw, pointer.digest.algorithm) != pointer.digest:
            raise ImageInvalidError(self.manifest.digest, f"its config is {pointer.digest}, not {self.config.digest}")
        layers, diff_ids = len(self.manifest.layers), len(self.config.diff_ids)
        if layers != diff_ids:  # engines refuse to unpack it
            raise ImageInvalidError(self.manifest.digest, f"it has {layers} layers and {diff_ids} diff_ids")


@dataclass(frozen=True, slots=True)
class AddedLayer:
    """A layer to put on top: its pointer, its diff_id, and what the history says of it."""

    descriptor: Descriptor
    diff_id: Digest
    created_by: str = "roadstead"

    @classmethod
    def of(cls, packed: PackedLayer, created_by: str = "roadstead") -> "AddedLayer":
        """Return the layer that was packed or measured."""
        return cls(packed.descriptor(), packed.tar_digest, created_by)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What to do to an image. None leaves a thing alone; an empty ``entrypoint`` or ``cmd`` takes it away."""

    layers: tuple[AddedLayer, ...] = ()
    env: tuple[str, ...] = ()
    """``NAME=value`` each."""

    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    workdir: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    created: datetime = EPOCH


def apply(image: Image, change: Change) -> Image:
    """Return *image* with everything that *change* says; the image itself when that is nothing."""
    image = with_layers(image, change.layers, created=change.created)
    image = with_labels(with_env(image, change.env), change.labels)
    if change.entrypoint is not None:
        image = with_entrypoint(image, change.entrypoint)
    if change.cmd is not None:
        image = with_cmd(image, change.cmd)
    return image if change.workdir is None else with_workdir(image, change.workdir)


def with_layers(image: Image, layers: Sequence[AddedLayer], *, created: datetime = EPOCH) -> Image:
    """Return *image* with *layers* on top, in order, typed as its manifest's family types them.

    Each gets its diff_id and an entry in the history. An image that has layers but no history gets none: a history
    that tells of some layers only is refused by tools that count (image-spec config.md, ``history``).
    """
    if not layers:
        return image
    document = parse_object(image.config.raw)
    rootfs = document.get("rootfs") or {"type": "layers"}
    rootfs["diff_ids"] = [*(rootfs.get("diff_ids") or ()), *(str(layer.diff_id) for layer in layers)]
    document["rootfs"] = rootfs
    if image.config.history or not image.config.diff_ids:
        entries = [{"created": _rfc3339(created), "created_by": layer.created_by} for layer in layers]
        document["history"] = [*(document.get("history") or ()), *entries]
    return _rebuilt(image, document, [_entry(image.manifest, layer.descriptor) for layer in layers])


def with_env(image: Image, env: Sequence[str]) -> Image:
    """Return *image* with ``NAME=value`` entries set: known names keep their place, new ones follow in order.

    An entry that the image has more than once (the last wins in engines) is left once, in its first place.
    """
    if not env:
        return image
    changed = dict(_split(entry) for entry in env)
    merged: dict[str, str] = {}
    for position, entry in enumerate(image.config.env):
        name = entry.partition("=")[0]
        if name in changed:
            merged.setdefault(name, f"{name}={changed[name]}")
        else:
            merged[f"={position}"] = entry  # no name begins with '=', so what isn't changed stays, even twice
    for name, value in changed.items():
        merged.setdefault(name, f"{name}={value}")
    return _with_setting(image, "Env", list(merged.values()))


def with_entrypoint(image: Image, entrypoint: Sequence[str]) -> Image:
    """Return *image* with another entry point, none if it is empty. The command stays."""
    return _with_setting(image, "Entrypoint", list(entrypoint))


def with_cmd(image: Image, cmd: Sequence[str]) -> Image:
    """Return *image* with another command, none if it is empty."""
    return _with_setting(image, "Cmd", list(cmd))


def with_workdir(image: Image, workdir: str) -> Image:
    """Return *image* with another working directory, none if it is empty."""
    return _with_setting(image, "WorkingDir", workdir)


def with_labels(image: Image, labels: Mapping[str, str]) -> Image:
    """Return *image* with *labels* set: known ones keep their place, new ones follow by name."""
    if not labels:
        return image
    return _with_setting(image, "Labels", {**image.config.labels, **dict(sorted(labels.items()))})


def with_manifests(index: ImageIndex, replacements: Mapping[int, Descriptor | None]) -> ImageIndex:
    """Return *index* with the entries at those positions pointing elsewhere, or gone where there is None.

    An entry that points elsewhere keeps its platform, its annotations and whatever else it says; only type, digest and
    size change. All others stay untouched, attestations among them.
    """
    unknown = [position for position in replacements if not 0 <= position < len(index.manifests)]
    if unknown:
        raise ChangeInvalidError(f"the index has {len(index.manifests)} entries, none at position {unknown[0]}")
    document = parse_object(index.raw)
    entries = document.get("manifests") or []
    kept = [
        _pointing(entry, replacement) if replacement is not None else entry
        for position, entry in enumerate(entries)
        if (replacement := replacements.get(position)) is not None or position not in replacements
    ]
    if kept == entries:
        return index
    document["manifests"] = kept
    return parse_index(compact(document), index.media_type)


def _pointing(entry: JsonObject, target: Descriptor) -> JsonObject:
    """Return *entry* with another target, its members in their order; embedded content was the old target's."""
    changed = entry | {"mediaType": target.media_type, "digest": str(target.digest), "size": target.size}
    if changed != entry:
        changed.pop("data", None)
    return changed


def _with_setting(image: Image, member: str, value: Any) -> Image:
    """Return *image* with one member of ``config`` set, or absent when *value* is empty."""
    document = parse_object(image.config.raw)
    settings = document.get("config") or {}
    if settings.get(member) == value or not (settings.get(member) or value):
        return image
    if value:
        settings[member] = value
    else:
        del settings[member]
    document["config"] = settings
    return _rebuilt(image, document, ())


def _rebuilt(image: Image, config_document: JsonObject, added: Sequence[JsonObject]) -> Image:
    """Return the image whose config is *config_document* and whose manifest has the layers *added*."""
    try:
        config = ImageConfig.parse(compact(config_document))
    except UnicodeEncodeError as error:
        raise ChangeInvalidError("a text in it has no UTF-8 form") from error
    document = parse_object(image.manifest.raw)
    pointer = Descriptor(image.manifest.config.media_type, config.digest, config.size)
    document["config"] = _pointing(document["config"], pointer)
    if added:
        document["layers"] = [*(document.get("layers") or ()), *added]
    return Image(parse_image(compact(document), image.manifest.media_type), config)


def _entry(manifest: ImageManifest, layer: Descriptor) -> JsonObject:
    return layer.as_json() | {"mediaType": like(manifest.media_type, layer.media_type)}


def _split(entry: str) -> tuple[str, str]:
    name, equals, value = entry.partition("=")
    if not name or not equals or "\x00" in entry:
        raise ChangeInvalidError(f"the environment entry {entry[:80]!r} isn't NAME=value")
    return name, value


def _rfc3339(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise ChangeInvalidError("its time has no zone")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
