"""What pulling through needs: another registry, and a memory of what was pulled."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.upstream.ports import BlobSource, ManifestSource, Referrers, TagSource
from roadstead.upstream.ratelimit import Budget


class Remote(ManifestSource, BlobSource, TagSource, Protocol):
    """Another registry, as somebody; ``upstream.client.RegistryClient`` is one."""

    @property
    def budget(self) -> Budget | None:
        """Return what the registry's last word was on the requests we have left; None where it said nothing."""
        ...

    async def referrers(
        self, repository: RepositoryName, digest: Digest, artifact_type: str | None = None
    ) -> Referrers:
        """Return the manifests whose subject is *digest*."""
        ...


@dataclass(frozen=True, slots=True)
class PulledTag:
    """Where a tag of an upstream is here, and when it was last seen there; None: nobody knows."""

    digest: Digest
    checked_at: datetime | None


class PulledStore(Protocol):
    """What is known of upstreams' images, beside what is known of any image."""

    async def is_known(self, repository: RepositoryName) -> bool:
        """Say whether the repository is here, or ever was: it is a tombstone then (design decision 9)."""
        ...

    async def find_tag(self, repository: RepositoryName, tag: Tag) -> PulledTag | None:
        """Return where the tag is here; None for one that isn't."""
        ...

    async def note_checked(self, repository: RepositoryName, tag: Tag, digest: Digest, *, now: datetime) -> None:
        """Note that the upstream has the tag at that digest; nothing happens where it is elsewhere here."""
        ...

    async def note_pulled(self, repository: RepositoryName, digest: Digest, *, now: datetime) -> None:
        """Note that a manifest was pulled; nothing happens where it is gone."""
        ...

    async def idle(self, space: str, *, before: datetime, limit: int) -> Sequence[tuple[RepositoryName, Digest]]:
        """Return up to `limit` manifests in repositories below `space` that nobody has pulled since that moment.

        A manifest counts as pulled with what was derived from it. What an index lists that is still here isn't idle,
        and what was pushed, before the name was an upstream's, never is.
        """
        ...

    async def shadowed(self, space: str, *, limit: int) -> Sequence[RepositoryName]:
        """Return up to `limit` repositories below `space`, by name, that hold something that was pushed."""
        ...


class Tally(Protocol):
    """Counts what becomes of pulls, by the upstream's host."""

    def asked(self, host: str, kind: str) -> None:
        """Count something that was asked of the upstream: ``manifest``, ``blob``, ``tag``, ``list``."""
        ...

    def stale(self, host: str) -> None:
        """Count a tag that was served as it was, since the upstream couldn't be asked."""
        ...

    def received(self, host: str, size: int) -> None:
        """Count bytes of blobs that came from the upstream."""
        ...
