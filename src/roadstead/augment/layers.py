"""Rules get ready at service start: every layer that settings name becomes a stored layer with known digests.

A directory is packed reproducibly, a ``.tar.gz`` or ``.tar.zst`` is taken as it is, a plain ``.tar`` is compressed
without a time stamp; what a file is, its content says and not its name. Each is read to its end and checked to be a
tar, so that a broken layer stops the start and not a thousand pulls. The same file gives the same digests at every
start.

What lies elsewhere is fetched, tried again for a while where its machine doesn't answer, and checked; a start after
that finds it in storage and asks nobody. Included images are asked for at each start, as tags move.

The supervisor prepares once and hands the workers ``Rules.to_json()``.
"""

import asyncio
import gzip
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from pathlib import Path

from roadstead.augment.includes import Includes
from roadstead.augment.layer_sources import LayerSources, everything
from roadstead.augment.locations import LayerClaim, shown
from roadstead.augment.plan import Plan, PlanInvalidError, PlannedLayer, parse_variable
from roadstead.augment.ports import LayerStore
from roadstead.augment.rules import LayerSpec, Rule, RuleInvalidError, Rules, RuleSpec
from roadstead.augment.zstd import unzstd
from roadstead.errors import RoadsteadError
from roadstead.oci.digest import DigestMismatchError
from roadstead.oci.layer import GZIP_LEVEL, LayerInvalidError, PackedLayer, measure, pack
from roadstead.oci.pattern import Pattern

_PIECE = 1 << 20  # bytes compressed at a time


class LayerUnusableError(RuleInvalidError):
    """A rule's layer can't be used: it isn't there, can't be read, or isn't a tar."""

    def __init__(self, match: str, path: str | PathLike[str], reason: str) -> None:
        super().__init__(match, f"layer {str(path)!r}: {reason}")
        self.path = path

    def advice(self) -> str:
        """Return what a layer may be."""
        kinds = "a layer is a directory, a .tar, a .tar.gz or a .tar.zst"
        return f"{kinds}; relative paths are relative to the configuration file"


