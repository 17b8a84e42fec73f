"""A request for a container, from JSON to values: what is asked for, and every reason why it can't be (pure).

What Wave builds, copies and scans isn't done here, and a request that needs it is told so; a request that Wave refuses
is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from roadstead.augment.containers import NotDoneHereError
from roadstead.augment.includes import parse_include
from roadstead.augment.locations import MAX_INLINE, LayerClaim, is_inline
from roadstead.augment.plan import Plan, PlanInvalidError, PlannedLayer, Profile, parse_variable
from roadstead.augment.wanted_layers import LayerRefusedError
from roadstead.errors import InvalidError
from roadstead.http.wave.errors import RequestInvalidError
from roadstead.http.wave.wire import ConfigBody, ContainerBody, LayerBody
from roadstead.oci.descriptor import Platform, PlatformInvalidError
from roadstead.oci.digest import Digest, DigestInvalidError

MAX_BODY = 16 << 20
"""Ten MiB of layers as base64, and room for the rest."""

MAX_LAYERS = 32
MAX_CONFIG = 256 << 10
"""Bytes of ``containerConfig`` as JSON, without its layers' own: it is kept for days, with every token."""

MAX_TEXT = 1024
"""Characters of any other text that is kept."""

MAX_INCLUDES = 10
"""Images that one request includes; Wave takes as many."""

OMITTED = "data:DATA+OMITTED"
"""What stands for a layer's bytes where a request is shown again (as Wave writes it)."""

# Wave tells the name that a build would get, which follows from what is built. That of an augmented image holds its
# token, which is random: one that was told without being kept could never be pulled, and one that is kept is no trial.
_NO_REHEARSAL = (
    "Leave it out: a name holds a random token, so none can be told beforehand. The answer has the digest that the "
    "image gets (targetDigest), DELETE /container-token/TOKEN ends a token, and one that nobody uses ends by itself."
)
_BUILDS = "Build the image elsewhere, push it here, and ask for a token for that."

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants added, before its layers are had."""

    image: str
    layers: tuple[LayerClaim, ...]
    env: tuple[tuple[str, str], ...]
    entrypoint: tuple[str, ...] | None
    cmd: tuple[str, ...] | None
    workdir: str | None
    platforms: tuple[Platform, ...]
    includes: tuple[str, ...]

    def plan(self, layers: Sequence[PlannedLayer], profile: Profile = Profile.NATIVE) -> Plan | None:
        """Return the plan with these layers; None where nothing is added. Raises RequestInvalidError."""
        if not (layers or self.env or self.entrypoint or self.cmd or self.workdir):
            return None
        try:
            return Plan(
                layers=tuple(layers),
                env=self.env,
                entrypoint=self.entrypoint,
                cmd=self.cmd,
                workdir=self.workdir,
                platforms=self.platforms,
                profile=profile,
            )
        except PlanInvalidError as error:
            raise RequestInvalidError("containerConfig", str(error)) from error

    def check(self) -> None:
        """Raise RequestInvalidError for what no plan can hold, before any layer is fetched."""
        self.plan(())


def decode(kind: type[T], body: bytes) -> T:
    """Read a request's JSON; raises RequestInvalidError."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:  # ValidationError is one of them
        raise RequestInvalidError("the request", f"it can't be read: {error}") from error
    except RecursionError as error:
        raise RequestInvalidError("the request", "it can't be read: it is too deep") from error


def wished(body: ContainerBody, *, second: bool) -> Wish:
    """Return what is asked for; `second` is ``/v1alpha2/container``. Raises what says why not."""
    _check_offer(body, second=second)
    _check_kept(body)
    config = body.container_config or ConfigBody()
    layers = config.layers or []
    if len(layers) > MAX_LAYERS:
        raise RequestInvalidError("containerConfig.layers", f"there are {len(layers)}, of {MAX_LAYERS} at the most")
    wish = Wish(
        image=image_name(body.container_image),
        layers=tuple(_layer(position, layer) for position, layer in enumerate(layers)),
        env=_env(config.env or []),
        entrypoint=tuple(config.entrypoint) if config.entrypoint else None,
        cmd=tuple(config.cmd) if config.cmd else None,
        workdir=config.working_dir or None,
        platforms=platforms(body.container_platform),
        includes=_includes(body.container_includes or []),
    )
    wish.check()
    return wish


def _check_offer(body: ContainerBody, *, second: bool) -> None:
    """Raise for what is contradictory, or of the other version, or not done here."""
    sources = [
        name
        for name, value in (
            ("containerImage", body.container_image),
            ("containerFile", body.container_file),
            ("packages", body.packages),
        )
        if value is not None
    ]
    if len(sources) > 1:
        raise RequestInvalidError(sources[1], f"it can't go with {sources[0]}: give one of them")
    if second and body.conda_file is not None:
        raise RequestInvalidError("condaFile", "this version of the API takes packages instead")
    if not second:
        for name, value in (("packages", body.packages), ("nameStrategy", body.name_strategy), ("mirror", body.mirror)):
            if value:
                raise RequestInvalidError(
                    name, "this version of the API doesn't take it; POST /v1alpha2/container does"
                )
    if body.freeze and body.mirror:
        raise RequestInvalidError("mirror", "it can't go with freeze")
    offered: tuple[tuple[str, bool, str], ...] = (
        ("containerFile", body.container_file is not None, _BUILDS),
        ("packages", body.packages is not None, _BUILDS),
        ("condaFile", body.conda_file is not None, _BUILDS),
        ("buildContext", body.build_context is not None, _BUILDS),
        (
            "freeze",
            bool(body.freeze),
            "Leave it out: the answer then names an image that is augmented as it is pulled.",
        ),
        ("mirror", bool(body.mirror), "roadstead copy copies images."),
        ("dryRun", bool(body.dry_run), _NO_REHEARSAL),
        (f"format {body.format}", body.format not in (None, "docker", "oci"), "Leave it out."),
        ("scanMode required", body.scan_mode == "required", "Leave it out: nothing is scanned here."),
    )
    for what, is_asked, instead in offered:
        if is_asked:
            raise NotDoneHereError(what, instead)


