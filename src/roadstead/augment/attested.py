"""Derivations that come with word of where they come from: provenance, and our signature where we have a key.

What is said is made with a derivation and stored in its transaction: it costs the first pull alone. An image that was
derived before there was a key, or another key, or provenance at all, is derived once more when it is pulled next; that
gives the same image and adds what is missing.
"""

from dataclasses import replace
from datetime import datetime

from roadstead.augment import provenance
from roadstead.augment.ports import (
    Derivation,
    DerivationStore,
    DerivedManifest,
    LayerStore,
    Pulled,
    Seal,
    Served,
    Statements,
)
from roadstead.oci.artifact import Artifact
from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag

MAX_REMEMBERED = 8192
MAX_LISTED = 1000


class AttestedDerivations:
    """`DerivationStore` that adds provenance and signatures to what another one keeps."""

    def __init__(
        self,
        store: DerivationStore,
        layers: LayerStore,
        statements: Statements,
        *,
        builder: str,
        with_provenance: bool = True,
        seal: Seal | None = None,
    ) -> None:
        self.find_within = store.find_within
        self.sources_of = store.sources_of
        self.memories = store.memories
        self.made_here = store.made_here
        self._store = store
        self._layers = layers
        self._statements = statements
        self._builder = builder
        self._with_provenance = with_provenance
        self._seal = seal
        self._attested: dict[tuple[RepositoryName, Digest], None] = {}  # that nothing is missing stays true

    async def find(
        self, repository: RepositoryName, source: Digest, plan_digest: Digest, *, space: RepositoryName | None = None
    ) -> Served | None:
        """Return what answers a pull of this source under this plan, if all is said of it."""
        found = await self._store.find(repository, source, plan_digest, space=space)
        return None if found is None or not await self._is_attested(space or repository, found.digest) else found

    async def find_by_tag(self, repository: RepositoryName, tag: Tag, plan_digest: Digest) -> Pulled | None:
        """Return what the tag is at now, and what was derived from that, if all is said of it."""
        found = await self._store.find_by_tag(repository, tag, plan_digest)
        if found is None or found.derived is None or await self._is_attested(repository, found.derived.digest):
            return found
        return replace(found, derived=None)

    async def record(self, derivation: Derivation, *, now: datetime, space: RepositoryName | None = None) -> None:
        """Store a derivation with what is said of it."""
        root = derivation.root
        subject = Descriptor(root.media_type, root.digest, len(root.raw))
        artifacts = self._said(derivation)
        contents = dict.fromkeys(content for artifact in artifacts for content in artifact.contents())
        blobs = [await self._layers.store(content, now=now) for content in contents]
        attached = tuple(_attached(artifact, subject, derivation.source) for artifact in artifacts)
        await self._store.record(
            replace(derivation, blobs=(*derivation.blobs, *blobs), attached=(*derivation.attached, *attached)),
            now=now,
            space=space,
        )
        self._remember(space or derivation.repository, root.digest)

    def _said(self, derivation: Derivation) -> list[Artifact]:
        said: list[Artifact] = []
        if self._with_provenance:
            statement = provenance.statement(derivation, self._builder)
            said.append(provenance.unsigned(statement))
            if self._seal is not None:
                said.append(self._seal.signed(statement, provenance.PREDICATE))
        if self._seal is not None:
            said += self._seal.signatures(derivation.root.digest, str(derivation.repository))
        return said

    async def _is_attested(self, repository: RepositoryName, root: Digest) -> bool:
        if (repository, root) in self._attested:
            return True
        said = await self._statements.referrers(repository, root, artifact_type=None, after="", limit=MAX_LISTED)
        if self._with_provenance and not any(one.artifact_type == provenance.IN_TOTO for one in said):
            return False
        if self._seal is not None:
            name, value = self._seal.mark
            if not any(one.annotations.get(name) == value for one in said):
                return False
        self._remember(repository, root)
        return True

    def _remember(self, repository: RepositoryName, root: Digest) -> None:
        while len(self._attested) >= MAX_REMEMBERED:
            del self._attested[next(iter(self._attested))]
        self._attested[repository, root] = None


def _attached(artifact: Artifact, subject: Descriptor, source: Digest) -> DerivedManifest:
    manifest = artifact.about(subject)
    return DerivedManifest(
        digest=manifest.digest,
        media_type=manifest.media_type,
        raw=manifest.raw,
        source=source,
        blobs=tuple(dict.fromkeys(one.digest for one in manifest.references())),
        subject=subject.digest,
        artifact_type=manifest.artifact_type,
        annotations=manifest.annotations,
    )


def _claims(attested: AttestedDerivations) -> DerivationStore:
    """Tell the type checker what this is."""
    return attested
