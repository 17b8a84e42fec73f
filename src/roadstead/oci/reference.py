"""What names an image: repository names, tags and whole references (distribution-spec, Pulling manifests).

NameInvalidError        a repository name that breaks the grammar (code-8)
TagInvalidError         a tag that breaks the grammar
ReferenceInvalidError   an image reference of which some part can't be read
"""

import re
from dataclasses import dataclass
from typing import Self

from roadstead.errors import InvalidError
from roadstead.oci.digest import Digest, DigestInvalidError

MAX_NAME_LENGTH = 255
MAX_TAG_LENGTH = 128
DEFAULT_HOST = "docker.io"
DEFAULT_TAG = "latest"

CONTAINER_TOKENS = "wt"
"""First component of names below which container tokens stand, and what is derived for them; no image has it."""

# Possessive quantifiers: a name that fails has failed at once, whatever it is made of.
# `fullmatch`, because `$` lets a trailing line feed pass.
_NAME = re.compile(r"[a-z0-9]++(?:(?:\.|__?+|-++)[a-z0-9]++)*+(?:/[a-z0-9]++(?:(?:\.|__?+|-++)[a-z0-9]++)*+)*+")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}+")
_HOST = re.compile(
    r"(?:[A-Za-z0-9]++(?:-++[A-Za-z0-9]++)*+(?:\.[A-Za-z0-9]++(?:-++[A-Za-z0-9]++)*+)*+|\[[0-9A-Fa-f:.]{2,45}+\])"
    r"(?::(?P<port>[0-9]{1,5}+))?+"
)


class NameInvalidError(InvalidError):
    """A repository name breaks the grammar (distribution-spec code-8)."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"{text[:80]!r} isn't a repository name: {reason}")
        self.text = text
        self.reason = reason

    def advice(self) -> str:
        """Say what a repository name is made of."""
        return "Use lower-case letters and digits, joined by '.', '_', '__' or dashes, in components parted by '/'."


class TagInvalidError(InvalidError):
    """A tag breaks the grammar."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text[:80]!r} isn't a tag: expected 1 to {MAX_TAG_LENGTH} of A-Z a-z 0-9 _ . -")
        self.text = text

    def advice(self) -> str:
        """Say how a tag may begin."""
        return "A tag begins with a letter, a digit or '_'."


class ReferenceInvalidError(InvalidError):
    """A text isn't an image reference."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"{text[:120]!r} isn't an image reference: {reason}")
        self.text = text
        self.reason = reason

    def advice(self) -> str:
        """Show what a reference looks like."""
        return "Write it as [HOST[:PORT]/]NAME[:TAG][@DIGEST]."


@dataclass(frozen=True, slots=True, order=True)
class RepositoryName:
    """``team/app`` in a registry (distribution-spec, Pulling manifests): at most 255 characters."""

    value: str

    def __post_init__(self) -> None:
        if len(self.value) > MAX_NAME_LENGTH:
            raise NameInvalidError(self.value, f"longer than {MAX_NAME_LENGTH} characters")
        if _NAME.fullmatch(self.value) is None:
            raise NameInvalidError(self.value, "it breaks the grammar of names")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name; raise NameInvalidError when it breaks the grammar."""
        return cls(text)

    @property
    def components(self) -> tuple[str, ...]:
        """The parts between the slashes, one at the least."""
        return tuple(self.value.split("/"))

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, order=True)
class Tag:
    """A mutable name for a manifest within its repository; case counts."""

    value: str

    def __post_init__(self) -> None:
        if _TAG.fullmatch(self.value) is None:
            raise TagInvalidError(self.value)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a tag; raise TagInvalidError when it breaks the grammar."""
        return cls(text)

    def __str__(self) -> str:
        return self.value


def parse_reference(text: str) -> Tag | Digest:
    """Read what stands after ``/manifests/``: a digest if there is a colon in it, otherwise a tag.

    The colon decides, not what happens to parse: a tag has none, and a broken digest must be reported as one.
    """
    return Digest.parse(text) if ":" in text else Tag.parse(text)


def _check_host(text: str, host: str) -> None:
    match = _HOST.fullmatch(host) if len(host) <= MAX_NAME_LENGTH else None
    if match is None:
        raise ReferenceInvalidError(text, f"{host[:80]!r} isn't a host with an optional port")
    port = match["port"]
    if port is not None and int(port) > 65535:
        raise ReferenceInvalidError(text, f"the port {port} is above 65535")


def _names_host(component: str) -> bool:
    """Tell whether the first component is a host, by Docker's rule; an upper-case letter can't be in a name."""
    return component == "localhost" or "." in component or ":" in component or component != component.lower()


@dataclass(frozen=True, slots=True, order=True)
class ImageReference:
    """A whole name of an image, with nothing left to guess: ``docker.io/library/busybox:latest``."""

    host: str
    """Registry host with optional port; ``docker.io`` for Docker Hub."""

    repository: RepositoryName
    tag: Tag | None = None
    digest: Digest | None = None
    """When there is one it decides, and the tag is for people."""

    def __post_init__(self) -> None:
        _check_host(self.host, self.host)
        if not _names_host(self.host):
            raise ReferenceInvalidError(str(self), f"{self.host!r} would be read as a part of the name")

    @classmethod
    def parse(cls, text: str, *, default_host: str = DEFAULT_HOST, default_tag: str | None = DEFAULT_TAG) -> Self:
        """Read a reference as ``docker pull`` does; *default_tag* is for those with neither tag nor digest.

        ``busybox`` is ``docker.io/library/busybox:latest``; a first component with a dot, a colon or an upper-case
        letter, or ``localhost``, is a host. Raises ReferenceInvalidError, with the part's own error as its cause.
        """
        path, at, digest_text = text.partition("@")
        first, slash, rest = path.partition("/")
        host, remainder = (first, rest) if slash and _names_host(first) else (default_host, path)
        name, colon, tag_text = remainder.partition(":")
        host = DEFAULT_HOST if host == "index.docker.io" else host
        if host == DEFAULT_HOST and "/" not in name:
            name = f"library/{name}"
        _check_host(text, host)
        try:
            repository = RepositoryName.parse(name)
            digest = Digest.parse(digest_text) if at else None
            tag = Tag.parse(tag_text) if colon else None
        except (NameInvalidError, TagInvalidError, DigestInvalidError) as error:
            raise ReferenceInvalidError(text, str(error)) from error
        if tag is None and digest is None and default_tag is not None:
            tag = Tag.parse(default_tag)
        return cls(host, repository, tag, digest)

    @property
    def reference(self) -> Tag | Digest | None:
        """What to ask the registry for: the digest if there is one, otherwise the tag."""
        return self.digest or self.tag

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.host}/{self.repository}{tag}{digest}"
