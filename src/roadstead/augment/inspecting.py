"""What an image is, where it comes from and whether it is served: asked of whatever holds it, and put together.

The command asks a registry, or the data beside its server; the server's API asks itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from roadstead.augment import inspection
from roadstead.augment.inspection import Difference, LayerFacts
from roadstead.errors import InvalidError, NotFoundError
from roadstead.oci.descriptor import Descriptor, Platform
from roadstead.oci.digest import Digest, DigestInvalidError
from roadstead.oci.image_config import ImageConfig
from roadstead.oci.manifest import ImageIndex, ImageManifest, parse_manifest
from roadstead.oci.mediatypes import SCHEMA1_MANIFESTS
from roadstead.oci.reference import Tag
from roadstead.oci.strict_json import parse_object

MAX_CONFIG = 8 << 20
MAX_STATEMENT = 4 << 20
MAX_STATEMENTS = 32
"""Statements about one image that are looked at for ours: who may push could add any number."""

MAX_DEPTH = 4
_IN_TOTO = "application/vnd.in-toto+json"
_KINDS = {
    "application/vnd.dev.cosign.artifact.sig.v1+json": "signature (cosign)",
    "application/vnd.cncf.notary.signature": "signature (notation)",
    "https://sigstore.dev/cosign/sign/v1": "signature (sigstore bundle)",
    "https://slsa.dev/provenance/v1": "provenance (SLSA)",
    "https://slsa.dev/provenance/v0.2": "provenance (SLSA)",
    "https://spdx.dev/Document": "SBOM (SPDX)",
    "https://cyclonedx.org/bom": "SBOM (CycloneDX)",
}
_NO_CONFIG = "its config is not here, so layers and settings are not shown"
_REFUSED = "a policy that requires signatures isn't met: who pulls it is refused"
_NAMED_BY = ("dev.sigstore.bundle.predicateType", "in-toto.io/predicate-type")


class PlatformMissingError(NotFoundError):
    """There is no image for the platform that was asked for."""

    def __init__(self, image: str, platform: Platform, there: Sequence[str]) -> None:
        super().__init__(f"{image} has no image for {platform}; it has {', '.join(there) or 'none at all'}")


class Verdict(Protocol):
    """What one policy says of an image's signatures (``signatures.ports.Verdict``)."""

    @property
    def policy(self) -> str:
        """Return the patterns of repositories that it is for."""
        ...

    @property
    def kind(self) -> str:
        """Return whose form the signatures have to have."""
        ...

    @property
    def required(self) -> bool:
        """Return whether an image that doesn't meet it isn't served."""
        ...

    @property
    def holds(self) -> bool:
        """Return whether it is met."""
        ...

    @property
    def reasons(self) -> Sequence[str]:
        """Return why each signature that was found doesn't hold, where none does."""
        ...


