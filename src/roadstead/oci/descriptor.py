"""Typed pointers to content (image-spec descriptor.md) and the platforms they are for (image-index.md)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from roadstead.errors import InvalidError
from roadstead.oci.digest import Digest, DigestInvalidError
from roadstead.oci.mediatypes import NON_DISTRIBUTABLE
from roadstead.oci.strict_json import kind

MAX_SIZE = 2**63 - 1
"""Bytes; image-spec descriptor.md: ``size`` is an int64."""

ATTESTATION_ANNOTATION = "vnd.docker.reference.type"
ATTESTATION_MANIFEST = "attestation-manifest"

_MEDIA_TYPE = re.compile(r"[\x20-\x7e]{1,255}+")
_URL_TEXT = re.compile(r"[\x21-\x5b\x5d-\x7e]++")  # a backslash is a slash to browsers, and a way to another host
_FIELDS = frozenset({"mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"})
_FOLDED_FIELDS = frozenset(name.casefold() for name in _FIELDS)
_PLATFORM_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}+")

_ARCHITECTURES = {
    "x86_64": ("amd64", None),
    "x86-64": ("amd64", None),
    "aarch64": ("arm64", None),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "i386": ("386", None),
    "i686": ("386", None),
}
_OPERATING_SYSTEMS = {"macos": "darwin"}
_KNOWN_ARCHITECTURES = frozenset(
    {"386", "amd64", "arm", "arm64", "loong64", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64", "s390x", "wasm"}
).union(_ARCHITECTURES)
# The variant that an architecture has when none is said, so that both spellings are one platform.
_PLAIN_VARIANTS = {("arm64", "v8"): None, ("amd64", "v1"): None, ("arm", None): "v7"}


class DescriptorInvalidError(InvalidError):
    """A descriptor breaks image-spec descriptor.md; ``member`` is where, ``reason`` what is wrong with it."""

    def __init__(self, member: str, reason: str) -> None:
        super().__init__(f"descriptor: {member} {reason}")
        self.member = member
        self.reason = reason


class PlatformInvalidError(InvalidError):
    """A text isn't a platform."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text[:80]!r} isn't a platform: expected [OS/]ARCHITECTURE[/VARIANT]")
        self.text = text

    def advice(self) -> str:
        """Show some platforms."""
        return "Write it like linux/amd64, linux/arm64 or linux/arm/v7."


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on (image-spec image-index.md, ``platform``), in Go's words."""

    os: str
    architecture: str
    variant: str | None = None
    os_version: str | None = None
    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``[os/]architecture[/variant]``; the system is linux when only a known architecture is said."""
        parts = text.split("/")
        if not all(_PLATFORM_PART.fullmatch(part) for part in parts):
            raise PlatformInvalidError(text)
        if parts[0] in _KNOWN_ARCHITECTURES:
            parts.insert(0, "linux")
        match parts:
            case [os, architecture]:
                return cls(os, architecture)
            case [os, architecture, variant]:
                return cls(os, architecture, variant)
            case _:
                raise PlatformInvalidError(text)

    @classmethod
    def from_json(cls, document: object) -> Self:
        """Read a descriptor's ``platform``, or the like members of an image config; absent names are empty."""
        if not isinstance(document, dict):
            raise DescriptorInvalidError("platform", f"is {kind(document)}, not an object")
        features = document.get("os.features") or []
        if not isinstance(features, list):
            raise DescriptorInvalidError("platform", f"has {kind(features)} as os.features, not an array")
        texts = [document.get(name) for name in ("os", "architecture", "variant", "os.version")]
        if not all(text is None or isinstance(text, str) for text in (*texts, *features)):
            raise DescriptorInvalidError("platform", "has a member that isn't a string")
        os, architecture, variant, os_version = texts
        return cls(os or "", architecture or "", variant or None, os_version or None, tuple(features))

    def as_json(self) -> dict[str, Any]:
        """Return the object that image-spec's image-index.md describes."""
        document: dict[str, Any] = {"architecture": self.architecture, "os": self.os}
        if self.os_version is not None:
            document["os.version"] = self.os_version
        if self.os_features:
            document["os.features"] = list(self.os_features)
        if self.variant is not None:
            document["variant"] = self.variant
        return document

    def normalised(self) -> "Platform":
        """Return the same platform in its usual spelling: aarch64 is arm64, arm64/v8 is arm64, arm is arm/v7."""
        os = self.os.lower()
        architecture, variant = self.architecture.lower(), self.variant.lower() if self.variant else None
        architecture, implied = _ARCHITECTURES.get(architecture, (architecture, None))
        variant = variant or implied
        if variant is not None and variant.isdecimal():
            variant = f"v{variant}"
        variant = _PLAIN_VARIANTS.get((architecture, variant), variant)
        return Platform(_OPERATING_SYSTEMS.get(os, os), architecture, variant, self.os_version, self.os_features)

    def matches(self, other: "Platform") -> bool:
        """Tell whether both are one platform once normalised; a system's version counts where both have one."""
        one, two = self.normalised(), other.normalised()
        if (one.os, one.architecture, one.variant) != (two.os, two.architecture, two.variant):
            return False
        return one.os_version is None or two.os_version is None or one.os_version == two.os_version

    def __str__(self) -> str:
        """Return ``os/architecture[/variant]``; a system's version and features aren't shown."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A pointer to content: what it is, its digest and its size in bytes (image-spec descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    data: str | None = None
    """The content itself in base64, as it came; whoever uses it checks it against the digest."""

    artifact_type: str | None = None
    platform: Platform | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Members that the spec doesn't know, kept for ``as_json``."""

    def __post_init__(self) -> None:
        if _MEDIA_TYPE.fullmatch(self.media_type) is None:
            raise DescriptorInvalidError("mediaType", f"{self.media_type[:80]!r} isn't a media type")
        if not 0 <= self.size <= MAX_SIZE:
            raise DescriptorInvalidError("size", f"{self.size} isn't between 0 and 2^63-1")

    @classmethod
    def parse(cls, document: object) -> Self:
        """Read a descriptor out of parsed JSON; raise DescriptorInvalidError, which names the member at fault."""
        if not isinstance(document, dict):
            raise DescriptorInvalidError("it", f"is {kind(document)}, not an object")
        get = document.get
        size = get("size")
        if type(size) is not int:  # bool is an int to Python, not to JSON
            raise DescriptorInvalidError("size", f"is {kind(size)}, not a whole number")
        urls, platform = get("urls"), get("platform")
        return cls(
            media_type=_text(document, "mediaType"),
            digest=_digest(document),
            size=size,
            urls=_urls(urls) if urls is not None else (),
            annotations=parse_annotations(get("annotations")),
            data=_optional_text(document, "data"),
            artifact_type=parse_artifact_type(get("artifactType")),
            platform=Platform.from_json(platform) if platform is not None else None,
            extra=_extra(document) if not _FIELDS.issuperset(document) else {},
        )

    @property
    def is_attestation(self) -> bool:
        """Whether this index entry is a build's attestation rather than an image to run."""
        return self.annotations.get(ATTESTATION_ANNOTATION) == ATTESTATION_MANIFEST

    @property
    def is_distributable(self) -> bool:
        """Whether a registry has to hold the content; a foreign layer lives under its ``urls``."""
        return self.media_type not in NON_DISTRIBUTABLE

    def as_json(self) -> dict[str, Any]:
        """Return the object that descriptor.md describes, members that say nothing left out."""
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.urls:
            document["urls"] = list(self.urls)
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.data is not None:
            document["data"] = self.data
        if self.platform is not None:
            document["platform"] = self.platform.as_json()
        if self.artifact_type is not None:
            document["artifactType"] = self.artifact_type
        return document | dict(self.extra)