def _check_kept(body: ContainerBody) -> None:
    """Raise for what would take more room than anybody needs: it stays here for as long as the token is told of."""
    texts = (
        ("containerPlatform", body.container_platform),
        ("towerEndpoint", body.tower_endpoint),
        ("workflowId", body.workflow_id),
        ("fingerprint", body.fingerprint),
        ("timestamp", body.timestamp),
    )
    for name, text in texts:
        if text is not None and len(text) > MAX_TEXT:
            raise RequestInvalidError(name, f"it has more than {MAX_TEXT} characters")
    if body.tower_workspace_id is not None and not 0 <= body.tower_workspace_id < 1 << 63:
        raise RequestInvalidError("towerWorkspaceId", "it isn't the number of a workspace")
    if len(msgspec.json.encode(redacted(body.container_config))) > MAX_CONFIG:
        raise RequestInvalidError(
            "containerConfig",
            f"it has more than {MAX_CONFIG} bytes of JSON, not counting the bytes of layers",
            "Put what is large into a layer.",
        )


def image_name(text: str | None) -> str:
    """Return the name of an image as it was written; raises RequestInvalidError for what can't be one."""
    if text is None:
        raise RequestInvalidError("containerImage", "it is missing: name the image that the token is for")
    if not text or any(character.isspace() for character in text):
        raise RequestInvalidError("containerImage", f"{text[:120]!r} is empty or has blanks in it")
    if "://" in text:
        raise RequestInvalidError(
            "containerImage", f"{text[:120]!r} has a scheme; write it as it is pulled, HOST/NAME:TAG"
        )
    return text


def _includes(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the images to include; raises RequestInvalidError."""
    if len(texts) > MAX_INCLUDES:
        raise RequestInvalidError("containerIncludes", f"there are {len(texts)}, of {MAX_INCLUDES} at the most")
    try:
        for text in texts:
            parse_include(text)
    except InvalidError as error:
        raise RequestInvalidError("containerIncludes", str(error), error.advice()) from error
    return tuple(texts)


def _layer(position: int, layer: LayerBody) -> LayerClaim:
    """Return a layer whose parts are all there and can be read; what they say is not verified yet."""
    for name, value in (
        ("location", layer.location),
        ("gzipDigest", layer.gzip_digest),
        ("gzipSize", layer.gzip_size),
        ("tarDigest", layer.tar_digest),
    ):
        if value is None or value == "":
            raise LayerRefusedError(
                position, f"{name} is missing; a layer has location, gzipDigest, gzipSize, tarDigest"
            )
    location, size = layer.location or "", layer.gzip_size or 0
    if len(location) > MAX_INLINE:
        raise LayerRefusedError(position, f"its location is longer than {MAX_INLINE} characters")
    if size <= 0:
        raise LayerRefusedError(position, f"gzipSize is {size}; it is a number of bytes")
    return LayerClaim(
        location=location,
        gzip_digest=_digest(position, "gzipDigest", layer.gzip_digest),
        gzip_size=size,
        tar_digest=_digest(position, "tarDigest", layer.tar_digest),
    )


def _digest(position: int, member: str, text: str | None) -> Digest:
    try:
        digest = Digest.parse(text or "")
    except DigestInvalidError as error:
        raise LayerRefusedError(position, f"{member}: {error}") from error
    if digest.algorithm != "sha256":
        raise LayerRefusedError(position, f"{member} has to begin with sha256:")
    return digest


def _env(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the variables by name; of one that comes twice the last counts, as engines have it."""
    try:
        return tuple(dict(parse_variable(text) for text in texts).items())
    except PlanInvalidError as error:
        raise RequestInvalidError("containerConfig.env", str(error)) from error


def platforms(text: str | None) -> tuple[Platform, ...]:
    """Return the platforms of a list with commas, none for none; raises RequestInvalidError."""
    if text is None:
        return ()
    try:
        found = [Platform.parse(part.strip()).normalised() for part in text.split(",")]
    except PlatformInvalidError as error:
        raise RequestInvalidError("containerPlatform", str(error), error.advice()) from error
    return tuple(dict.fromkeys(found))


def redacted(config: ConfigBody | None) -> ConfigBody | None:
    """Return a config as it may be shown again: without the bytes of its layers, and without an address's secrets."""
    if config is None:
        return None
    layers = [
        LayerBody(_shown(layer.location or ""), layer.gzip_digest, layer.gzip_size, layer.tar_digest)
        for layer in config.layers or []
    ]
    return ConfigBody(config.entrypoint, config.cmd, config.env, config.working_dir, layers or None)


def _shown(location: str) -> str:
    if is_inline(location):
        return OMITTED
    path = location.partition("?")[0].partition("#")[0]  # signatures stand in the query
    scheme, separator, rest = path.partition("://")
    host, slash, after = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{after}"
