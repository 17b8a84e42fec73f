"""A plan: what is added to an image while it is pulled, as a value with a digest (design decision 6).

A plan doesn't know the image it will meet: its layers carry no media type (that follows the image's family), and it
may hold one layer in variants for several platforms. Its canonical JSON is what is kept beside a derivation, and
the digest of that text is what marks derived images, so the text of a plan never changes within one version::

    {"cmd":[…],"entrypoint":[…],"env":["K=V"],"labels":{"K":"V"},
     "layers":[{"compression":"zstd","gzipDigest":…,"gzipSize":…,"platform":…,"tarDigest":…}],
     "platforms":["linux/amd64"],"profile":"wave","version":1,"workdir":"/w"}

Members that say nothing are left out, so that a member which came with a later release changes no plan of before. For
``compression`` gzip is nothing to say, for ``profile`` native. For ``entrypoint`` and ``cmd``, "not given" keeps what
the image has and an empty list clears it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self, TypeVar

from roadstead.errors import InvalidError
from roadstead.oci.descriptor import Platform, PlatformInvalidError
from roadstead.oci.digest import Digest
from roadstead.oci.layer import Compression

VERSION = 1
MARK = "io.roadstead.augmented"
"""Label in the config and annotation on OCI manifests of what was derived; the value is the plan's digest."""

_MEMBERS = frozenset({"cmd", "entrypoint", "env", "labels", "layers", "platforms", "profile", "version", "workdir"})
_LAYER_MEMBERS = frozenset({"compression", "gzipDigest", "gzipSize", "platform", "tarDigest"})


class Profile(StrEnum):
    """Whose habits the rewriting has: our own, or Wave's to the byte."""

    NATIVE = "native"
    WAVE = "wave"


class PlanInvalidError(InvalidError):
    """A plan that can't be carried out, or a text that isn't a plan."""


class PlanEmptyError(PlanInvalidError):
    """A plan that would change nothing: most likely a forgotten line."""

    def __init__(self) -> None:
        super().__init__("the plan is empty: it names no layers, env, entrypoint, cmd, workdir or labels")

    def advice(self) -> str:
        """Return what to write instead."""
        return "give the rule something to add, or remove the rule"


