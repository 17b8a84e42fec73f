"""What checking signatures needs from outside, and what it gives to those who serve images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag


class SignedImages(Protocol):
    """Reads the manifests of a repository, and what says something of them."""

    async def manifest(self, repository: RepositoryName, reference: Tag | Digest) -> tuple[str, bytes] | None:
        """Return media type and exact bytes of what was pushed; None where there is no such manifest."""
        ...

    async def blob(self, repository: RepositoryName, digest: Digest, *, max_bytes: int) -> bytes:
        """Return a small blob whole. Raises the registry's NotFoundError family, and InvalidError for a larger one."""
        ...

    async def referrers(self, repository: RepositoryName, digest: Digest) -> Sequence[Descriptor]:
        """Return the manifests whose subject this is, with their artifact types."""
        ...

    async def made_from(self, repository: RepositoryName, digest: Digest) -> Sequence[Digest]:
        """Return the manifests that answer for this one: indexes that list it, and what it was derived from."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a policy says of an image: that it is met, or why no signature that was found holds."""

    policy: str
    kind: str
    required: bool  # else an image that doesn't meet it is only noted
    holds: bool
    reasons: tuple[str, ...] = ()  # empty, too, where there is no signature


class Admission(Protocol):
    """Says which images may be served."""

    async def check(self, repository: RepositoryName, digest: Digest, *, original: bool = False) -> None:
        """Return if a manifest may be served. Raises ImageUnsignedError, and the errors of what is read for that.

        `original`: it was asked for as it was pushed (``as-pushed/``).
        """
        ...

    async def verdicts(
        self, repository: RepositoryName, digest: Digest, *, original: bool = False
    ) -> Sequence[Verdict]:
        """Return what every policy for this repository says, in their order; nothing is logged, nothing refused."""
        ...
