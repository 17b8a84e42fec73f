"""What taking up a tree asks of a database (``roadstead.registry.ports.ImportStore``, ``LinkStore``).

A subclass gives the fixture ``stores``: the stores of one process on a database that starts empty.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from roadstead.oci.digest import Algorithm, Digest
from roadstead.oci.reference import Tag
from roadstead.registry.ports import (
    BlobRecord,
    ChangeOrigin,
    CollectionStore,
    FoundBlob,
    FoundManifest,
    FoundTag,
    ImportState,
    ImportStatus,
    ImportStore,
    LinkChange,
    LinkKind,
    LinkStore,
    ReferrerRecord,
)
from roadstead.storage.ports import Key
from roadstead.testing.contracts.registry_stores import (
    APP,
    LATEST,
    MEDIA_TYPE,
    NOW,
    OTHER,
    RegistryStores,
    child,
    layer,
    new_blob,
    new_manifest,
    tag_history,
)

EARLIER = NOW - timedelta(days=30)


class ImportingStores(RegistryStores, Protocol):
    """The stores of one process, with those that take up a tree."""

    collection: CollectionStore
    imports: ImportStore
    links: LinkStore


def found_blob(blob: BlobRecord) -> FoundBlob:
    """Return bytes in storage."""
    return FoundBlob(blob.digest, blob.size, blob.key, EARLIER)


def noted(changes: Sequence[LinkChange]) -> list[tuple[str, str, str, str | None]]:
    """Return what notes are about, oldest first."""
    return [(str(one.repository), one.kind, one.name, str(one.digest) if one.digest else None) for one in changes]


class ImportStoreContract:
    """The promises of `ImportStore`."""

    async def test_the_status_is_kept(self, stores: ImportingStores) -> None:
        """Nothing at first; then what was said last."""
        assert await stores.imports.status() == ImportStatus()

        for status in (
            ImportStatus(ImportState.RUNNING, NOW, after="team/app"),
            ImportStatus(ImportState.DONE, NOW, NOW + timedelta(microseconds=1)),
        ):
            await stores.imports.set_status(status)
            assert await stores.imports.status() == status

    async def test_a_database_is_empty_until_a_repository_comes(self, stores: ImportingStores) -> None:
        """A repository, with whatever in it."""
        assert await stores.imports.is_empty()

        await stores.imports.add_repository(APP, now=NOW)

        assert not await stores.imports.is_empty()

    async def test_blobs_are_served_where_they_are_linked(self, stores: ImportingStores) -> None:
        """By the repositories that link them, under the key they were found at; missing ones are told."""
        here, gone = new_blob("here"), new_blob("gone")
        await stores.imports.add_repository(APP, now=NOW)
        await stores.imports.add_repository(OTHER, now=NOW)

        assert await stores.imports.add_blobs([found_blob(here)]) == 1
        assert await stores.imports.add_blobs([found_blob(here)]) == 0
        for _ in range(2):
            links = [(here.digest, here.digest), (gone.digest, gone.digest)]
            assert await stores.imports.link_blobs(APP, links) == [gone.digest]

        assert await stores.blobs.find(APP, here.digest) == here
        assert await stores.blobs.find(OTHER, here.digest) is None
        assert await stores.blobs.find(APP, gone.digest) is None

    async def test_a_blob_is_served_by_its_other_digest(self, stores: ImportingStores) -> None:
        """Distribution keeps what was pushed under sha512 under its sha256."""
        blob = new_blob("known by two")
        alias = Digest.of(b"known by two", Algorithm.SHA512)
        await stores.imports.add_repository(APP, now=NOW)
        await stores.imports.add_blobs([found_blob(blob)])

        assert await stores.imports.link_blobs(APP, [(alias, blob.digest)]) == []

        assert await stores.blobs.find(APP, alias) == BlobRecord(alias, blob.size, blob.key)
        assert await stores.blobs.find(APP, blob.digest) is None

    async def test_collection_knows_of_both_digests_and_of_manifests(self, stores: ImportingStores) -> None:
        """Bytes stay while another digest or a manifest needs them, whoever else serves them."""
        blob, alone = new_blob("known by two"), new_blob("nobody's")
        alias = Digest.of(b"known by two", Algorithm.SHA512)
        manifest = new_manifest("a manifest's bytes")
        records = [blob, alone, new_blob("a manifest's bytes")]
        await stores.imports.add_repository(APP, now=NOW)
        await stores.imports.add_blobs([found_blob(record) for record in records])
        await stores.imports.link_blobs(APP, [(alias, blob.digest)])
        await stores.imports.add_manifests(APP, [FoundManifest(manifest, NOW)])

        assert await stores.collection.condemn([record.digest for record in records], now=NOW) == [alone.digest]
        assert await stores.collection.condemn([alias], now=NOW) == [alias]
        taken = await stores.collection.take_doomed(condemned_before=NOW, abandoned_before=EARLIER, limit=10, now=NOW)
        await stores.collection.forget([doomed for doomed in taken if doomed.digest == alias])
        assert await stores.collection.condemn([blob.digest], now=NOW) == [blob.digest]

        assert await stores.imports.drop_manifest_blobs() == 1
        strays = [records[2], new_blob("left by a crash")]
        assert await stores.collection.adopt(strays, lease_until=NOW, now=NOW) == 1

    async def test_manifests_come_with_what_they_refer_to_or_without(self, stores: ImportingStores) -> None:
        """What is missing is excused, so that everything that counts as needed is there."""
        blob = new_blob("layer")
        image = new_manifest("image", [layer(blob), layer(new_blob("gone"))])
        index = new_manifest("index", [child(image), child(new_manifest("never pushed"))])
        await stores.imports.add_repository(APP, now=NOW)
        await stores.imports.add_blobs([found_blob(blob)])
        await stores.imports.link_blobs(APP, [(blob.digest, blob.digest)])

        for _ in range(2):
            await stores.imports.add_manifests(APP, [FoundManifest(index, EARLIER), FoundManifest(image, EARLIER)])

        assert await stores.imports.settle(APP) == 2
        assert await stores.imports.settle(APP) == 0
        assert await stores.imports.held(APP, [image.digest, index.digest, blob.digest]) == {image.digest, index.digest}
        assert await stores.manifests.content(index.digest) == index.raw
        assert await stores.catalog.repositories(after="", limit=10) == [APP.value]

    async def test_a_repository_without_manifests_is_not_listed(self, stores: ImportingStores) -> None:
        """As in distribution's catalog."""
        await stores.imports.add_repository(APP, now=NOW)
        await stores.imports.add_manifests(APP, [])

        assert await stores.catalog.repositories(after="", limit=10) == []

    async def test_tags_come_with_their_history(self, stores: ImportingStores) -> None:
        """A line for each place where the tag pointed, oldest first; never a time behind that of the present one."""
        old, new = new_manifest("old"), new_manifest("new")
        gone = Digest.of(b"gone")
        await stores.imports.add_repository(APP, now=NOW)
        await stores.imports.add_manifests(APP, [FoundManifest(new, EARLIER), FoundManifest(old, EARLIER)])
        history = [(gone, EARLIER), (old.digest, NOW + timedelta(hours=1))]

        for _ in range(2):
            found = [FoundTag(LATEST, new.digest, NOW, history), FoundTag(Tag("lost"), gone, NOW)]
            assert await stores.imports.add_tags(APP, found) == [found[1]]

        changes = list(reversed(await stores.journal.tag_changes(APP, LATEST, limit=10)))
        assert await tag_history(stores) == [(None, gone), (gone, old.digest), (old.digest, new.digest)]
        assert [change.at for change in changes] == [EARLIER, NOW, NOW]
        assert {change.origin for change in changes} == {ChangeOrigin.IMPORT}
        assert await stores.catalog.tags(APP, after="", limit=10) == [LATEST.value]

    async def test_what_changed_later_here_stays(self, stores: ImportingStores) -> None:
        """A tag follows the tree only where the tree is newer."""
        ours, theirs = new_manifest("ours"), new_manifest("theirs")
        await stores.manifests.put(APP, ours, [LATEST], now=NOW)
        await stores.imports.add_manifests(APP, [FoundManifest(theirs, NOW)])

        await stores.imports.add_tags(APP, [FoundTag(LATEST, theirs.digest, EARLIER)])
        found = await stores.manifests.find_by_tag(APP, LATEST)
        assert found is not None
        assert found.digest == ours.digest

        await stores.imports.add_tags(APP, [FoundTag(LATEST, theirs.digest, NOW + timedelta(hours=1))])
        found = await stores.manifests.find_by_tag(APP, LATEST)
        assert found is not None
        assert found.digest == theirs.digest
        assert await tag_history(stores) == [(None, ours.digest), (ours.digest, theirs.digest)]

    async def test_referrers_that_only_a_tag_knows(self, stores: ImportingStores) -> None:
        """They refer to the subject from now on; one that names a subject itself is left as it is."""
        subject, other = Digest.of(b"subject"), Digest.of(b"other subject")
        silent = new_manifest("silent", artifact_type="application/x", annotations={"a": "b"})
        speaking = new_manifest("speaking", subject=other)
        await stores.imports.add_repository(APP, now=NOW)
        await stores.imports.add_manifests(APP, [FoundManifest(silent, NOW), FoundManifest(speaking, NOW)])

        found = [silent, speaking, new_manifest("not here")]
        assert await stores.imports.add_referrers(APP, subject, found) == 1

        assert await stores.catalog.referrers(APP, subject, artifact_type=None, after="", limit=10) == [
            ReferrerRecord(silent.digest, MEDIA_TYPE, len(silent.raw), "application/x", {"a": "b"})
        ]

    async def test_bytes_of_manifests_are_no_blobs(self, stores: ImportingStores) -> None:
        """Unless a repository serves them as one."""
        manifest, both = new_manifest("only a manifest"), new_manifest("a layer too")
        records = [new_blob("only a manifest"), new_blob("a layer too"), new_blob("nobody's")]
        await stores.imports.add_repository(APP, now=NOW)
        await stores.imports.add_blobs([found_blob(record) for record in records])
        await stores.imports.add_manifests(APP, [FoundManifest(manifest, NOW), FoundManifest(both, NOW)])
        await stores.imports.link_blobs(APP, [(both.digest, both.digest)])

        assert await stores.imports.drop_manifest_blobs() == 1

        assert await stores.layers.find(manifest.digest) is None
        assert await stores.layers.find(both.digest) is not None
        assert await stores.layers.find(records[2].digest) is not None


