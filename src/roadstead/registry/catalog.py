"""Listings: tags, repositories, referrers (distribution-spec end-8, end-12; Docker's _catalog)."""

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.registry.errors import PageSizeInvalidError, RepositoryUnknownError
from roadstead.registry.ports import CatalogStore, ReferrerRecord

_Item = TypeVar("_Item")

_ALL = (1 << 31) - 1  # the most that every database takes as LIMIT; no repository has as many tags


_SCANNED = 1000
"""Names read at a time where not all may be shown."""


class Visible(Protocol):
    """Which repositories are shown to whoever asks."""

    @property
    def beginnings(self) -> Sequence[str]:
        """Return what their names begin with: texts of which none begins with another, in any order."""
        ...

    def sees(self, repository: str) -> bool:
        """Say whether this one is."""
        ...


@dataclass(frozen=True, slots=True)
class Page(Generic[_Item]):
    """One page of a listing; ``more`` says that another follows behind its last item."""

    items: Sequence[_Item]
    more: bool


def parse_page_size(text: str | None) -> int | None:
    """Return `n`, or None where it wasn't given; only ASCII digits count (``int`` takes far more)."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 19:
        raise PageSizeInvalidError(text)
    return int(text)


class Catalog:
    """Listings in pages of bounded size."""

    def __init__(
        self,
        store: CatalogStore,
        *,
        max_tags: int,
        default_repositories: int,
        max_repositories: int,
        max_referrers: int,
    ) -> None:
        self._store = store
        self._max_tags = max_tags
        self._default_repositories = default_repositories
        self.max_repositories = max_repositories
        self._max_referrers = max_referrers

    async def tags(self, repository: RepositoryName, *, after: str, n: int | None) -> Page[str]:
        """Return a page of tags; all of them where no `n` was asked, as distribution does."""
        limit = _ALL - 1 if n is None else min(n, self._max_tags)
        found = await self._store.tags(repository, after=after, limit=limit + 1)
        if found is None:
            raise RepositoryUnknownError(repository)
        return _page(found, limit)

    def page_of_tags(self, tags: Sequence[str], *, after: str, n: int | None) -> Page[str]:
        """Return a page of a list that is whole and sorted: another registry's."""
        limit = len(tags) if n is None else min(n, self._max_tags)
        start = bisect_right(tags, after)
        return _page(tags[start : start + limit + 1], limit)

    async def repositories(self, *, after: str, n: int | None, visible: Visible | None = None) -> Page[str]:
        """Return a page of repository names, only `visible` ones if that is given.

        More than the maximum is an error, as in distribution.
        """
        if n is not None and n > self.max_repositories:
            raise PageSizeInvalidError(str(n), self.max_repositories)
        limit = self._default_repositories if n is None else n
        if visible is None:
            return _page(await self._store.repositories(after=after, limit=limit + 1), limit)
        return _page(await self._visible_repositories(after, limit + 1, visible), limit)

    async def _visible_repositories(self, after: str, wanted: int, visible: Visible) -> Sequence[str]:
        """Read on until there are as many visible names as wanted: a page that ends earlier would tell of a name that
        may not be seen, since a client goes on from there."""
        found: list[str] = []
        for beginning in sorted(visible.beginnings, key=_place):
            if len(found) < wanted and not _is_behind(after, beginning):
                found += await self._visible_among(beginning, after, wanted - len(found), visible)
        return found

    async def _visible_among(self, beginning: str, after: str, wanted: int, visible: Visible) -> Sequence[str]:
        """Return up to so many visible names among those that begin so."""
        found: list[str] = []
        after = max(after, _before(beginning), key=_place)
        limit = min(wanted, _SCANNED)  # there are as many, if all of them are visible
        while len(found) < wanted:
            names = await self._store.repositories(after=after, limit=limit)
            found += [name for name in names if name.startswith(beginning) and visible.sees(name)]
            if len(names) < limit or _is_behind(names[-1], beginning):
                break
            after, limit = names[-1], _SCANNED
            await asyncio.sleep(0)  # SQLite is read on the loop: others get their turn
        return found[:wanted]

    async def referrers(
        self, repository: RepositoryName, subject: Digest, *, artifact_type: str | None, after: str, n: int | None
    ) -> Page[ReferrerRecord]:
        """Return a page of the manifests that name this subject; empty for whatever isn't here (end-12)."""
        limit = self._max_referrers if n is None else min(n, self._max_referrers)
        found = await self._store.referrers(
            repository, subject, artifact_type=artifact_type, after=after, limit=limit + 1
        )
        return _page(found, limit)


def _place(name: str) -> str:
    """Return what sorts names, and what they begin with, as `CatalogStore` does: component by component."""
    return name.replace("/", "\x01")


def _before(beginning: str) -> str:
    """Return a text behind which a page starts with the first name that begins so, or a little before it."""
    if not beginning or beginning.endswith("/"):  # no name ends so
        return beginning
    return f"{beginning[:-1]}{chr(ord(beginning[-1]) - 1)}\x7f"


def _is_behind(after: str, beginning: str) -> bool:
    """Say whether a page behind that text has no name that begins so."""
    return not after.startswith(beginning) and _place(after) > _place(beginning)


def _page(found: Sequence[_Item], limit: int) -> Page[_Item]:
    """Cut what was read one item too long; a page of none has no next (there is nothing to go on from)."""
    return Page(found[:limit], more=0 < limit < len(found))
