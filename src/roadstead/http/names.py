"""Names and references as they stand in paths: parsed once, remembered (parsing is pure)."""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from roadstead.errors import NotFoundError
from roadstead.oci.digest import Digest
from roadstead.oci.reference import (
    CONTAINER_TOKENS,
    NameInvalidError,
    RepositoryName,
    Tag,
    TagInvalidError,
    parse_reference,
)
from roadstead.registry.errors import ReadOnlyNameError
from roadstead.registry.history import AS_OF, MomentInvalidError, parse_moment

AS_PUSHED = "as-pushed"
"""First component of names that always give the original, never an augmented image (design decision 6)."""

RESERVED = frozenset({AS_PUSHED, AS_OF, CONTAINER_TOKENS})
"""First components that mean something else than a hosted repository (design decision 9, docs/decisions/0021)."""


class ReferenceUnknownError(NotFoundError):
    """A pull asks for what can't be a tag: there is no such manifest, and there never will be (OCI 1.1, end-3)."""

    def __init__(self, error: TagInvalidError) -> None:
        super().__init__(f"there is no such manifest: {error}")


@dataclass(frozen=True, slots=True)
class Named:
    """A repository as a path names it; `at` is the moment for which its tags are asked, None for now."""

    text: str
    repository: RepositoryName
    original: bool
    at: datetime | None = None

    def writable(self) -> RepositoryName:
        """Return the repository for a write; raises ReadOnlyNameError for a name that only reads."""
        if self.original or self.text.partition("/")[0] in RESERVED:
            instead = str(self.repository) if self.original else None
            raise ReadOnlyNameError(self.text, instead=instead)
        return self.repository


@lru_cache(maxsize=8192)
def parse_name(text: str) -> Named:
    """Return what a path's name stands for; raises NameInvalidError, MomentInvalidError."""
    first, _, rest = text.partition("/")
    if first == AS_OF:
        moment, _, name = rest.partition("/")
        if not name:
            raise MomentInvalidError(moment)
        return Named(text, _own(name), original=True, at=parse_moment(moment))
    if first == AS_PUSHED and rest:
        return Named(text, _own(rest), original=True)
    return Named(text, RepositoryName.parse(text), original=False)


def split(text: str) -> tuple[str, str]:
    """Return what says how a name is read (``as-pushed/``, ``as-of/TIME/``), empty where nothing does, and the name."""
    first, slash, rest = text.partition("/")
    if first == AS_PUSHED and slash:
        return f"{first}/", rest
    if first == AS_OF and slash:
        moment, slash, name = rest.partition("/")
        if slash:
            return f"{first}/{moment}/", name
    return "", text


def _own(text: str) -> RepositoryName:
    """Return a repository's name behind what only says how it is read; what tokens have derived isn't read so."""
    name = RepositoryName.parse(text)
    if name.components[0] == CONTAINER_TOKENS:
        raise NameInvalidError(text, f"what stands below {CONTAINER_TOKENS}/ is pulled by its token alone")
    return name


@lru_cache(maxsize=8192)
def parse_tag_or_digest(text: str) -> Tag | Digest:
    """Return the reference; raises DigestInvalidError or TagInvalidError."""
    return parse_reference(text)


def parse_wanted(text: str) -> Tag | Digest:
    """Return the reference that a pull asks for; raises DigestInvalidError or ReferenceUnknownError."""
    try:
        return parse_tag_or_digest(text)
    except TagInvalidError as error:
        raise ReferenceUnknownError(error) from error


@lru_cache(maxsize=8192)
def parse_digest(text: str) -> Digest:
    """Return the digest; raises DigestInvalidError."""
    return Digest.parse(text)
