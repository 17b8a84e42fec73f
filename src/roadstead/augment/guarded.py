"""Derivations of images that may be served: whoever asks for one is asked whether its source may (signatures)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from roadstead.augment.ports import Derivation, DerivationStore, Pulled, Served
from roadstead.errors import DeniedError
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag


class Admission(Protocol):
    """Says which images may be served."""

    async def check(self, repository: RepositoryName, digest: Digest) -> None:
        """Return if a manifest may be served; raises a DeniedError."""
        ...


class Origins(Protocol):
    """Knows what manifests were made from."""

    async def made_from(self, repository: RepositoryName, digest: Digest) -> Sequence[Digest]:
        """Return the indexes that list a manifest and what it was derived from; if any."""
        ...


class GuardedDerivations:
    """`DerivationStore` that tells of nothing whose source may not be served.

    Every pull that is augmented begins here, with the source as it is in the same look at the database. So nothing is
    made of an image that may not be served, and a tag that moves meanwhile doesn't matter.
    """

    def __init__(self, store: DerivationStore, admission: Admission, origins: Origins) -> None:
        self.sources_of = store.sources_of
        self.memories = store.memories
        self.made_here = store.made_here
        self._store = store
        self._origins = origins
        self._admission = admission

    async def find(
        self, repository: RepositoryName, source: Digest, plan_digest: Digest, *, space: RepositoryName | None = None
    ) -> Served | None:
        """Return what answers a pull of this source, if the source may be served."""
        await self._admission.check(repository, source)
        return await self._store.find(repository, source, plan_digest, space=space)

    async def find_by_tag(self, repository: RepositoryName, tag: Tag, plan_digest: Digest) -> Pulled | None:
        """Return what the tag is at now, if that may be served."""
        found = await self._store.find_by_tag(repository, tag, plan_digest)
        if found is not None:
            await self._admission.check(repository, found.source.digest)
        return found

    async def find_within(self, space: RepositoryName, repository: RepositoryName, derived: Digest) -> Served | None:
        """Return what was derived into a space, if what it came of may be served.

        A space has no policy of its own, and nothing in it is signed by others: its contents are served as that is
        which they were made of. What nobody knows the origin of isn't.
        """
        found = await self._store.find_within(space, repository, derived)
        if found is None:
            return None
        refused: DeniedError | None = None
        for origin in await self._origins.made_from(space, derived):
            try:
                await self._admission.check(repository, origin)
            except DeniedError as error:
                refused = refused or error
            else:
                return found
        if refused is not None:
            raise refused
        return None

    async def record(self, derivation: Derivation, *, now: datetime, space: RepositoryName | None = None) -> None:
        """Store a derivation, if its source may be served."""
        await self._admission.check(derivation.repository, derivation.source)
        await self._store.record(derivation, now=now, space=space)


def _claims(guarded: GuardedDerivations) -> DerivationStore:
    """Tell the type checker what this is."""
    return guarded
