"""The profile that gives Wave's bytes (``augment.profile = "wave"``): for scripts and caches that rely on its habits.

What is different from the native profile: added layers have Docker's type in OCI manifests too, and their members in
another order; there is no mark, and the history stays; the environment is appended to, a name it has already among it;
the entrypoint of the image is handed on in ``WAVE_ENTRY_CHAIN`` whether or not it is replaced, as a bare path or, of
more words than one, as JSON. Empty lists change nothing. Sizes count bytes (Wave's count characters, which is wrong for
configs that aren't ASCII), and a layer of zstd has Docker's type for zstd: those two habits would make broken images.
"""

import json
from collections.abc import Sequence
from typing import Any

from roadstead.augment.plan import Plan, PlannedLayer
from roadstead.oci.image_config import ImageConfig
from roadstead.oci.manifest import parse_image
from roadstead.oci.mediatypes import docker_twin
from roadstead.oci.mutate import Image
from roadstead.oci.strict_json import JsonObject, compact, parse_object

ENTRY_CHAIN = "WAVE_ENTRY_CHAIN"


def augmented_as_wave(image: Image, plan: Plan, layers: Sequence[PlannedLayer]) -> Image:
    """Return the image as Wave would make it: layers on top, settings merged, documents compact. Pure."""
    config = ImageConfig.parse(compact(_config(parse_object(image.config.raw), image.config, plan, layers)))
    manifest = parse_object(image.manifest.raw)
    manifest["config"] = {**manifest["config"], "digest": str(config.digest), "size": config.size}
    if layers:
        manifest["layers"] = [*(manifest.get("layers") or ()), *(_descriptor(layer) for layer in layers)]
    return Image(parse_image(compact(manifest), image.manifest.media_type), config)


def _descriptor(layer: PlannedLayer) -> JsonObject:
    return {
        "mediaType": docker_twin(layer.compression.media_type),
        "size": layer.gzip_size,
        "digest": str(layer.gzip_digest),
    }


def _config(document: JsonObject, before: ImageConfig, plan: Plan, layers: Sequence[PlannedLayer]) -> JsonObject:
    if layers:
        rootfs = document.get("rootfs") or {"type": "layers"}
        rootfs["diff_ids"] = [*(rootfs.get("diff_ids") or ()), *(str(layer.tar_digest) for layer in layers)]
        document["rootfs"] = rootfs
    changes = _settings(before, plan)
    if changes:
        document["config"] = {**(document.get("config") or {}), **changes}
    return document


def _settings(before: ImageConfig, plan: Plan) -> dict[str, Any]:
    """Return the members of ``config`` that are written anew."""
    changes: dict[str, Any] = {}
    if plan.entrypoint:
        changes["Entrypoint"] = list(plan.entrypoint)
    if plan.cmd:
        changes["Cmd"] = list(plan.cmd)
    if plan.workdir:
        changes["WorkingDir"] = plan.workdir
    added = [f"{name}={value}" for name, value in plan.env]
    if before.entrypoint:
        added.append(f"{ENTRY_CHAIN}={_chain(before.entrypoint)}")
    if added:
        changes["Env"] = [*before.env, *added]
    if plan.labels:  # Wave has none to give
        changes["Labels"] = {**before.labels, **dict(plan.labels)}
    return changes


def _chain(entrypoint: Sequence[str]) -> str:
    if len(entrypoint) == 1:
        return entrypoint[0]
    return json.dumps(entrypoint, ensure_ascii=False, separators=(",", ":"))
