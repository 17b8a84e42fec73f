"""What the stores promise of immutable tags and of tags that are put back, on every database.

A subclass gives the fixture ``stores``. It starts empty.
"""

from datetime import timedelta

import pytest

from roadstead.oci.digest import Digest
from roadstead.oci.reference import Tag
from roadstead.registry.errors import TagImmutableError
from roadstead.registry.history import PastUnknownError, TagHistory
from roadstead.registry.immutable import NOTHING_IMMUTABLE, ImmutableTags
from roadstead.registry.ports import ChangeOrigin
from roadstead.testing.clock import FrozenClock
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

RELEASE = Tag("v1")
RELEASES = ImmutableTags.parse(["team/app:v*"])


class TagRulesContract:
    """Immutable tags, and tags that are put back."""

    async def test_an_immutable_tag_is_made_once(self, stores: RegistryStores) -> None:
        """The same push again is taken; another is refused whole, with its other tags; next door nothing is."""
        first, second = new_manifest("first"), new_manifest("second")
        put = stores.manifests.put
        await put(APP, first, [RELEASE], immutable=RELEASES, now=NOW)
        await put(APP, first, [RELEASE], immutable=RELEASES, now=NOW)

        with pytest.raises(TagImmutableError) as caught:
            await put(APP, second, [LATEST, RELEASE], immutable=RELEASES, now=NOW)
        await put(OTHER, first, [RELEASE], now=NOW)
        await put(OTHER, second, [RELEASE], immutable=RELEASES, now=NOW)

        assert (caught.value.tag, caught.value.current) == (RELEASE, first.digest)
        assert await stores.catalog.tags(APP, after="", limit=10) == ["v1"]
        assert await stores.manifests.find_by_digest(APP, second.digest) is None

    async def test_an_immutable_tag_is_not_removed(self, stores: RegistryStores) -> None:
        """Neither alone nor with its manifest, nor any part of its manifest; others are."""
        part, other = new_manifest("part"), new_manifest("other")
        inner = new_manifest("inner", [child(part)])
        outer = new_manifest("outer", [child(inner)])
        for manifest, tag in ((part, Tag("part")), (inner, LATEST), (outer, RELEASE), (other, Tag("other"))):
            await stores.manifests.put(APP, manifest, [tag], now=NOW)

        with pytest.raises(TagImmutableError):
            await stores.manifests.delete_tag(APP, RELEASE, immutable=RELEASES, now=NOW)
        for manifest in (outer, inner, part):
            with pytest.raises(TagImmutableError):
                await stores.manifests.delete(APP, manifest.digest, immutable=RELEASES, now=NOW)

        assert await stores.catalog.tags(APP, after="", limit=10) == ["latest", "other", "part", "v1"]
        assert await stores.manifests.delete_tag(APP, LATEST, immutable=RELEASES, now=NOW)
        assert await stores.manifests.delete(APP, other.digest, immutable=RELEASES, now=NOW) == [Tag("other")]
        assert not await stores.manifests.delete_tag(APP, Tag("v2"), immutable=RELEASES, now=NOW)

    async def test_what_an_immutable_tag_needs_stays_pullable(self, stores: RegistryStores) -> None:
        """The blobs of its manifest, or of a part of it, can't be taken from the repository; others can."""
        config, inner, other = new_blob("config"), new_blob("inner"), new_blob("other")
        for blob in (config, inner, other):
            await stores.blobs.commit(APP, blob, upload=None, now=NOW)
            await stores.blobs.commit(OTHER, blob, upload=None, now=NOW)
        part = new_manifest("part", [layer(inner)])
        index = new_manifest("index", [layer(config), child(part)])
        await stores.manifests.put(APP, new_manifest("draft", [layer(inner), layer(other)]), [LATEST], now=NOW)
        for manifest, tags in ((part, []), (index, [RELEASE])):
            await stores.manifests.put(APP, manifest, tags, now=NOW)

        for blob in (config, inner):
            with pytest.raises(TagImmutableError) as caught:
                await stores.blobs.unlink(APP, blob.digest, immutable=RELEASES, now=NOW)
            assert (caught.value.tag, caught.value.current) == (RELEASE, index.digest)
            assert await stores.blobs.find(APP, blob.digest) == blob
            assert await stores.blobs.unlink(OTHER, blob.digest, immutable=RELEASES, now=NOW)
        assert await stores.blobs.unlink(APP, other.digest, immutable=RELEASES, now=NOW)
        assert not await stores.blobs.unlink(APP, other.digest, immutable=RELEASES, now=NOW)

    async def test_a_tag_is_put_back(self, stores: RegistryStores) -> None:
        """By default before its last change; or to a moment, or a line of its history; each is a change itself."""
        clock = FrozenClock(NOW)
        past = TagHistory(stores.journal, stores.manifests, clock, immutable=NOTHING_IMMUTABLE)
        manifests = [new_manifest(str(number)) for number in range(3)]
        for manifest in manifests:
            await stores.manifests.put(APP, manifest, [LATEST], now=clock.advance(timedelta(hours=1)))
        digests = [manifest.digest for manifest in manifests]
        positions = [change.position for change in await stores.journal.tag_changes(APP, LATEST, limit=10)]

        assert await past.restore(APP, LATEST) == digests[1]
        assert await self._at(stores) == digests[1]
        assert await past.restore(APP, LATEST, at=NOW + timedelta(minutes=90)) == digests[0]
        assert await past.restore(APP, LATEST, position=positions[0]) == digests[2]

        changes = [change async for change in past.changes(APP, LATEST)]
        assert [change.origin for change in changes] == [ChangeOrigin.RESTORE] * 3 + [ChangeOrigin.PUSH] * 3
        assert [change.digest for change in changes[:3]] == [digests[2], digests[0], digests[1]]

    async def test_a_removed_tag_comes_back(self, stores: RegistryStores) -> None:
        """Its manifest is still there; once that is gone it can't."""
        past = TagHistory(stores.journal, stores.manifests, FrozenClock(NOW), immutable=RELEASES)
        manifest = new_manifest("1")
        await stores.manifests.put(APP, manifest, [LATEST], now=NOW)
        await stores.manifests.delete_tag(APP, LATEST, now=NOW)

        assert await past.restore(APP, LATEST) == manifest.digest

        await stores.manifests.delete(APP, manifest.digest, now=NOW)
        with pytest.raises(PastUnknownError):
            await past.restore(APP, LATEST)

    async def test_there_are_pasts_that_do_not_come_back(self, stores: RegistryStores) -> None:
        """A tag that never was, a moment before it was, a line that isn't its own, and one that is immutable."""
        past = TagHistory(stores.journal, stores.manifests, FrozenClock(NOW), immutable=RELEASES)
        for text in ("first", "second"):
            await stores.manifests.put(APP, new_manifest(text), [LATEST, RELEASE], now=NOW)

        for tag, moment, position in (
            (Tag("never"), None, None),
            (LATEST, NOW - timedelta(seconds=1), None),
            (LATEST, None, 10**9),
        ):
            with pytest.raises(PastUnknownError):
                await past.restore(APP, tag, at=moment, position=position)
        with pytest.raises(TagImmutableError):
            await past.restore(APP, RELEASE)
        assert not await stores.manifests.restore(OTHER, LATEST, Digest.of(b"first"), now=NOW)

    async def test_a_long_history_is_read_to_its_end(self, stores: RegistryStores) -> None:
        """Page by page."""
        past = TagHistory(stores.journal, stores.manifests, FrozenClock(NOW), immutable=NOTHING_IMMUTABLE)
        for number in range(102):
            await stores.manifests.put(APP, new_manifest(str(number % 2)), [LATEST], now=NOW)

        assert len([change async for change in past.changes(APP, LATEST)]) == 102

    async def _at(self, stores: RegistryStores) -> Digest | None:
        found = await stores.manifests.find_by_tag(APP, LATEST)
        return None if found is None else found.digest