class Source(Protocol):
    """One repository, wherever it is."""

    @property
    def name(self) -> str:
        """Return the repository's name."""
        ...

    @property
    def origin(self) -> str:
        """Return whose image it is."""
        ...

    def rule(self, tag: Tag) -> str | None:
        """Return the pattern of the rule that a pull of this tag comes under, where that is known."""
        ...

    async def manifest(self, reference: Tag | Digest) -> tuple[str, bytes]:
        """Return media type and bytes of what a pull is answered with; raises a NotFoundError."""
        ...

    async def original(self, tag: Tag) -> Digest | None:
        """Return what was pushed under a tag, where that is known."""
        ...

    async def blob(self, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob whole."""
        ...

    async def referrers(self, digest: Digest) -> Sequence[Descriptor]:
        """Return what refers to a manifest."""
        ...

    async def verdicts(self, digest: Digest) -> Sequence[Verdict]:
        """Return what each signature policy for it says of a manifest; empty where none is, or none is known of."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmented:
    """What was added to an image while it was pulled."""

    plan_digest: str
    source: str | None = None
    rule: str | None = None
    plan: Mapping[str, Any] | None = None
    difference: Difference | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """Everything that is told of an image."""

    image: str
    repository: str  # the name that it has where it lies
    origin: str
    media_type: str
    digest: str
    size: int
    platforms: Sequence[Descriptor] = ()
    manifest: ImageManifest | None = None
    config: ImageConfig | None = None
    layers: Sequence[LayerFacts] = ()
    referrers: Sequence[Descriptor] = ()
    augmented: Augmented | None = None
    rule: str | None = None
    verdicts: Sequence[Verdict] = ()
    notes: Sequence[str] = ()

    @property
    def is_refused(self) -> bool:
        """Whether a policy keeps it from being served."""
        return any(verdict.required and not verdict.holds for verdict in self.verdicts)


async def inspect(
    source: Source, image: str, reference: Tag | Digest, platform: Platform | None, *, discreet: bool = False
) -> Inspected:
    """Return what is to be told of an image; *discreet*: of one that isn't served only that, and why.

    Raises PlatformMissingError, ManifestInvalidError, and what the source does.
    """
    media_type, raw = await source.manifest(reference)
    digest = Digest.of(raw, reference.algorithm) if isinstance(reference, Digest) else Digest.of(raw)
    rule = source.rule(reference) if isinstance(reference, Tag) else None
    told: dict[str, Any] = {
        "image": image,
        "repository": source.name,
        "origin": source.origin,
        "digest": str(digest),
        "size": len(raw),
        "verdicts": await source.verdicts(digest),
    }
    refused = Inspected(**told, media_type=media_type, rule=rule, notes=[_REFUSED])
    if refused.is_refused and discreet:
        return refused
    if media_type in SCHEMA1_MANIFESTS:
        return Inspected(
            **told, media_type=media_type, notes=["it is in Docker's first format, of which nothing is read"]
        )
    parsed = parse_manifest(raw, media_type if media_type.endswith("+json") else None)
    told["media_type"] = parsed.media_type
    told["referrers"] = await source.referrers(digest)
    listed = parsed.manifests if isinstance(parsed, ImageIndex) else ()
    found = await _one(source, parsed, platform, image)
    if found is None:
        return Inspected(**told, platforms=listed, rule=rule, manifest=None)
    manifest, config = found
    if config is None:
        notes = [_NO_CONFIG] if manifest.is_image else []
        return Inspected(**told, platforms=listed, rule=rule, manifest=manifest, notes=notes)
    augmented = await _augmented(source, reference, digest, told["referrers"], manifest, config, rule)
    notes = [_REFUSED] if refused.is_refused else []
    if rule and not augmented and not notes:
        notes = ["a rule matches this tag, and nothing was made of it yet: it is at the first pull"]
    return Inspected(
        **told,
        platforms=listed,
        manifest=manifest,
        config=config,
        layers=inspection.layers_of(manifest, config),
        augmented=augmented,
        rule=rule,
        notes=notes,
    )


async def _one(
    source: Source, parsed: ImageManifest | ImageIndex, platform: Platform | None, image: str
) -> tuple[ImageManifest, ImageConfig | None] | None:
    """Return one image with its config, if that is there; for an artifact none, None for an index without images."""
    is_alone = isinstance(parsed, ImageManifest)
    for _ in range(MAX_DEPTH):
        if isinstance(parsed, ImageManifest):
            if not parsed.is_image:
                return parsed, None
            config = await _config(source, parsed.config.digest)
            if is_alone and config is not None and platform is not None:
                _check_machine(image, platform, config.platform)
            return parsed, config
        entry = inspection.chosen(parsed.manifests, platform)
        if entry is None:
            if platform is not None:
                raise PlatformMissingError(
                    image, platform, [str(one.platform) for one in parsed.manifests if one.platform]
                )
            return None
        _, raw = await source.manifest(entry.digest)
        parsed = parse_manifest(raw, entry.media_type)
    return None


def _check_machine(image: str, wanted: Platform, there: Platform) -> None:
    """Refuse an image for another platform; of variants configs seldom tell."""
    if (wanted.os, wanted.architecture) != (there.os, there.architecture):
        raise PlatformMissingError(image, wanted, [str(there)])


async def _config(source: Source, digest: Digest) -> ImageConfig | None:
    """Return an image's config; None where the manifest is there without it, as of an upstream's that nobody pulled."""
    try:
        return ImageConfig.parse(await source.blob(digest, max_bytes=MAX_CONFIG))
    except NotFoundError:
        return None


async def _augmented(
    source: Source,
    reference: Tag | Digest,
    digest: Digest,
    referrers: Sequence[Descriptor],
    manifest: ImageManifest,
    config: ImageConfig,
    rule: str | None,
) -> Augmented | None:
    """Return what was added to an image that says it was augmented, and the image that it was added to."""
    plan_digest = inspection.plan_of(config)
    if plan_digest is None:
        return None
    parameters = await _provenance(source, referrers)
    original = _digest(str(parameters.get("source", "")).rpartition("@")[2])
    if original is None and isinstance(reference, Tag):
        original = await source.original(reference)
    plan = parameters.get("plan")
    told = Augmented(
        plan_digest=plan_digest,
        source=None if original is None or original == digest else str(original),
        rule=rule,
        plan=plan if isinstance(plan, dict) else None,
    )
    if told.source is None or original is None:
        return told
    try:
        media_type, raw = await source.manifest(original)
        before = await _one(source, parse_manifest(raw, media_type), config.platform, str(original))
    except (NotFoundError, InvalidError):
        return told  # its source is gone, or somebody copied the image without it, or says what isn't so
    if before is None or before[1] is None:
        return told
    difference = inspection.difference((before[0], before[1]), (manifest, config))
    return Augmented(plan_digest=plan_digest, source=told.source, rule=rule, plan=told.plan, difference=difference)


def _digest(text: str) -> Digest | None:
    """Return the digest that a statement names, whoever made it; None for anything else."""
    try:
        return Digest.parse(text)
    except DigestInvalidError:
        return None


async def _provenance(source: Source, referrers: Sequence[Descriptor]) -> dict[str, Any]:
    """Return the parameters of the statement that we made about an image; empty where there is none."""
    statements = [referrer for referrer in referrers if referrer.artifact_type == _IN_TOTO]
    for referrer in statements[:MAX_STATEMENTS]:
        try:
            media_type, raw = await source.manifest(referrer.digest)
            manifest = parse_manifest(raw, media_type)
            if isinstance(manifest, ImageManifest) and manifest.layers and manifest.layers[0].size <= MAX_STATEMENT:
                content = await source.blob(manifest.layers[0].digest, max_bytes=MAX_STATEMENT)
                definition = parse_object(content)["predicate"]["buildDefinition"]
                if str(definition["buildType"]).startswith("urn:roadstead:"):
                    return dict(definition["externalParameters"])
        except (NotFoundError, InvalidError, KeyError, TypeError):
            continue  # somebody else's, or not what it says
    return {}


def what_it_is(referrer: Descriptor) -> str:
    """Return a referrer's kind, for people."""
    named = next((referrer.annotations[name] for name in _NAMED_BY if name in referrer.annotations), None)
    kind = named or referrer.artifact_type or referrer.media_type
    told = _KINDS.get(kind, kind)
    if named is not None and (referrer.artifact_type or "").startswith("application/vnd.dev.sigstore.bundle"):
        return told if "bundle" in told else f"{told}, signed"
    return told
