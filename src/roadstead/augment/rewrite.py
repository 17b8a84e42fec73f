"""Image and plan make an image: pure, so that the same inputs give the same digests always (design decision 6).

Documents are changed where the change is and nowhere else (``oci.mutate``). What comes out is marked with the plan's
digest: as a label in the image config, which stays with the image when somebody pulls, tags and pushes it, and as an
annotation where the OCI's manifests and indexes have a place for one.

The mark is a hint and no proof, for whoever pushes an image may write one. What counts is what the image is: one whose
config was derived here under the same plan (the database knows the digest), or one that has all that the plan would
give it. Beside those, artifacts (charts, signatures, attestations) are never changed. An image of a platform that the
plan has no layers for is ``NotServed``: handing it out without them would be a silent lie.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias, TypeVar, cast

from roadstead.augment.plan import MARK, Plan, PlannedLayer, Profile
from roadstead.augment.wave import augmented_as_wave
from roadstead.oci.descriptor import Descriptor, Platform
from roadstead.oci.image_config import ImageConfig
from roadstead.oci.manifest import AnyManifest, ImageIndex, ImageManifest, parse_manifest
from roadstead.oci.mediatypes import DOCKER_MANIFESTS
from roadstead.oci.mutate import AddedLayer, Change, Image, apply, with_manifests
from roadstead.oci.strict_json import compact, parse_object

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
    DERIVED = "it was augmented by this plan here before"
    PRESENT = "it has all that the plan gives already"
    OTHER_PLATFORM = "it is for a platform that nobody asked to be augmented"


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
    manifest: ImageManifest,
    config: ImageConfig,
    plan: Plan,
    platform: Platform | None = None,
    *,
    made_here: bool = False,
) -> Image | Unchanged | NotServed:
    """Return the image with the plan's layers on top and its environment, entrypoint, cmd and workdir set. Pure.

    `platform` is what the index says that the image is for, which is what engines choose by; without it the config
    tells. `made_here`: the config was derived here under this plan, so that the image is a copy of that.
    ImageInvalidError if manifest and config don't make an image.
    """
    if not is_runnable(manifest):
        return Unchanged.ARTIFACT
    if made_here:
        return Unchanged.DERIVED
    target = platform or config.platform
    layers = plan.variant_for(target)
    if layers is None:
        return NotServed((target,))
    image = Image(manifest, config)
    lie_there = bool(layers) and config.diff_ids[-len(layers) :] == tuple(layer.tar_digest for layer in layers)
    if plan.profile is Profile.WAVE:
        changed = image if lie_there else augmented_as_wave(image, plan, layers)
        return Unchanged.PRESENT if changed.config.digest == config.digest else changed
    # Only such an image may have the plan's entrypoint because the plan gave it: then it isn't what a wrapper execs.
    again = lie_there or MARK in config.labels
    missing = () if lie_there else layers
    if again and not missing and _is_set(config, plan):
        return Unchanged.PRESENT
    derived = apply(image, _change(config, plan, missing, again=again))
    return Image(_marked(derived.manifest, plan), derived.config)


def _is_set(config: ImageConfig, plan: Plan) -> bool:
    """Say whether an image has the settings that a plan gives."""
    env = dict(entry.partition("=")[::2] for entry in config.env)  # the last one wins, as in engines
    return (
        all(env.get(name) == value for name, value in plan.env)
        and all(config.labels.get(name) == value for name, value in plan.labels)
        and (plan.entrypoint is None or (config.entrypoint or ()) == plan.entrypoint)
        and (plan.cmd is None or (config.cmd or ()) == plan.cmd)
        and (plan.workdir is None or config.workdir == plan.workdir)
    )


def derive_index(index: ImageIndex, outcomes: Sequence[Outcome], plan: Plan) -> Outcome:
    """Return the index with its entries replaced by what was derived from them, one outcome for each entry. Pure.

    Entries that are not served are left out; all others that didn't change stay untouched, attestations among them.
    If no image is left, the index is not served either; if nothing changed, it stays as it is, byte for byte, but for
    one whose platforms are all left alone: that isn't what was asked for, and is not served.
    """
    left_out = [platform for outcome in outcomes if isinstance(outcome, NotServed) for platform in outcome.platforms]
    kept = {outcome for outcome in outcomes if isinstance(outcome, Unchanged)} - {Unchanged.ARTIFACT}
    replaced = {position: _entry(outcome) for position, outcome in enumerate(outcomes) if _replaces(outcome)}
    if left_out and not kept and not any(replaced.values()):
        return NotServed(tuple(left_out))
    if not replaced:
        if kept == {Unchanged.OTHER_PLATFORM}:
            return NotServed(tuple(entry.platform for entry in index.manifests if entry.platform is not None))
        return next(iter(sorted(kept, key=lambda reason: reason.name)), Unchanged.ARTIFACT)
    return _marked(with_manifests(index, replaced), plan)


def becomes_of_others(plan: Plan, platform: Platform) -> Unchanged | NotServed | None:
    """Return what becomes of an index's image because of the platform it is for; None: it is to be derived. Pure.

    Wave augments what it was asked for, linux/amd64 if nothing was said, and leaves the others of an index in it.
    """
    if plan.profile is Profile.WAVE:
        wanted = plan.platforms or (Platform("linux", "amd64"),)
        return None if any(one.matches(platform) for one in wanted) else Unchanged.OTHER_PLATFORM
    return None if plan.is_for(platform) else NotServed((platform,))


def _change(config: ImageConfig, plan: Plan, layers: Sequence[PlannedLayer], *, again: bool) -> Change:
    env = dict(plan.env)
    if plan.entrypoint is not None and config.entrypoint and not (again and config.entrypoint == plan.entrypoint):
        chain = json.dumps(config.entrypoint, ensure_ascii=False, separators=(",", ":"))
        env.setdefault(ENTRY_CHAIN, chain)
    return Change(
        layers=tuple(
            AddedLayer(
                Descriptor(layer.compression.media_type, layer.gzip_digest, layer.gzip_size),
                layer.tar_digest,
                _CREATED_BY,
            )
            for layer in layers
        ),
        env=tuple(f"{name}={value}" for name, value in env.items()),
        entrypoint=plan.entrypoint,
        cmd=plan.cmd,
        workdir=plan.workdir,
        labels={**dict(plan.labels), MARK: str(plan.digest)},
    )


def _marked(manifest: _Manifest, plan: Plan) -> _Manifest:
    """Return the manifest with the mark among its annotations; Docker's types have no annotations, Wave no marks."""
    if manifest.media_type in DOCKER_MANIFESTS or plan.profile is Profile.WAVE:
        return manifest
    document = parse_object(manifest.raw)
    document["annotations"] = {**(document.get("annotations") or {}), MARK: str(plan.digest)}
    # The media type, which stays, decides what is parsed.
    return cast("_Manifest", parse_manifest(compact(document), manifest.media_type))


def _replaces(outcome: Outcome) -> bool:
    return not isinstance(outcome, Unchanged)


def _entry(outcome: Outcome) -> Descriptor | None:
    return outcome.descriptor() if isinstance(outcome, ImageManifest | ImageIndex) else None
