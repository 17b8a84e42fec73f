"""What collection's store promises (``roadstead.registry.ports.CollectionStore``), on every database.

A subclass gives two fixtures, ``stores`` and ``elsewhere``: the same database, reached over connections of their own
as two processes would. It starts empty. Leases last for a day.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

import pytest

from roadstead.oci.reference import Tag
from roadstead.registry.errors import StoreBusyError
from roadstead.registry.ports import (
    BlobRecord,
    BlobState,
    ChangeOrigin,
    CollectionStore,
    DoomedBlob,
    ManifestFacts,
    UploadRecord,
)
from roadstead.storage import keys
from roadstead.storage.arrivals import MAX_ARRIVAL
from roadstead.storage.ports import Staged
from roadstead.testing.contracts.registry_stores import (
    APP,
    LATEST,
    NOW,
    OTHER,
    RegistryStores,
    child,
    layer,
    new_blob,
    new_manifest,
)

DAY = timedelta(hours=24)
LATER = NOW + DAY  # every lease of NOW has run out
WAITED = LATER + timedelta(minutes=1)


class CollectingStores(RegistryStores, Protocol):
    """The stores of one process."""

    collection: CollectionStore


async def pushed(stores: CollectingStores, text: str) -> BlobRecord:
    """Return a blob that was pushed to `APP` at `NOW`."""
    return await stores.blobs.commit(APP, new_blob(text), upload=None, now=NOW)


async def condemned(stores: CollectingStores, text: str) -> BlobRecord:
    """Return a blob that was condemned at `LATER`."""
    blob = await pushed(stores, text)
    assert await stores.collection.condemn([blob.digest], now=LATER) == [blob.digest]
    return blob


async def taken(stores: CollectingStores, *, limit: int = 100) -> list[DoomedBlob]:
    """Take what has been condemned for a minute at `WAITED`."""
    return list(
        await stores.collection.take_doomed(condemned_before=LATER, abandoned_before=NOW - DAY, limit=limit, now=WAITED)
    )


class CollectionStoreContract:
    """The promises of `CollectionStore`, and what the other stores promise beside it."""

    async def test_facts_come_in_pages(self, stores: CollectingStores) -> None:
        """Ascending by digest, each blob once."""
        blobs = sorted([await pushed(stores, f"blob {n}") for n in range(5)], key=lambda blob: str(blob.digest))

        first = await stores.collection.blobs(after="", limit=3)
        rest = await stores.collection.blobs(after=str(first[-1].digest), limit=3)

        assert [facts.digest for facts in [*first, *rest]] == [blob.digest for blob in blobs]
        assert first[0].state is BlobState.LIVE
        assert first[0].lease_until == LATER

    async def test_facts_tell_what_needs_a_blob(self, stores: CollectingStores) -> None:
        """Referenced by a manifest; idle in a repository that has none that needs it."""
        needed, idle = await pushed(stores, "needed"), await pushed(stores, "idle")
        await stores.blobs.mount(OTHER, needed.digest, source=APP, now=NOW)
        manifest = new_manifest("{}", [layer(needed)])
        await stores.manifests.put(APP, manifest, [LATEST], now=NOW)

        facts = {blob.digest: blob for blob in await stores.collection.blobs(after="", limit=10)}

        assert (facts[needed.digest].referenced, facts[needed.digest].idle_link) == (True, True)
        assert (facts[idle.digest].referenced, facts[idle.digest].idle_link) == (False, True)
        assert await stores.collection.needed_by(needed.digest) == (APP, manifest.digest)
        assert await stores.collection.needed_by(idle.digest) is None

    async def test_a_lease_keeps_a_blob(self, stores: CollectingStores) -> None:
        """To its last moment; then nothing serves it."""
        blob = await pushed(stores, "leased")

        assert await stores.collection.condemn([blob.digest], now=LATER - timedelta(microseconds=1)) == []
        assert await stores.blobs.find(APP, blob.digest) == blob
        assert await stores.collection.condemn([blob.digest], now=LATER) == [blob.digest]
        assert await stores.blobs.find(APP, blob.digest) is None

    async def test_whoever_is_told_of_a_blob_has_a_lease(self, stores: CollectingStores) -> None:
        """Pushing, mounting and asking leave at least half of one; finding it does nothing."""
        told: tuple[Callable[[BlobRecord], Awaitable[object]], ...] = (
            lambda blob: stores.blobs.commit(OTHER, blob, upload=None, now=LATER - DAY / 4),
            lambda blob: stores.blobs.mount(OTHER, blob.digest, source=APP, now=LATER - DAY / 4),
            lambda blob: stores.blobs.promise(APP, blob.digest, now=LATER - DAY / 4),
        )
        for number, tell in enumerate(told):
            blob = await pushed(stores, f"blob {number}")
            await tell(blob)
            assert await stores.collection.condemn([blob.digest], now=LATER) == []

        found = await pushed(stores, "found")
        await stores.blobs.find(APP, found.digest)
        assert await stores.collection.condemn([found.digest], now=LATER) == [found.digest]

    async def test_an_ample_lease_is_not_written_again(self, stores: CollectingStores) -> None:
        """While more than half is left asking is reading."""
        blob = await pushed(stores, "asked for")

        assert await stores.blobs.promise(APP, blob.digest, now=NOW + DAY / 4) == blob

        (facts,) = await stores.collection.blobs(after="", limit=1)
        assert facts.lease_until == LATER

    async def test_nothing_is_promised_of_what_is_not_served(self, stores: CollectingStores) -> None:
        """Condemned, next door or unknown: whoever asks has to push, and that brings it back."""
        blob = await condemned(stores, "condemned")

        assert await stores.blobs.promise(APP, blob.digest, now=WAITED) is None
        assert await stores.blobs.promise(OTHER, (await pushed(stores, "x")).digest, now=NOW) is None
        assert await stores.blobs.promise(APP, new_blob("nowhere").digest, now=NOW) is None

    async def test_what_a_manifest_needs_stays(self, stores: CollectingStores) -> None:
        """Also in the repository of that manifest; where none needs it, it is served no more."""
        blob = await pushed(stores, "needed")
        await stores.blobs.mount(OTHER, blob.digest, source=APP, now=NOW)
        await stores.manifests.put(APP, new_manifest("{}", [layer(blob)]), [LATEST], now=NOW)

        assert await stores.collection.condemn([blob.digest], now=LATER) == []

        assert await stores.blobs.find(APP, blob.digest) == blob
        assert await stores.blobs.find(OTHER, blob.digest) is None

    async def test_a_blob_that_was_taken_from_a_repository_by_hand_stays_for_its_manifest(
        self, stores: CollectingStores
    ) -> None:
        """A client may delete a blob that a manifest needs; its bytes stay, so that it can be given back."""
        blob = await pushed(stores, "needed")
        await stores.manifests.put(APP, new_manifest("{}", [layer(blob)]), [LATEST], now=NOW)
        await stores.blobs.unlink(APP, blob.digest, now=NOW)

        assert await stores.collection.condemn([blob.digest], now=LATER) == []

    async def test_what_a_manifest_may_do_without_stays_where_it_is_there(self, stores: CollectingStores) -> None:
        """A non-distributable layer that was pushed all the same; not one that only another repository has."""
        here, next_door = await pushed(stores, "here"), new_blob("next door")
        await stores.blobs.commit(OTHER, next_door, upload=None, now=NOW)
        references = [layer(here, optional=True), layer(next_door, optional=True)]
        await stores.manifests.put(APP, new_manifest("{}", references), [LATEST], now=NOW)

        assert await stores.collection.condemn([here.digest, next_door.digest], now=LATER) == [next_door.digest]

    async def test_what_was_condemned_is_taken_after_a_while(self, stores: CollectingStores) -> None:
        """Not before, once, and its row goes with whoever took it."""
        blob = await condemned(stores, "doomed")
        early = await stores.collection.take_doomed(
            condemned_before=LATER - timedelta(microseconds=1), abandoned_before=NOW, limit=10, now=WAITED
        )

        (doomed,) = await taken(stores)

        assert early == []
        assert (doomed.digest, doomed.size, doomed.key, doomed.since) == (blob.digest, blob.size, blob.key, WAITED)
        assert await taken(stores) == []
        assert await stores.collection.forget([doomed]) == 1
        assert await stores.collection.blobs(after="", limit=1) == []
        assert await stores.collection.forget([doomed]) == 0

    async def test_what_is_needed_again_is_not_taken(self, stores: CollectingStores) -> None:
        """Whoever brought it back, it is served again."""
        blob = await condemned(stores, "wanted")
        await stores.blobs.commit(APP, blob, upload=None, now=WAITED)

        assert await taken(stores) == []
        assert await stores.blobs.find(APP, blob.digest) == blob

    async def test_two_collectors_take_each_blob_once(
        self, stores: CollectingStores, elsewhere: CollectingStores
    ) -> None:
        """Each gets others."""
        blobs = [await condemned(stores, f"doomed {number}") for number in range(4)]

        both = [*await taken(stores, limit=3), *await taken(elsewhere, limit=3)]

        assert sorted(str(doomed.digest) for doomed in both) == sorted(str(blob.digest) for blob in blobs)

    async def test_what_nobody_finished_is_taken_again(
        self, stores: CollectingStores, elsewhere: CollectingStores
    ) -> None:
        """After its time; the first, should it wake up, can't remove the row any more."""
        await condemned(stores, "abandoned")
        (first,) = await taken(stores)
        much_later = WAITED + timedelta(hours=1)

        (second,) = await elsewhere.collection.take_doomed(
            condemned_before=NOW, abandoned_before=WAITED, limit=10, now=much_later
        )

        assert second.since == much_later
        assert await stores.collection.forget([first]) == 0
        assert await elsewhere.collection.forget([second]) == 1

    async def test_bytes_written_while_collection_removed_them_are_not_trusted(self, stores: CollectingStores) -> None:
        """There was a row when they were written and there is none now: they may have gone with it."""
        blob = await condemned(stores, "in between")
        arrival = await stores.blobs.expect(blob.digest, now=WAITED)
        await stores.collection.forget(await taken(stores))

        with pytest.raises(StoreBusyError):
            await stores.blobs.commit(APP, blob, upload=None, now=WAITED, arrival=arrival)

        assert await stores.blobs.find(APP, blob.digest) is None
        again = await stores.blobs.expect(blob.digest, now=WAITED)
        assert await stores.blobs.commit(APP, blob, upload=None, now=WAITED, arrival=again) == blob

    async def test_bytes_that_were_long_on_their_way_are_not_trusted(self, stores: CollectingStores) -> None:
        """A row may have come and gone meanwhile."""
        blob = new_blob("slow")
        arrival = await stores.blobs.expect(blob.digest, now=NOW)

        with pytest.raises(StoreBusyError):
            await stores.blobs.commit(
                APP, blob, upload=None, now=NOW + MAX_ARRIVAL + timedelta(seconds=1), arrival=arrival
            )

    async def test_nothing_is_written_over_bytes_that_are_being_removed(self, stores: CollectingStores) -> None:
        """Whoever is about to is told to come back."""
        blob = await condemned(stores, "going")
        await taken(stores)

        with pytest.raises(StoreBusyError):
            await stores.blobs.expect(blob.digest, now=WAITED)

    async def test_strays_become_condemned(self, stores: CollectingStores) -> None:
        """They get a row where there is none, go like any other once their lease is over, or come back with a push."""
        known, stray, pushed_again = await pushed(stores, "known"), new_blob("stray"), new_blob("pushed again")

        made = await stores.collection.adopt([known, stray, pushed_again], lease_until=WAITED, now=LATER)
        await stores.blobs.commit(APP, pushed_again, upload=None, now=LATER)

        assert made == 2
        assert await stores.layers.find(stray.digest) is None
        assert [doomed.digest for doomed in await taken(stores)] == [stray.digest]
        assert await stores.blobs.find(APP, pushed_again.digest) == pushed_again
        assert await stores.blobs.find(APP, known.digest) == known

    async def test_what_lies_where_nothing_needs_it(self, stores: CollectingStores) -> None:
        """A key that is a live blob's is used, in whatever state, and so is one of an upload that may still end."""
        kept, doomed, free = keys.staged("kept"), keys.staged("doomed"), keys.staged("free")
        await stores.blobs.commit(APP, replace(new_blob("kept"), key=kept), upload=None, now=NOW)
        gone = await stores.blobs.commit(APP, replace(new_blob("doomed"), key=doomed), upload=None, now=NOW)
        await stores.collection.condemn([gone.digest], now=LATER)
        under_way = UploadRecord(upload_id="under-way", repository=APP, staged=Staged(5, "{}"), started_at=NOW)
        assert await stores.uploads.advance(under_way, now=NOW)
        given_up = UploadRecord(upload_id="given-up", repository=APP, started_at=NOW)
        assert await stores.uploads.cancel(given_up, now=NOW)
        uploads = [keys.staged("under-way"), keys.staged("given-up")]

        assert await stores.collection.unused([kept, doomed, free, *uploads]) == [free, uploads[1]]

    async def test_facts_tell_what_keeps_a_manifest(self, stores: CollectingStores) -> None:
        """A tag, an index that lists it, a subject that is here; in this repository alone."""
        part, lone = new_manifest("part"), new_manifest("lone")
        index = new_manifest("index", [child(part)])
        signature = new_manifest("signature", subject=index.digest)
        orphan = new_manifest("orphan", subject=new_blob("nowhere").digest)
        for manifest in (part, lone, signature, orphan):
            await stores.manifests.put(APP, manifest, [], now=NOW)
        await stores.manifests.put(APP, index, [LATEST], now=NOW)
        await stores.manifests.put(OTHER, part, [], now=NOW)

        facts = await _manifests(stores)

        mine = {fact.digest: fact for fact in facts if fact.repository == APP}
        kept = {digest: (fact.tagged, fact.listed, fact.subject_here, fact.derived) for digest, fact in mine.items()}
        assert kept == {
            part.digest: (False, True, False, False),
            lone.digest: (False, False, False, False),
            index.digest: (True, False, False, False),
            signature.digest: (False, False, True, False),
            orphan.digest: (False, False, False, False),
        }
        assert [(fact.repository, fact.listed) for fact in facts if fact.repository == OTHER] == [(OTHER, False)]

    async def test_an_untagged_manifest_ages_from_when_it_lost_its_tag(self, stores: CollectingStores) -> None:
        """Or was pushed again, whichever was later."""
        moved, dropped, pushed_again = new_manifest("moved"), new_manifest("dropped"), new_manifest("pushed again")
        await stores.manifests.put(APP, moved, [LATEST], now=NOW)
        await stores.manifests.put(APP, dropped, [Tag("v1")], now=NOW)
        await stores.manifests.put(APP, pushed_again, [], now=NOW)
        await stores.manifests.put(APP, pushed_again, [LATEST], now=LATER)
        await stores.manifests.delete_tag(APP, Tag("v1"), now=WAITED)

        since = {fact.digest: fact.since for fact in await _manifests(stores)}

        assert since == {moved.digest: LATER, dropped.digest: WAITED, pushed_again.digest: LATER}

    async def test_a_manifest_that_nothing_keeps_is_collected(self, stores: CollectingStores) -> None:
        """Old enough, it goes, and its repository from the catalog with the last."""
        blob = await pushed(stores, "layer")
        manifest = new_manifest("{}", [layer(blob)])
        await stores.manifests.put(APP, manifest, [], now=NOW)
        collect = stores.collection.collect_manifest

        assert not await collect(APP, manifest.digest, idle_since=NOW - timedelta(microseconds=1), now=LATER)
        assert not await collect(OTHER, manifest.digest, idle_since=NOW, now=LATER)
        assert await collect(APP, manifest.digest, idle_since=NOW, now=LATER)

        assert await stores.manifests.find_by_digest(APP, manifest.digest) is None
        assert await stores.catalog.repositories(after="", limit=10) == []
        assert await stores.collection.condemn([blob.digest], now=LATER) == [blob.digest]

    async def test_what_came_to_keep_a_manifest_is_seen(self, stores: CollectingStores) -> None:
        """A tag, an index or a subject that came after the facts were read."""
        tagged, part = new_manifest("tagged"), new_manifest("part")
        subject = new_manifest("subject")
        signature = new_manifest("signature", subject=subject.digest)
        for manifest in (tagged, part, signature):
            await stores.manifests.put(APP, manifest, [], now=NOW)
        await stores.manifests.put(APP, tagged, [LATEST], now=NOW)
        await stores.manifests.put(APP, new_manifest("index", [child(part)]), [Tag("i")], now=NOW)
        await stores.manifests.put(APP, subject, [Tag("s")], now=NOW)

        for manifest in (tagged, part, signature):
            assert not await stores.collection.collect_manifest(APP, manifest.digest, idle_since=LATER, now=LATER)
            assert await stores.manifests.find_by_digest(APP, manifest.digest) is not None

    async def test_a_tag_expires(self, stores: CollectingStores) -> None:
        """Its manifest stays, and the journal tells why it went."""
        manifest = new_manifest("{}")
        await stores.manifests.put(APP, manifest, [LATEST, Tag("v1")], now=NOW)
        first, second = await stores.collection.tag_ages(APP, after="", limit=10)

        assert await stores.collection.expire_tag(APP, first, now=LATER)

        assert (first.tag, first.digest, first.since) == (LATEST, manifest.digest, NOW)
        assert await stores.collection.tag_ages(APP, after="", limit=10) == [second]
        assert await stores.collection.tag_ages(APP, after="v1", limit=10) == []
        assert await stores.manifests.find_by_digest(APP, manifest.digest) is not None
        (change, _) = await stores.journal.tag_changes(APP, LATEST, limit=10)
        assert (change.origin, change.digest, change.previous) == (ChangeOrigin.RETENTION, None, manifest.digest)

    async def test_a_tag_that_moved_since_does_not_expire(self, stores: CollectingStores) -> None:
        """It is as young as its push; one that is gone is gone."""
        await stores.manifests.put(APP, new_manifest("1"), [LATEST], now=NOW)
        (seen,) = await stores.collection.tag_ages(APP, after="", limit=10)
        await stores.manifests.put(APP, new_manifest("2"), [LATEST], now=LATER)

        assert not await stores.collection.expire_tag(APP, seen, now=LATER)
        assert await stores.manifests.find_by_tag(APP, LATEST) is not None
        await stores.manifests.delete_tag(APP, LATEST, now=LATER)
        assert not await stores.collection.expire_tag(APP, seen, now=LATER)
        assert not await stores.collection.expire_tag(OTHER, seen, now=LATER)


async def _manifests(stores: CollectingStores) -> list[ManifestFacts]:
    """Return all facts, read one at a time."""
    found: list[ManifestFacts] = []
    after = (0, "")
    while page := await stores.collection.manifests(after=after, limit=1):
        found += page
        after = page[-1].position
    return found