class LayerAbsentError(RuleInvalidError):
    """A rule's layer, or an image that it includes, can't be had from where it lies."""

    def __init__(self, match: str, place: str, error: RoadsteadError) -> None:
        super().__init__(match, f"{place}: {error}")
        self.place = place
        self._advice = error.advice()

    def advice(self) -> str:
        """Return what the place's own error advises."""
        return self._advice or "start again when it can be had: once it is stored here, it isn't asked for again"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What has layers that lie elsewhere, and included images."""

    sources: LayerSources
    includes: Includes


async def prepare_rules(
    specs: Iterable[RuleSpec],
    layers: LayerStore,
    work_directory: Path,
    now: datetime,
    elsewhere: Elsewhere | None = None,
) -> Rules:
    """Return the rules with all their layers stored durably.

    `elsewhere` is needed where a rule names a location, or includes an image. Layers that have to be packed or
    compressed are written below `work_directory` meanwhile, and removed. Idempotent. Raises PatternInvalidError,
    RuleInvalidError, LayerUnusableError or LayerAbsentError for the first rule that is wrong, naming it.
    """
    # Patterns first: a slip in the last rule is told before the first rule's layer is read.
    patterns = [(Pattern.parse(spec.match), spec) for spec in specs]
    work_directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="layers-", dir=work_directory) as scratch:
        preparation = _Preparation(layers, Path(scratch), now, elsewhere)
        return Rules([Rule(pattern, await preparation.plan(spec)) for pattern, spec in patterns])


def check_layer(path: Path) -> None:
    """Raise LayerInvalidError or OSError unless a rule could add what is at `path`. Blocking: it reads all of it."""
    path.stat()
    if path.is_dir():
        _packed_directory(path, Path(os.devnull))
    elif path.is_file():
        _measured(path)
    else:
        raise LayerInvalidError("it is neither a file nor a directory")


class _Preparation:
    """One run over all rules; a path that several rules name is read once."""

    def __init__(self, layers: LayerStore, scratch: Path, now: datetime, elsewhere: Elsewhere | None) -> None:
        self._layers = layers
        self._scratch = scratch
        self._now = now
        self._elsewhere = elsewhere
        self._packed: dict[Path, PackedLayer] = {}
        self._fetched: dict[LayerClaim, PlannedLayer] = {}

    async def plan(self, spec: RuleSpec) -> Plan:
        try:
            env = tuple(parse_variable(text) for text in spec.env)
            labels = tuple(parse_variable(text, "labels") for text in spec.labels)
            layers = tuple([await self._layer(spec.match, layer) for layer in spec.layers])
            for image in spec.includes:
                layers += await self._included(spec.match, image, layers)
            return Plan(
                layers=layers,
                env=env,
                entrypoint=None if spec.entrypoint is None else tuple(spec.entrypoint),
                cmd=None if spec.cmd is None else tuple(spec.cmd),
                workdir=spec.workdir,
                labels=labels,
                profile=spec.profile,
            )
        except PlanInvalidError as error:
            raise RuleInvalidError(spec.match, str(error)) from error

    async def _included(self, match: str, image: str, below: Sequence[PlannedLayer]) -> tuple[PlannedLayer, ...]:
        try:
            return await self._others(match).includes.layers(
                image, self._have, below=below, may_pull=everything, now=self._now
            )
        except RuleInvalidError:
            raise
        except RoadsteadError as error:
            raise LayerAbsentError(match, f"includes {image!r}", error) from error

    async def _have(self, claim: LayerClaim) -> PlannedLayer:
        if claim not in self._fetched:
            self._fetched[claim] = await self._others("").sources.have(claim)
        return self._fetched[claim]

    def _others(self, match: str) -> Elsewhere:
        if self._elsewhere is None:
            raise RuleInvalidError(match, "it names what lies elsewhere, which isn't read here")
        return self._elsewhere

    async def _layer(self, match: str, layer: LayerSpec) -> PlannedLayer:
        if layer.claim is not None:
            try:
                return await self._have(layer.claim)
            except RoadsteadError as error:
                raise LayerAbsentError(match, f"layer {shown(layer.claim.location)!r}", error) from error
        path = Path(layer.path).absolute()
        try:
            if path not in self._packed:
                self._packed[path] = await self._store(path)
        except LayerInvalidError as error:
            raise LayerUnusableError(match, layer.path, error.reason) from error
        except DigestMismatchError as error:
            raise LayerUnusableError(match, layer.path, "it changed while it was read; start again") from error
        except OSError as error:
            raise LayerUnusableError(match, layer.path, error.strerror or str(error)) from error
        packed = self._packed[path]
        return PlannedLayer(packed.gzip_digest, packed.gzip_size, packed.tar_digest, layer.platform, packed.compression)

    async def _store(self, path: Path) -> PackedLayer:
        made = self._scratch / f"{len(self._packed)}.tar.gz"
        file, packed = await asyncio.to_thread(_packed, path, made)
        if await self._layers.find(packed.gzip_digest, now=self._now) is None:
            await self._layers.store_file(str(file), packed.gzip_digest, now=self._now)
        made.unlink(missing_ok=True)
        return packed


def _packed(path: Path, made: Path) -> tuple[Path, PackedLayer]:
    """Return a gzipped layer and its measures: the file at `path` itself, or one made of it. Blocking; flat memory."""
    if path.is_dir():
        return made, _packed_directory(path, made)
    if not path.exists():
        raise LayerInvalidError("there is no such file or directory")
    if not path.is_file():
        raise LayerInvalidError("it is neither a file nor a directory")
    packed = _measured(path)
    if packed.is_compressed:
        return path, packed
    with (
        path.open("rb") as tar,
        made.open("wb") as output,
        # No name and no time in the header: the same tar gives the same layer at every start.
        gzip.GzipFile(filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=output, mtime=0) as compressed,
    ):
        shutil.copyfileobj(tar, compressed, _PIECE)
    return made, _measured(made)


def _packed_directory(directory: Path, made: Path) -> PackedLayer:
    if next(directory.iterdir(), None) is None:
        raise LayerInvalidError("the directory is empty, so that it would add nothing")
    with made.open("wb") as output:
        return pack(directory, output)


def _measured(path: Path) -> PackedLayer:
    with path.open("rb") as file:
        return measure(file, unzstd=unzstd)
