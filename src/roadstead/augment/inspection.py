"""What an image is and what was made of it, for people: pure comparisons of what registries hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from roadstead.augment.plan import MARK
from roadstead.oci.descriptor import Descriptor, Platform
from roadstead.oci.image_config import ImageConfig
from roadstead.oci.manifest import ImageManifest

Words = tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """One layer of an image: its pointer, and the command that left it, where the history tells."""

    descriptor: Descriptor
    created_by: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """A value that isn't what it was; None: it wasn't there, or isn't any more."""

    before: str | Words
    after: str | Words


@dataclass(frozen=True, slots=True)
class Difference:
    """What sets one image apart from the one it was made of. Empty members say that nothing has changed."""

    added_layers: tuple[Descriptor, ...] = ()
    removed_layers: tuple[Descriptor, ...] = ()
    env: Mapping[str, Change] = field(default_factory=dict)
    labels: Mapping[str, Change] = field(default_factory=dict)
    fields: Mapping[str, Change] = field(default_factory=dict)  # entrypoint, cmd, workdir, user

    def __bool__(self) -> bool:
        return bool(self.added_layers or self.removed_layers or self.env or self.labels or self.fields)


def layers_of(manifest: ImageManifest, config: ImageConfig) -> Sequence[LayerFacts]:
    """Return the layers from the base up, with the lines of the history that left one. Pure."""
    lines = [line.created_by for line in config.history if not line.empty_layer]
    lines = lines if len(lines) == len(manifest.layers) else [None] * len(manifest.layers)
    return [LayerFacts(layer, line) for layer, line in zip(manifest.layers, lines, strict=True)]


def plan_of(config: ImageConfig) -> str | None:
    """Return the digest of the plan that an image was augmented with; None if it wasn't."""
    return config.labels.get(MARK)


def difference(before: tuple[ImageManifest, ImageConfig], after: tuple[ImageManifest, ImageConfig]) -> Difference:
    """Return what sets the later image apart from the earlier one. Pure.

    Layers are compared from the base up: what follows the last common one was removed, or added.
    """
    (old_manifest, old), (new_manifest, new) = before, after
    common = 0
    for one, other in zip(old_manifest.layers, new_manifest.layers, strict=False):
        if one.digest != other.digest:
            break
        common += 1
    return Difference(
        added_layers=new_manifest.layers[common:],
        removed_layers=old_manifest.layers[common:],
        env=_changes(_variables(old.env), _variables(new.env)),
        labels=_changes(old.labels, new.labels),
        fields={
            name: Change(was, now)
            for name, was, now in (
                ("entrypoint", old.entrypoint, new.entrypoint),
                ("cmd", old.cmd, new.cmd),
                ("workdir", old.workdir, new.workdir),
                ("user", old.user, new.user),
            )
            if was != now
        },
    )


def chosen(listed: Sequence[Descriptor], platform: Platform | None) -> Descriptor | None:
    """Return the entry of an index for a platform; without one linux/amd64, else the first that can be run."""
    runnable = [one for one in listed if one.platform is not None and one.platform.os not in ("", "unknown")]
    if platform is not None:
        return next((one for one in runnable if one.platform is not None and platform.matches(one.platform)), None)
    usual = Platform("linux", "amd64")
    return next((one for one in runnable if one.platform is not None and usual.matches(one.platform)), None) or next(
        iter(runnable), None
    )


def _variables(env: Sequence[str]) -> dict[str, str]:
    return {name: value for name, _, value in (one.partition("=") for one in env)}


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, Change]:
    names = sorted(before.keys() | after.keys())
    return {name: Change(before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}