def parse_annotations(document: object) -> dict[str, str]:
    """Read ``annotations``: texts by name (image-spec annotations.md); null and absent mean none."""
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise DescriptorInvalidError("annotations", f"is {kind(document)}, not an object")
    for name, value in document.items():
        if not isinstance(value, str):
            raise DescriptorInvalidError("annotations", f"has {kind(value)} under {name[:80]!r}, not a string")
    return document


def parse_artifact_type(document: object) -> str | None:
    """Read ``artifactType``: a media type; null, absent and (as Go writes it) empty mean none."""
    if document is None or document == "":
        return None
    if not isinstance(document, str) or _MEDIA_TYPE.fullmatch(document) is None:
        raise DescriptorInvalidError("artifactType", "isn't a media type")
    return document


def check_no_lookalikes(document: Mapping[str, Any], known: frozenset[str], folded: frozenset[str]) -> None:
    """Refuse ``Digest`` beside ``digest``: Go's parser reads names without case, and the last one wins there."""
    for name in document:
        if name not in known and name.casefold() in folded:
            raise DescriptorInvalidError(repr(name[:80]), "differs only in case from a member the spec knows")


def _extra(document: dict[str, Any]) -> dict[str, Any]:
    check_no_lookalikes(document, _FIELDS, _FOLDED_FIELDS)
    return {name: value for name, value in document.items() if name not in _FIELDS}


def _text(document: dict[str, Any], member: str) -> str:
    value = document.get(member)
    if not isinstance(value, str):
        raise DescriptorInvalidError(member, f"is {kind(value)}, not a string")
    return value


def _optional_text(document: dict[str, Any], member: str) -> str | None:
    return None if document.get(member) is None else _text(document, member)


def _digest(document: dict[str, Any]) -> Digest:
    try:
        return Digest.parse(_text(document, "digest"))
    except DigestInvalidError as error:
        raise DescriptorInvalidError("digest", str(error)) from error


def _urls(document: object) -> tuple[str, ...]:
    if not isinstance(document, list):
        raise DescriptorInvalidError("urls", f"is {kind(document)}, not an array")
    return tuple(_url(url) for url in document)


def _url(url: object) -> str:
    """Accept an absolute http or https URL with a host and without a fragment; it is handed on, never fetched here."""
    if not isinstance(url, str):
        raise DescriptorInvalidError("urls", f"has {kind(url)}, not a string")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and "#" not in url
        _ = parts.port  # read, because that is when it is checked
    except ValueError as error:
        raise DescriptorInvalidError("urls", f"has {url[:80]!r}, which isn't a URL") from error
    if not usable or _URL_TEXT.fullmatch(url) is None:
        raise DescriptorInvalidError("urls", f"has {url[:80]!r}, not an http(s) URL with a host and no fragment")
    return url
