"""What a `PulledStore` promises. A subclass gives the fixture ``stores``: an open, empty database."""

from dataclasses import replace
from datetime import timedelta

from roadstead.augment.ports import Derivation, DerivedManifest
from roadstead.db.engine import Database
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.proxy.ports import PulledTag
from roadstead.registry.ports import NewManifest
from roadstead.testing.contracts.registry_stores import LATEST, MEDIA_TYPE, NOW, child, new_manifest

APP = RepositoryName("up.example/team/app")
HOUR = timedelta(hours=1)


async def idle(stores: Database, *, after: timedelta, space: str = "up.example") -> list[Digest]:
    """Return what nobody has pulled for that long, an hour after now."""
    return [digest for _, digest in await stores.pulled.idle(space, before=NOW + HOUR - after, limit=100)]


class PulledStoreContract:
    """The promises of `PulledStore`."""

    async def test_a_repository_is_known_for_ever(self, stores: Database) -> None:
        """Also when all of it was deleted: then it is a tombstone."""
        manifest = new_manifest("one")
        assert not await stores.pulled.is_known(APP)
        await stores.manifests.put(APP, manifest, [LATEST], now=NOW)
        assert await stores.pulled.is_known(APP)
        await stores.manifests.delete(APP, manifest.digest, now=NOW)
        assert await stores.pulled.is_known(APP)
        assert not await stores.pulled.is_known(RepositoryName("up.example/team"))

    async def test_when_a_tag_was_looked_for(self, stores: Database) -> None:
        """It is forgotten with the tag, and noted only of the manifest where the tag is."""
        one, two = new_manifest("one"), new_manifest("two")
        assert await stores.pulled.find_tag(APP, LATEST) is None
        await stores.manifests.put(APP, one, [LATEST], now=NOW)
        assert await stores.pulled.find_tag(APP, LATEST) == PulledTag(one.digest, None)

        for at in (NOW, NOW + HOUR):
            await stores.pulled.note_checked(APP, LATEST, one.digest, now=at)
            assert await stores.pulled.find_tag(APP, LATEST) == PulledTag(one.digest, at)
        await stores.manifests.put(APP, two, [LATEST], now=NOW)
        await stores.pulled.note_checked(APP, LATEST, one.digest, now=NOW + 2 * HOUR)
        await stores.pulled.note_checked(APP, Tag("other"), one.digest, now=NOW)
        assert await stores.pulled.find_tag(APP, LATEST) == PulledTag(two.digest, NOW + HOUR)

        await stores.manifests.delete_tag(APP, LATEST, now=NOW)
        await stores.manifests.put(APP, two, [LATEST], now=NOW)
        assert await stores.pulled.find_tag(APP, LATEST) == PulledTag(two.digest, None)

    async def test_what_is_idle(self, stores: Database) -> None:
        """What was neither fetched nor pulled lately, in this upstream's repositories alone."""
        old, used = new_manifest("old"), new_manifest("used")
        for manifest in (old, used):
            await stores.manifests.put(APP, manifest, [LATEST], now=NOW)
        for other in ("up.example0/a", "up.exampl/a", "up.example-b/a", "team/app"):
            await stores.manifests.put(RepositoryName(other), old, [], now=NOW)
        await stores.pulled.note_pulled(APP, used.digest, now=NOW)
        await stores.pulled.note_pulled(APP, used.digest, now=NOW + HOUR)
        await stores.pulled.note_pulled(APP, new_manifest("never here").digest, now=NOW)

        assert await idle(stores, after=HOUR * 2) == []
        assert await idle(stores, after=HOUR / 2) == [old.digest]
        assert await idle(stores, after=HOUR / 2, space="elsewhere.example") == []
        await stores.manifests.delete(APP, used.digest, now=NOW)

    async def test_an_index_keeps_what_it_lists(self, stores: Database) -> None:
        """Until it is gone itself."""
        part = new_manifest("part")
        await stores.manifests.put(APP, part, [], now=NOW)
        index = _fetched(new_manifest("index", [child(part)]))
        await stores.manifests.put(APP, index, [], now=NOW)

        assert await idle(stores, after=HOUR / 2) == [index.digest]
        await stores.manifests.delete(APP, index.digest, now=NOW)
        assert await idle(stores, after=HOUR / 2) == [part.digest]

    async def test_what_was_pushed_is_kept(self, stores: Database) -> None:
        """Somebody's image under a name that became an upstream's isn't idle, and is told of; one fetched isn't."""
        pushed, part = new_manifest("pushed"), new_manifest("part")
        ours, fetched = RepositoryName("up.example/ours"), RepositoryName("up.example/fetched")
        for repository in (ours, fetched):
            await stores.manifests.put(repository, part, [], now=NOW)
        whole = new_manifest("whole", [child(part)])
        await stores.manifests.put(ours, whole, [LATEST], now=NOW)
        await stores.manifests.put(fetched, _fetched(whole), [LATEST], now=NOW)
        await stores.manifests.put(RepositoryName("team/app"), pushed, [], now=NOW)

        found = await stores.pulled.idle("up.example", before=NOW + HOUR, limit=100)
        assert found == [(fetched, whole.digest)]
        assert await stores.pulled.shadowed("up.example", limit=9) == [ours]
        assert await stores.pulled.shadowed("up.example", limit=0) == []
        assert await stores.pulled.shadowed("team", limit=9) == []

    async def test_what_was_derived_is_pulled_in_its_place(self, stores: Database) -> None:
        """A pull of one platform's derived image keeps the source of that, and the index that both come from."""
        part = new_manifest("part")
        await stores.manifests.put(APP, part, [], now=NOW)
        index = _fetched(new_manifest("index", [child(part)]))
        await stores.manifests.put(APP, index, [LATEST], now=NOW)
        made = _made("made part", part.digest)
        root = _made("made index", index.digest, children=(made.digest,))
        derivation = Derivation(
            repository=APP,
            source=index.digest,
            plan_digest=Digest.of(b"plan"),
            plan="plan",
            manifests=[made, root],
            blobs=(),
        )
        await stores.derivations.record(derivation, now=NOW)
        assert await idle(stores, after=HOUR / 2) == [index.digest]

        await stores.pulled.note_pulled(APP, made.digest, now=NOW + HOUR)

        assert await idle(stores, after=HOUR / 2) == []


def _fetched(manifest: NewManifest) -> NewManifest:
    """Return the manifest as it is kept when it was fetched: what it refers to need not be here."""
    return replace(manifest, references=tuple(replace(one, optional=True) for one in manifest.references))


def _made(text: str, source: Digest, children: tuple[Digest, ...] = ()) -> DerivedManifest:
    raw = text.encode()
    return DerivedManifest(
        digest=Digest.of(raw), media_type=MEDIA_TYPE, raw=raw, source=source, blobs=(), children=children
    )