class LinkStoreContract:
    """The promises of `LinkStore`."""

    async def test_nothing_is_noted_until_it_is_switched_on(self, stores: ImportingStores) -> None:
        """And nothing any more once it is switched off."""
        await stores.manifests.put(APP, new_manifest("1"), [LATEST], now=NOW)
        assert await stores.links.changes(limit=10) == []

        await stores.links.switch_on(complete=True)
        await stores.manifests.put(APP, new_manifest("2"), [LATEST], now=NOW)
        assert len(await stores.links.changes(limit=10)) == 2

        await stores.links.switch_off()
        await stores.manifests.put(APP, new_manifest("3"), [LATEST], now=NOW)
        assert await stores.links.changes(limit=10) == []

    async def test_what_was_there_before_is_noted_once(self, stores: ImportingStores) -> None:
        """Layers first, then manifests, then tags: a tag never leads where nothing is."""
        blob = new_blob("layer")
        manifest = new_manifest("image", [layer(blob)])
        await stores.blobs.commit(APP, blob, upload=None, now=NOW)
        await stores.manifests.put(APP, manifest, [LATEST], now=NOW)

        for _ in range(2):
            await stores.links.switch_on(complete=False)

        assert noted(await stores.links.changes(limit=10)) == [
            ("team/app", LinkKind.LAYER, str(blob.digest), None),
            ("team/app", LinkKind.MANIFEST, str(manifest.digest), None),
            ("team/app", LinkKind.TAG, "latest", str(manifest.digest)),
        ]

    async def test_every_change_is_noted(self, stores: ImportingStores) -> None:
        """A blob that comes, is mounted and goes; a manifest and its tags, made, moved and removed."""
        await stores.links.switch_on(complete=True)
        blob = new_blob("layer")
        one, two = new_manifest("one"), new_manifest("two")
        first, second = str(one.digest), str(two.digest)

        await stores.blobs.commit(APP, blob, upload=None, now=NOW)
        await stores.blobs.mount(OTHER, blob.digest, source=APP, now=NOW)
        await stores.blobs.unlink(APP, blob.digest, now=NOW)
        await stores.manifests.put(APP, one, [LATEST], now=NOW)
        await stores.manifests.put(APP, two, [LATEST], now=NOW)
        await stores.manifests.put(APP, two, [LATEST], now=NOW)
        await stores.manifests.delete_tag(APP, LATEST, now=NOW)
        await stores.manifests.put(APP, two, [Tag("v2")], now=NOW)
        await stores.manifests.delete(APP, two.digest, now=NOW)

        assert noted(await stores.links.changes(repository=APP, limit=100)) == [
            ("team/app", LinkKind.LAYER, str(blob.digest), None),
            ("team/app", LinkKind.LAYER, str(blob.digest), None),
            ("team/app", LinkKind.MANIFEST, first, None),
            ("team/app", LinkKind.TAG, "latest", first),
            ("team/app", LinkKind.MANIFEST, second, None),
            ("team/app", LinkKind.TAG, "latest", second),
            ("team/app", LinkKind.TAG, "latest", None),
            ("team/app", LinkKind.TAG, "v2", second),
            ("team/app", LinkKind.TAG, "v2", None),
            ("team/app", LinkKind.MANIFEST, second, None),
        ]
        assert noted(await stores.links.changes(repository=OTHER, limit=100)) == [
            ("team/other", LinkKind.LAYER, str(blob.digest), None)
        ]

    async def test_notes_are_forgotten_one_by_one(self, stores: ImportingStores) -> None:
        """Those that came meanwhile stay; the time is kept."""
        await stores.links.switch_on(complete=True)
        assert await stores.links.last_written() is None
        await stores.manifests.put(APP, new_manifest("1"), [LATEST], now=NOW)
        seen = await stores.links.changes(limit=10)
        await stores.manifests.put(APP, new_manifest("2"), [LATEST], now=NOW)

        await stores.links.forget(seen, now=NOW)

        left = await stores.links.changes(limit=10)
        assert len(left) == 2
        assert not {one.position for one in seen} & {one.position for one in left}
        assert await stores.links.last_written() == NOW

    async def test_the_facts_are_those_of_now(self, stores: ImportingStores) -> None:
        """Of what is served, held and tagged."""
        blob = new_blob("layer")
        manifest = new_manifest("image", [layer(blob)])
        nothing = (None, None, None)

        async def facts() -> tuple[object, object, object]:
            return (
                await stores.links.layer(APP, blob.digest),
                await stores.links.manifest(APP, manifest.digest),
                await stores.links.tag(APP, LATEST),
            )

        assert await facts() == nothing
        await stores.blobs.commit(APP, blob, upload=None, now=NOW)
        await stores.manifests.put(APP, manifest, [LATEST], now=NOW)
        assert await facts() == (blob, manifest.raw, manifest.digest)

        await stores.manifests.delete(APP, manifest.digest, now=NOW)
        await stores.blobs.unlink(APP, blob.digest, now=NOW)
        assert await facts() == nothing

    async def test_a_blob_moves(self, stores: ImportingStores) -> None:
        """From where it was; not from elsewhere."""
        blob = new_blob("layer")
        await stores.blobs.commit(APP, blob, upload=None, now=NOW)

        assert not await stores.links.relocate(blob.digest, Key("elsewhere"), Key("new"))
        assert await stores.links.relocate(blob.digest, blob.key, Key("new"))

        assert await stores.blobs.find(APP, blob.digest) == BlobRecord(blob.digest, blob.size, Key("new"))
