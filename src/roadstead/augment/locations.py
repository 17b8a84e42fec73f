"""Where a layer lies, as callers and rules write it, and what can be wrong with that (wave.md §1.3.1).

Four kinds: ``https://…`` and ``http://…``; ``data:`` with the base64 of the bytes, and nothing else; and a blob of a
registry, ``docker://HOST/v2/NAME/blobs/DIGEST`` or shorter ``docker://HOST/NAME@DIGEST``.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from roadstead.errors import DeniedError, InvalidError
from roadstead.oci.descriptor import Platform
from roadstead.oci.digest import Digest
from roadstead.oci.reference import ImageReference, ReferenceInvalidError, RepositoryName

INLINE = "data:"
MAX_INLINE = 14_000_000
"""Characters of a location that is the layer itself (Wave's ``max-data-layer-size``): ten megabytes, in JSON."""

MAX_LENGTH = 8192
"""Characters of a location that isn't the layer itself."""

HERE = "roadstead.invalid"
"""Stands for this registry, by whichever of its hosts it was named (RFC 6761: nobody has it)."""

KINDS = ("http", "https", "docker", "data")
_SHOWN = 120
_PRINTABLE = range(0x21, 0x7F)


class LocationInvalidError(InvalidError):
    """A text isn't a layer's location."""

    def __init__(self, location: str, reason: str) -> None:
        super().__init__(f"the layer's location {shown(location)!r} can't be read: {reason}")
        self.reason = reason

    def advice(self) -> str:
        """Return the forms there are."""
        return "write https://…, docker://HOST/NAME@sha256:…, or data: with the base64 of the layer"


class LayerMismatchError(InvalidError):
    """What lies at a location isn't the layer that was described."""

    def __init__(self, location: str, reason: str) -> None:
        super().__init__(f"the layer at {shown(location)} isn't what was described: {reason}")
        self.reason = reason

    def advice(self) -> str:
        """Return what the numbers are of."""
        return (
            "gzipDigest and gzipSize are of the file as it is sent, tarDigest is of the tar inside; "
            "roadstead layer pack prints them"
        )


class LayerForbiddenError(DeniedError):
    """Whoever names a layer may not pull the repository that it lies in."""

    def __init__(self, repository: str) -> None:
        super().__init__(f"the layer lies in {repository}, which you may not pull")
        self.repository = repository


def kind_of(location: str) -> str:
    """Return which of the four kinds a location is of; raises LocationInvalidError. Pure."""
    kind = location.partition(":")[0].lower()
    if kind not in KINDS:
        raise LocationInvalidError(location, "it begins with none of https:, http:, docker: and data:")
    if kind != "data":
        _check_text(location)
    return kind


def is_inline(location: str) -> bool:
    """Say whether a location holds the layer's bytes itself; schemes are the same in capitals (RFC 3986 §3.1). Pure."""
    return location[: len(INLINE)].lower() == INLINE


def digest_in(location: str) -> Digest | None:
    """Return the digest that a location itself names, as ``docker://`` does; LocationInvalidError. Pure."""
    return BlobAddress.parse(location).digest if kind_of(location) == "docker" else None


def shown(location: str) -> str:
    """Return a location to be told of: not all of a ``data:``, no password and no query, which may be one. Pure."""
    if is_inline(location):
        return f"data:… ({len(location)} characters)"
    try:
        parts = urlsplit(location)
    except ValueError:
        return location[:_SHOWN]
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="…" if parts.query else "", fragment="")
    return bare.geturl()[:_SHOWN] if parts.netloc else location[:_SHOWN]


def named_here(text: str, hosts: Collection[str]) -> str:
    """Return a ``docker://`` location, or an image's name, with HERE for a host that is one of ours. Pure."""
    scheme, separator, rest = text.partition("://")
    before, rest = (f"{scheme}{separator}", rest) if separator else ("", text)
    host, slash, path = rest.partition("/")
    ours = slash and host.lower() in hosts and scheme.lower() in ("docker", text.lower())
    return f"{before}{HERE}/{path}" if ours else text


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerClaim:
    """What is said of a layer from elsewhere; what isn't said is measured."""

    location: str
    gzip_digest: Digest | None = None
    gzip_size: int | None = None  # bytes
    tar_digest: Digest | None = None
    platform: Platform | None = None


@dataclass(frozen=True, slots=True)
class WebAddress:
    """An ``http(s)://`` location."""

    url: str
    host: str
    """With the port, if there is one; in lower case."""

    @classmethod
    def parse(cls, location: str) -> Self:
        """Read one; raises LocationInvalidError. Nobody's password may be in it: a location isn't kept secret."""
        _check_text(location)
        try:
            parts = urlsplit(location)
            _ = parts.port  # it's checked when it is read
        except ValueError as error:
            raise LocationInvalidError(location, "it isn't a URL") from error
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise LocationInvalidError(location, "it isn't an http(s) URL with a host")
        if "@" in parts.netloc:
            raise LocationInvalidError(location, "it holds a user or a password, which every log would show")
        if parts.fragment:
            raise LocationInvalidError(location, "it has a fragment")
        return cls(location, parts.netloc.lower())


@dataclass(frozen=True, slots=True)
class BlobAddress:
    """A ``docker://`` location: a blob of a repository of a registry."""

    host: str
    repository: RepositoryName
    digest: Digest

    @classmethod
    def parse(cls, location: str) -> Self:
        """Read either form; raises LocationInvalidError."""
        _check_text(location)
        scheme, _, rest = location.partition("://")
        if scheme.lower() != "docker":
            raise LocationInvalidError(location, "it isn't a docker:// address")
        host, _, path = rest.partition("/")
        if path.startswith("v2/"):
            name, found, digest = path.removeprefix("v2/").rpartition("/blobs/")
            if not found:
                raise LocationInvalidError(location, "after /v2/ it has no NAME/blobs/DIGEST")
            rest = f"{host}/{name}@{digest}"
        try:
            reference = ImageReference.parse(rest, default_tag=None)
        except ReferenceInvalidError as error:
            raise LocationInvalidError(location, error.reason) from error
        if reference.digest is None or reference.tag is not None:
            raise LocationInvalidError(location, "it names no digest alone: a tag moves, and a layer doesn't")
        if not rest.startswith(f"{host}/") or (reference.host != host and host != "index.docker.io"):
            raise LocationInvalidError(location, "it names no registry before the name")
        return cls(reference.host, reference.repository, reference.digest)

    @property
    def name(self) -> str:
        """The repository's name with its registry's host, as an upstream's image is named here."""
        return f"{self.host}/{self.repository}"


def _check_text(location: str) -> None:
    if len(location) > MAX_LENGTH:
        raise LocationInvalidError(location, f"it has more than {MAX_LENGTH} characters")
    if any(ord(character) not in _PRINTABLE for character in location):
        raise LocationInvalidError(location, "it holds a blank, or a character that has to be written in %XX")
