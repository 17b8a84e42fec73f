"""What a `DerivationStore` promises, beside the registry's stores on the same database. A subclass gives the
fixture ``stores``.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Protocol

import pytest

from roadstead.augment.ports import (
    Derivation,
    DerivationStore,
    DerivedBlob,
    DerivedManifest,
    LayerRecords,
    Pulled,
    Served,
)
from roadstead.oci.digest import Digest
from roadstead.oci.reference import Tag
from roadstead.registry.errors import ManifestUnknownError
from roadstead.registry.ports import LineageStore, ManifestRecord, NewManifest
from roadstead.storage.ports import Key
from roadstead.testing.contracts.registry_stores import (
    APP,
    LATEST,
    MEDIA_TYPE,
    NOW,
    OTHER,
    RegistryStores,
    child,
    new_blob,
    new_manifest,
)

PLAN = Digest.of(b"plan")


class DerivingStores(RegistryStores, Protocol):
    """The stores of a registry that augments."""

    derivations: DerivationStore
    layers: LayerRecords
    lineage: LineageStore


def derived_blob(text: str) -> DerivedBlob:
    """Return a blob whose bytes are `text`."""
    blob = new_blob(text)
    return DerivedBlob(blob.digest, blob.size, blob.key)


def derive(
    source: NewManifest, *, plan: str = "plan", parts: tuple[NewManifest, ...] = (), salt: str = ""
) -> Derivation:
    """Return what a plan makes of a source: a manifest for each part, a root, and a config."""
    config = derived_blob(f"config {plan}{salt} of {source.digest}")
    children = [_derived(part, f"{plan}{salt} of {part.digest}", blobs=(config.digest,)) for part in parts]
    root = _derived(
        source,
        f"{plan}{salt} of {source.digest}",
        blobs=() if parts else (config.digest,),
        children=tuple(manifest.digest for manifest in children),
    )
    return Derivation(
        repository=APP,
        source=source.digest,
        plan_digest=Digest.of(plan.encode()),
        plan=plan,
        manifests=[*children, root],
        blobs=[config],
        configs=[config.digest],
    )


def _derived(
    source: NewManifest, text: str, *, blobs: tuple[Digest, ...] = (), children: tuple[Digest, ...] = ()
) -> DerivedManifest:
    raw = text.encode()
    return DerivedManifest(
        digest=Digest.of(raw),
        media_type=MEDIA_TYPE,
        raw=raw,
        source=source.digest,
        blobs=blobs,
        children=children,
    )


def attested(derivation: Derivation) -> Derivation:
    """Return the derivation with something that is said of its root."""
    raw = f"said of {derivation.root.digest}".encode()
    said = DerivedManifest(
        digest=Digest.of(raw),
        media_type=MEDIA_TYPE,
        raw=raw,
        source=derivation.source,
        subject=derivation.root.digest,
        artifact_type="text/said",
        annotations={"by": "us"},
    )
    return replace(derivation, attached=(said,))


class DerivationStoreContract:
    """The promises of `DerivationStore` and `LayerRecords`, and what `ManifestStore` promises of derived content."""

    async def test_a_recorded_derivation_is_found(self, stores: DerivingStores) -> None:
        """By repository, source and plan; its manifests and blobs can be pulled by digest."""
        source = new_manifest("source")
        await stores.manifests.put(APP, source, [LATEST], now=NOW)
        derivation = derive(source)
        root = derivation.root

        for _ in range(2):
            await stores.derivations.record(derivation, now=NOW)

        assert await stores.derivations.find(APP, source.digest, PLAN) == Served(root.digest, MEDIA_TYPE, len(root.raw))
        assert await stores.manifests.find_by_digest(APP, root.digest) == ManifestRecord(
            root.digest, MEDIA_TYPE, len(root.raw)
        )
        assert await stores.manifests.content(root.digest) == root.raw
        assert await stores.blobs.find(APP, derivation.blobs[0].digest) is not None
        assert await stores.derivations.sources_of(APP, root.digest) == [source.digest]

    async def test_nothing_else_is_found(self, stores: DerivingStores) -> None:
        """Not for another plan, source or repository."""
        source = new_manifest("source")
        await stores.manifests.put(APP, source, [LATEST], now=NOW)
        derivation = derive(source)
        await stores.derivations.record(derivation, now=NOW)

        assert await stores.derivations.find(APP, source.digest, Digest.of(b"other plan")) is None
        assert await stores.derivations.find(APP, derivation.root.digest, PLAN) is None
        assert await stores.derivations.find(OTHER, source.digest, PLAN) is None
        assert await stores.derivations.sources_of(APP, source.digest) == []
        assert await stores.derivations.sources_of(OTHER, derivation.root.digest) == []

    async def test_a_tag_and_what_was_derived_from_it(self, stores: DerivingStores) -> None:
        """In one look: the source alone before it was derived, for another plan, and as soon as the tag moves."""
        source, other = new_manifest("source"), new_manifest("other")
        served = Served(source.digest, MEDIA_TYPE, len(source.raw))
        find = stores.derivations.find_by_tag
        assert await find(APP, LATEST, PLAN) is None

        await stores.manifests.put(APP, source, [LATEST], now=NOW)
        assert await find(APP, LATEST, PLAN) == Pulled(served, None)

        derivation = derive(source)
        root = derivation.root
        await stores.derivations.record(derivation, now=NOW)
        assert await find(APP, LATEST, PLAN) == Pulled(served, Served(root.digest, MEDIA_TYPE, len(root.raw)))
        assert await find(APP, LATEST, Digest.of(b"other plan")) == Pulled(served, None)
        assert await find(OTHER, LATEST, PLAN) is None
        assert await find(APP, Tag("v1"), PLAN) is None

        await stores.manifests.put(APP, other, [LATEST], now=NOW)
        assert await find(APP, LATEST, PLAN) == Pulled(Served(other.digest, MEDIA_TYPE, len(other.raw)), None)

    async def test_a_source_that_is_gone_is_refused(self, stores: DerivingStores) -> None:
        """And nothing of the derivation is stored."""
        source = new_manifest("source")
        derivation = derive(source)

        with pytest.raises(ManifestUnknownError):
            await stores.derivations.record(derivation, now=NOW)
        await stores.manifests.put(APP, source, [], now=NOW)
        await stores.manifests.delete(APP, source.digest, now=NOW)
        with pytest.raises(ManifestUnknownError):
            await stores.derivations.record(derivation, now=NOW)

        assert await stores.layers.find(derivation.blobs[0].digest) is None
        assert await stores.manifests.find_by_digest(APP, derivation.root.digest) is None

    async def test_deleting_a_source_takes_what_came_of_it(self, stores: DerivingStores) -> None:
        """Root, children and the memory of it; the source's own children stay."""
        parts = (new_manifest("amd64"), new_manifest("arm64"))
        for part in parts:
            await stores.manifests.put(APP, part, [], now=NOW)
        source = new_manifest("index", [child(part) for part in parts])
        await stores.manifests.put(APP, source, [LATEST], now=NOW)
        derivation = derive(source, parts=parts)
        await stores.derivations.record(derivation, now=NOW)

        assert await stores.manifests.delete(APP, source.digest, now=NOW) == [LATEST]

        for manifest in derivation.manifests:
            assert await stores.manifests.find_by_digest(APP, manifest.digest) is None
            with pytest.raises(KeyError):
                await stores.manifests.content(manifest.digest)
        assert await stores.derivations.find(APP, source.digest, PLAN) is None
        assert await stores.derivations.sources_of(APP, derivation.root.digest) == []
        for part in parts:
            assert await stores.manifests.find_by_digest(APP, part.digest) is not None

    async def test_deleting_a_derived_digest_deletes_its_source(self, stores: DerivingStores) -> None:
        """A client that deletes what it was served means the image: the tags of the source go and are returned."""
        source = new_manifest("source")
        await stores.manifests.put(APP, source, [LATEST, Tag("v1")], now=NOW)
        derivation, twin = derive(source), derive(source, plan="another plan")
        for one in (derivation, twin):
            await stores.derivations.record(one, now=NOW)

        assert await stores.manifests.delete(APP, derivation.root.digest, now=NOW) == [LATEST, Tag("v1")]

        assert await stores.manifests.find_by_digest(APP, source.digest) is None
        assert await stores.manifests.find_by_digest(APP, twin.root.digest) is None
        assert await stores.manifests.find_by_tag(APP, LATEST) is None
        assert await stores.catalog.repositories(after="", limit=1) == []
        assert await stores.manifests.delete(APP, derivation.root.digest, now=NOW) is None

    async def test_what_was_derived_is_remembered_when_its_source_is_gone(self, stores: DerivingStores) -> None:
        """Manifests and configs, by repository, with source and plan; a config with its plan, whoever asks."""
        source, part = new_manifest("source"), new_manifest("part")
        for manifest in (part, source):
            await stores.manifests.put(APP, manifest, [LATEST], now=NOW)
        derivation = derive(source, parts=(part,))
        memory = (source.digest, "plan")
        assert not await stores.derivations.made_here(derivation.configs[0], PLAN)

        for _ in range(2):
            await stores.derivations.record(derivation, now=NOW)
        for removed in (False, True):
            for digest in [manifest.digest for manifest in derivation.manifests] + list(derivation.configs):
                assert await stores.derivations.memories(APP, digest) == [memory]
                assert await stores.derivations.memories(OTHER, digest) == []
            assert await stores.derivations.memories(APP, source.digest) == []
            assert await stores.derivations.made_here(derivation.configs[0], PLAN)
            assert not await stores.derivations.made_here(derivation.configs[0], Digest.of(b"other plan"))
            assert not await stores.derivations.made_here(source.digest, PLAN)
            if not removed:
                await stores.manifests.delete(APP, source.digest, now=NOW)
                assert await stores.derivations.sources_of(APP, derivation.root.digest) == []

        await stores.manifests.put(APP, source, [LATEST], now=NOW)
        await stores.derivations.record(derivation, now=NOW)
        assert await stores.derivations.find(APP, source.digest, PLAN) is not None

    async def test_what_is_said_of_a_derived_image_refers_to_it(self, stores: DerivingStores) -> None:
        """The referrers of the root list it, with its type and annotations; it isn't taken for a derived image."""
        source = new_manifest("source")
        await stores.manifests.put(APP, source, [LATEST], now=NOW)
        derivation = attested(derive(source))
        [said] = derivation.attached

        for _ in range(2):
            await stores.derivations.record(derivation, now=NOW)

        listed = await stores.catalog.referrers(APP, derivation.root.digest, artifact_type=None, after="", limit=9)
        assert [(one.digest, one.artifact_type, dict(one.annotations)) for one in listed] == [
            (said.digest, "text/said", {"by": "us"})
        ]
        assert await stores.derivations.find(APP, source.digest, PLAN) == Served(
            derivation.root.digest, MEDIA_TYPE, len(derivation.root.raw)
        )
        assert await stores.derivations.sources_of(APP, said.digest) == []
        assert await stores.lineage.attached(APP, derivation.root.digest, "text/said") == said.digest
        assert await stores.lineage.attached(APP, derivation.root.digest, "text/other") is None
        assert await stores.lineage.attached(OTHER, derivation.root.digest, "text/said") is None

    async def test_what_is_said_goes_alone_or_with_its_image(self, stores: DerivingStores) -> None:
        """Deleting it leaves the image; deleting the image's source takes it along."""
        source = new_manifest("source")
        await stores.manifests.put(APP, source, [LATEST], now=NOW)
        derivation = attested(derive(source))
        [said] = derivation.attached
        await stores.derivations.record(derivation, now=NOW)

        assert await stores.manifests.delete(APP, said.digest, now=NOW) == []
        assert await stores.manifests.find_by_digest(APP, said.digest) is None
        assert await stores.manifests.find_by_tag(APP, LATEST) is not None

        await stores.derivations.record(derivation, now=NOW)
        assert await stores.manifests.find_by_digest(APP, said.digest) is not None
        assert await stores.manifests.delete(APP, source.digest, now=NOW) == [LATEST]
        assert await stores.manifests.find_by_digest(APP, said.digest) is None

    async def test_where_a_manifest_comes_from(self, stores: DerivingStores) -> None:
        """The indexes that list it and the sources it was derived from; the last derived root by its source."""
        part = new_manifest("amd64")
        await stores.manifests.put(APP, part, [], now=NOW)
        index = new_manifest("index", [child(part)])
        await stores.manifests.put(APP, index, [LATEST], now=NOW)
        assert await stores.lineage.latest(APP, index.digest) is None
        derivation = derive(index, parts=(part,))
        later = derive(index, parts=(part,), plan="a later plan")
        await stores.derivations.record(derivation, now=NOW)
        await stores.derivations.record(later, now=NOW + timedelta(seconds=1))

        made_from = stores.lineage.made_from
        assert await made_from(APP, part.digest) == [index.digest]
        assert await made_from(APP, index.digest) == []
        assert await made_from(APP, derivation.root.digest) == [index.digest]
        assert await made_from(APP, derivation.manifests[0].digest) == sorted(
            [part.digest, derivation.root.digest], key=str
        )
        assert await made_from(OTHER, part.digest) == []
        assert await stores.lineage.latest(APP, index.digest) == later.root.digest

    async def test_what_another_derivation_needs_stays(self, stores: DerivingStores) -> None:
        """A part derived for two indexes goes with the second of them."""
        part = new_manifest("amd64")
        await stores.manifests.put(APP, part, [], now=NOW)
        indexes = [new_manifest(f"index {number}", [child(part)]) for number in range(2)]
        derivations = []
        for index in indexes:
            await stores.manifests.put(APP, index, [], now=NOW)
            derivation = derive(index, parts=(part,))
            await stores.derivations.record(derivation, now=NOW)
            derivations.append(derivation)
        shared = derivations[0].manifests[0]
        assert shared.digest == derivations[1].manifests[0].digest

        await stores.manifests.delete(APP, indexes[0].digest, now=NOW)
        assert await stores.manifests.find_by_digest(APP, shared.digest) is not None
        assert await stores.derivations.find(APP, indexes[1].digest, PLAN) is not None

        await stores.manifests.delete(APP, indexes[1].digest, now=NOW)
        assert await stores.manifests.find_by_digest(APP, shared.digest) is None

    async def test_derived_content_is_not_listed(self, stores: DerivingStores) -> None:
        """No referrer, no tag, and no reason to show a repository in the catalog."""
        source = new_manifest("source", subject=Digest.of(b"subject"))
        await stores.manifests.put(APP, source, [], now=NOW)
        await stores.derivations.record(derive(source), now=NOW)

        listed = await stores.catalog.referrers(APP, Digest.of(b"subject"), artifact_type=None, after="", limit=5)
        assert [record.digest for record in listed] == [source.digest]
        assert await stores.catalog.tags(APP, after="", limit=5) == []

    async def test_what_was_pushed_stays_pushed(self, stores: DerivingStores) -> None:
        """A derived manifest that a client pushes is that client's: deleting the source leaves it, and it listed."""
        source = new_manifest("source")
        await stores.manifests.put(APP, source, [LATEST], now=NOW)
        derivation = derive(source)
        await stores.derivations.record(derivation, now=NOW)
        pushed = new_manifest(derivation.root.raw.decode())
        assert pushed.digest == derivation.root.digest

        await stores.manifests.put(APP, pushed, [Tag("mine")], now=NOW)
        await stores.derivations.record(derivation, now=NOW)
        await stores.manifests.delete(APP, source.digest, now=NOW)

        assert await stores.catalog.tags(APP, after="", limit=5) == ["mine"]
        assert await stores.catalog.repositories(after="", limit=5) == [str(APP)]
        assert await stores.manifests.delete(APP, pushed.digest, now=NOW) == [Tag("mine")]

    async def test_a_plan_that_now_gives_something_else(self, stores: DerivingStores) -> None:
        """The new root answers; the old one is still known for what it is, for those who pinned it."""
        source = new_manifest("source")
        await stores.manifests.put(APP, source, [LATEST], now=NOW)
        old, new = derive(source), derive(source, salt="2")
        await stores.derivations.record(old, now=NOW)

        await stores.derivations.record(new, now=NOW)

        found = await stores.derivations.find(APP, source.digest, PLAN)
        assert found is not None
        assert found.digest == new.root.digest
        assert await stores.derivations.sources_of(APP, old.root.digest) == [source.digest]
        await stores.manifests.delete(APP, source.digest, now=NOW)
        assert await stores.manifests.find_by_digest(APP, old.root.digest) is None

    async def test_layers_are_remembered_before_anybody_serves_them(self, stores: DerivingStores) -> None:
        """Once: the first row stays. No repository may serve or mount the blob for that."""
        blob = derived_blob("layer")
        assert await stores.layers.find(blob.digest) is None

        assert await stores.layers.remember(blob, now=NOW) == blob
        copy = DerivedBlob(blob.digest, blob.size, Key("a/copy"))
        assert await stores.layers.remember(copy, now=NOW) == blob

        assert await stores.layers.find(blob.digest) == blob
        assert await stores.blobs.find(APP, blob.digest) is None
        assert await stores.blobs.mount(APP, blob.digest, source=None, now=NOW) is None
