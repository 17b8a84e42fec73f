"""Image and plan make an image: pure, so that the same inputs give the same digests always (design decision 6).

Documents are changed where the change is and nowhere else (``oci.mutate``). What comes out is marked with the plan's
digest, so that it is never augmented again: as a label in the image config, which stays with the image when somebody
pulls, tags and pushes it, and as an annotation where the OCI's manifests and indexes have a place for one.

Some things are never changed, and come back as ``Unchanged``: artifacts (charts, signatures, attestations), what is
marked already, and an image on which the plan's layers already lie. An image of a platform that the plan has no
layers for is ``NotServed``: handing it out without them would be a silent lie.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias, TypeVar, cast

from roadstead.augment.plan import Plan, PlannedLayer
from roadstead.oci.descriptor import Descriptor, Platform
from roadstead.oci.image_config import ImageConfig
from roadstead.oci.manifest import AnyManifest, ImageIndex, ImageManifest, parse_manifest
from roadstead.oci.mediatypes import DOCKER_MANIFESTS, OCI_LAYER_GZIP
from roadstead.oci.mutate import AddedLayer, Change, Image, apply, with_manifests
from roadstead.oci.strict_json import compact, parse_object

MARK = "io.roadstead.augmented"
"""Label in the config and annotation on OCI manifests; the value is the plan's digest."""

ENTRY_CHAIN = "ROADSTEAD_ENTRY_CHAIN"
"""Environment variable with the entrypoint that was replaced, as a JSON array: what a wrapper has to exec.

There is one name for it. Wave's ``WAVE_ENTRY_CHAIN`` comes in two forms (a bare path or JSON) and is set whether or
not the entrypoint is replaced; that belongs to the profile that reproduces Wave's bytes, not beside this one.
"""

_CREATED_BY = "roadstead augment"
_LAYER_TYPES = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")

_Manifest = TypeVar("_Manifest", ImageManifest, ImageIndex)


class Unchanged(Enum):
    """Why something is served as it is; the value finishes the sentence "it is served as it is, because …"."""

    ARTIFACT = "it is not an image"
    MARKED = "it was augmented before"
    LAYERS_PRESENT = "the plan's layers lie on it already"


@dataclass(frozen=True, slots=True)
class NotServed:
    """The plan has no layers for these platforms, and nothing else is left to serve."""

    platforms: tuple[Platform, ...]


Outcome: TypeAlias = AnyManifest | Unchanged | NotServed
"""What became of a manifest: what was derived from it, or why nothing was."""


def is_runnable(manifest: ImageManifest) -> bool:
    """Say whether this is an image that an engine unpacks and runs, and not an artifact in an image's form.

    The config's type alone doesn't tell: cosign's signatures and BuildKit's attestations call theirs an image config.
    """
    return manifest.is_image and all(layer.media_type.startswith(_LAYER_TYPES) for layer in manifest.layers)


def derive_image(
    manifest: ImageManifest, config: ImageConfig, plan: Plan, platform: Platform | None = None
) -> Image | Unchanged | NotServed:
    """Return the image with the plan's layers on top and its environment, entrypoint, cmd and workdir set. Pure.

    `platform` is what the index says that the image is for, which is what engines choose by; without it the config
    tells. ImageInvalidError if manifest and config don't make an image.
    """
    if not is_runnable(manifest):
        return Unchanged.ARTIFACT
    if MARK in config.labels:
        return Unchanged.MARKED
    target = platform or config.platform
    layers = plan.variant_for(target)
    if layers is None:
        return NotServed((target,))
    if layers and config.diff_ids[-len(layers) :] == tuple(layer.tar_digest for layer in layers):
        return Unchanged.LAYERS_PRESENT
    image = apply(Image(manifest, config), _change(config, plan, layers))
    return Image(_marked(image.manifest, plan), image.config)


def derive_index(index: ImageIndex, outcomes: Sequence[Outcome], plan: Plan) -> Outcome:
    """Return the index with its entries replaced by what was derived from them, one outcome for each entry. Pure.

    Entries that are not served are left out; all others that didn't change stay untouched, attestations among them.
    If no image is left, the index is not served either; if nothing changed, it stays as it is, byte for byte.
    """
    left_out = [platform for outcome in outcomes if isinstance(outcome, NotServed) for platform in outcome.platforms]
    kept = {outcome for outcome in outcomes if isinstance(outcome, Unchanged)} - {Unchanged.ARTIFACT}
    replaced = {position: _entry(outcome) for position, outcome in enumerate(outcomes) if _replaces(outcome)}
    if left_out and not kept and not any(replaced.values()):
        return NotServed(tuple(left_out))
    if not replaced:
        return next(iter(sorted(kept, key=lambda reason: reason.name)), Unchanged.ARTIFACT)
    return _marked(with_manifests(index, replaced), plan)


def _change(config: ImageConfig, plan: Plan, layers: Sequence[PlannedLayer]) -> Change:
    env = dict(plan.env)
    if plan.entrypoint is not None and config.entrypoint:
        chain = json.dumps(config.entrypoint, ensure_ascii=False, separators=(",", ":"))
        env.setdefault(ENTRY_CHAIN, chain)
    return Change(
        layers=tuple(
            AddedLayer(Descriptor(OCI_LAYER_GZIP, layer.gzip_digest, layer.gzip_size), layer.tar_digest, _CREATED_BY)
            for layer in layers
        ),
        env=tuple(f"{name}={value}" for name, value in env.items()),
        entrypoint=plan.entrypoint,
        cmd=plan.cmd,
        workdir=plan.workdir,
        labels={MARK: str(plan.digest)},
    )


def _marked(manifest: _Manifest, plan: Plan) -> _Manifest:
    """Return the manifest with the mark among its annotations; Docker's types have no annotations."""
    if manifest.media_type in DOCKER_MANIFESTS:
        return manifest
    document = parse_object(manifest.raw)
    document["annotations"] = {**(document.get("annotations") or {}), MARK: str(plan.digest)}
    # The media type, which stays, decides what is parsed.
    return cast("_Manifest", parse_manifest(compact(document), manifest.media_type))


def _replaces(outcome: Outcome) -> bool:
    return not isinstance(outcome, Unchanged)


def _entry(outcome: Outcome) -> Descriptor | None:
    return outcome.descriptor() if isinstance(outcome, ImageManifest | ImageIndex) else None