@dataclass(frozen=True, slots=True)
class PlannedLayer:
    """A layer to put on top: its digest and size as stored, and its diff_id (``tar_digest``).

    ``gzip_*`` are of the bytes as stored, whatever their compression: most are gzip, and Wave has these names. Without
    a platform it fits every linux platform. A platform is kept normalised, without its OS version.
    """

    gzip_digest: Digest
    gzip_size: int  # bytes
    tar_digest: Digest
    platform: Platform | None = None
    compression: Compression = Compression.GZIP

    def __post_init__(self) -> None:
        if self.gzip_size <= 0:
            raise PlanInvalidError(f"layer {self.gzip_digest} has a size of {self.gzip_size} bytes")
        if self.platform is not None:
            object.__setattr__(self, "platform", _plain(self.platform))

    def fits(self, platform: Platform) -> bool:
        """Say whether the layer can go on an image of this platform."""
        if self.platform is None:
            return platform.normalised().os == "linux"
        return self.platform.matches(platform)

    def as_json(self) -> dict[str, str | int]:
        """Return the layer as its member of a plan's JSON."""
        members: dict[str, str | int] = {
            "gzipDigest": str(self.gzip_digest),
            "gzipSize": self.gzip_size,
            "tarDigest": str(self.tar_digest),
        }
        if self.platform is not None:
            members["platform"] = str(self.platform)
        if self.compression is not Compression.GZIP:
            members["compression"] = self.compression.value
        return members

    @classmethod
    def parse(cls, document: object) -> Self:
        """Read a layer from a plan's JSON; PlanInvalidError."""
        members = _object(document, _LAYER_MEMBERS, "a layer")
        size = members.get("gzipSize")
        if not isinstance(size, int) or isinstance(size, bool):
            raise PlanInvalidError(f"gzipSize of a layer must be a whole number of bytes, not {size!r}")
        platform = members.get("platform")
        try:
            return cls(
                gzip_digest=Digest.parse(_text(members.get("gzipDigest"), "gzipDigest")),
                gzip_size=size,
                tar_digest=Digest.parse(_text(members.get("tarDigest"), "tarDigest")),
                platform=None if platform is None else Platform.parse(_text(platform, "platform")),
                compression=_choice(Compression, members.get("compression", "gzip"), "compression"),
            )
        except PlanInvalidError:
            raise
        except InvalidError as error:
            raise PlanInvalidError(f"a layer of the plan can't be read: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to add to an image. Equal plans have equal texts and digests; the order of layers and of env counts.

    ``env`` and ``labels`` are ``(name, value)`` pairs, each name once; labels are kept by name. ``digest`` is the
    digest of ``canonical()``.
    """

    layers: tuple[PlannedLayer, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    workdir: str | None = None
    platforms: tuple[Platform, ...] = ()  # of an index: the others are left out; all where there are none
    labels: tuple[tuple[str, str], ...] = ()
    profile: Profile = Profile.NATIVE
    digest: Digest = field(init=False, compare=False, repr=False)
    _text: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        changes = (self.layers, self.env, self.labels)
        if not any(changes) and self.entrypoint is None and self.cmd is None and self.workdir is None:
            raise PlanEmptyError
        _check_env(self.env)
        _check_strings(self.entrypoint or (), "entrypoint")
        _check_strings(self.cmd or (), "cmd")
        if self.workdir is not None:
            _check_workdir(self.workdir)
        _check_labels(self.labels)
        object.__setattr__(self, "labels", tuple(sorted(self.labels)))
        # Made once here: every pull that a rule matches asks for the digest.
        text = json.dumps(self._as_json(), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        object.__setattr__(self, "_text", text)
        object.__setattr__(self, "digest", Digest.of(text.encode()))

    def canonical(self) -> str:
        """Return the plan as canonical JSON: compact, keys sorted. ``Plan.parse`` is the inverse."""
        return self._text

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a plan from its JSON; PlanInvalidError says what doesn't fit."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PlanInvalidError(f"the plan is not JSON: {error}") from error
        members = _object(document, _MEMBERS, "a plan")
        if members.get("version") != VERSION:
            raise PlanInvalidError(f"the plan has version {members.get('version')!r}; this release reads {VERSION}")
        workdir = members.get("workdir")
        return cls(
            layers=tuple(PlannedLayer.parse(layer) for layer in _list(members.get("layers", []), "layers")),
            env=tuple(parse_variable(_text(pair, "env")) for pair in _list(members.get("env", []), "env")),
            entrypoint=_words(members.get("entrypoint"), "entrypoint"),
            cmd=_words(members.get("cmd"), "cmd"),
            workdir=None if workdir is None else _text(workdir, "workdir"),
            platforms=_platforms(members.get("platforms", [])),
            labels=_labels(members.get("labels", {})),
            profile=_choice(Profile, members.get("profile", "native"), "profile"),
        )

    def is_for(self, platform: Platform) -> bool:
        """Say whether the images of an index that are for this platform are to be augmented."""
        return not self.platforms or any(one.matches(platform) for one in self.platforms)

    def variant_for(self, platform: Platform) -> tuple[PlannedLayer, ...] | None:
        """Return the layers for an image of this platform, bottom first; None if the plan doesn't serve it.

        A plan without layers serves every platform. Each slot (see ``slots``) must have a layer that fits: an image
        is served with all the layers of its plan or not at all.
        """
        return variant(self.layers, platform)

    def _as_json(self) -> dict[str, object]:
        members: dict[str, object] = {"version": VERSION}
        if self.layers:
            members["layers"] = [layer.as_json() for layer in self.layers]
        if self.env:
            members["env"] = [f"{name}={value}" for name, value in self.env]
        if self.entrypoint is not None:
            members["entrypoint"] = list(self.entrypoint)
        if self.cmd is not None:
            members["cmd"] = list(self.cmd)
        if self.workdir is not None:
            members["workdir"] = self.workdir
        if self.platforms:
            members["platforms"] = [str(platform) for platform in self.platforms]
        if self.labels:
            members["labels"] = dict(self.labels)
        if self.profile is not Profile.NATIVE:
            members["profile"] = self.profile.value
        return members


def _platforms(document: object) -> tuple[Platform, ...]:
    try:
        return tuple(Platform.parse(_text(text, "platforms")) for text in _list(document, "platforms"))
    except PlatformInvalidError as error:
        raise PlanInvalidError(f"the platforms of the plan can't be read: {error}") from error


def _labels(document: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(document, dict):
        raise PlanInvalidError(f"labels must be a JSON object, not {type(document).__name__}")
    return tuple((name, _text(value, f"label {name!r}")) for name, value in document.items())


_Choice = TypeVar("_Choice", bound=StrEnum)


def _choice(kind: type[_Choice], value: object, name: str) -> _Choice:
    try:
        return kind(_text(value, name))
    except ValueError as error:
        raise PlanInvalidError(f"{name} must be one of {', '.join(kind)}, not {value!r}") from error


def variant(layers: Iterable[PlannedLayer], platform: Platform) -> tuple[PlannedLayer, ...] | None:
    """Return one layer of each slot that fits a platform, bottom first; None where a slot has none."""
    chosen: list[PlannedLayer] = []
    for slot in slots(layers):
        layer = next((layer for layer in slot if layer.fits(platform)), None)
        if layer is None:
            return None
        chosen.append(layer)
    return tuple(chosen)


def slots(layers: Iterable[PlannedLayer]) -> list[list[PlannedLayer]]:
    """Group a plan's layers into slots, bottom first: the variants of one layer share a slot.

    A layer without a platform is a slot of its own. Among neighbours that have one, the n-th layer of each platform
    belongs to the n-th slot: ``a/amd64 a/arm64 b/amd64 b/arm64`` and ``a/amd64 b/amd64 a/arm64 b/arm64`` both mean
    a below b.
    """
    found: list[list[PlannedLayer]] = []
    run: list[list[PlannedLayer]] = []
    seen: dict[Platform, int] = {}
    for layer in layers:
        if layer.platform is None:
            found += [*run, [layer]]
            run, seen = [], {}
            continue
        position = seen.get(layer.platform, 0)
        seen[layer.platform] = position + 1
        if position == len(run):
            run.append([])
        run[position].append(layer)
    return found + run


def _plain(platform: Platform) -> Platform:
    """Return the platform as a plan's text has it; PlanInvalidError where the text wouldn't give it back."""
    plain = Platform(platform.os, platform.architecture, platform.variant).normalised()
    try:
        read = Platform.parse(str(plain))
    except InvalidError as error:
        raise PlanInvalidError(f"a layer's platform can't be {str(plain)!r}: {error}") from error
    if read != plain:
        raise PlanInvalidError(f"a layer's platform can't be {str(plain)!r}, which reads as {read}")
    return plain


def parse_variable(text: str, where: str = "env") -> tuple[str, str]:
    """Read ``NAME=value`` (the value may be empty and may hold ``=``); PlanInvalidError."""
    name, equals, value = text.partition("=")
    if not equals:
        raise PlanInvalidError(f"{where} {text!r} has no '='; write {text}=VALUE, or {text}= for an empty value")
    return name, value


def _check_env(env: Iterable[tuple[str, str]]) -> None:
    names: set[str] = set()
    for name, value in env:
        if not name or "=" in name:
            raise PlanInvalidError(f"env has a name that can't be: {name!r}; write NAME=value")
        if name in names:
            raise PlanInvalidError(f"env names {name} twice; keep one of the two")
        names.add(name)
        _check_strings((name, value), f"env {name!r}")


def _check_labels(labels: Iterable[tuple[str, str]]) -> None:
    names: set[str] = set()
    for name, value in labels:
        if not name:
            raise PlanInvalidError("labels have one without a name")
        if name == MARK:
            raise PlanInvalidError(f"the label {MARK} is set by itself; take it out")
        if name in names:
            raise PlanInvalidError(f"labels name {name} twice; keep one of the two")
        names.add(name)
        _check_strings((name, value), f"the label {name!r}")


def _check_strings(values: Iterable[str], where: str) -> None:
    for value in values:
        if "\0" in value:
            raise PlanInvalidError(f"{where} holds a NUL character, which no process can be given")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise PlanInvalidError(f"{where} holds text that isn't Unicode: {value!r}") from error


def _check_workdir(workdir: str) -> None:
    _check_strings((workdir,), "workdir")
    if not workdir.startswith("/"):
        raise PlanInvalidError(f"workdir {workdir!r} is not an absolute path; start it with /")


def _object(document: object, members: frozenset[str], what: str) -> Mapping[str, object]:
    if not isinstance(document, dict):
        raise PlanInvalidError(f"{what} must be a JSON object, not {type(document).__name__}")
    unknown = sorted(str(key) for key in document.keys() - members)
    if unknown:
        raise PlanInvalidError(f"{what} has no member {unknown[0]!r}; known are {', '.join(sorted(members))}")
    return document


def _list(value: object, name: str) -> list[object]:
    if not isinstance(value, list):
        raise PlanInvalidError(f"{name} must be a list, not {type(value).__name__}")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise PlanInvalidError(f"{name} must be text, not {value!r}")
    return value


def _words(value: object, name: str) -> tuple[str, ...] | None:
    return None if value is None else tuple(_text(word, name) for word in _list(value, name))
