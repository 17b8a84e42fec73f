"""What the stores of a registry promise (``roadstead.registry.ports``), for every database that offers them.

A subclass gives two fixtures, ``stores`` and ``elsewhere``: the same database, reached over connections of their own
as two processes would. It starts empty.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roadstead.augment.ports import LayerRecords
from roadstead.oci.digest import Algorithm, Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.errors import (
    DescriptorSizeError,
    ManifestBlobUnknownError,
    TagConditionError,
    UploadBusyError,
    UploadUnknownError,
)
from roadstead.registry.ports import (
    BlobRecord,
    BlobStore,
    CatalogStore,
    ChangeOrigin,
    InstanceStore,
    JournalStore,
    ManifestRecord,
    ManifestReference,
    ManifestStore,
    NewManifest,
    ReferenceKind,
    TagCondition,
    UploadRecord,
    UploadState,
    UploadStore,
)
from roadstead.storage.ports import Key, Staged

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
APP = RepositoryName("team/app")
OTHER = RepositoryName("team/other")
LATEST = Tag("latest")

_serial = count()

# Each example costs several transactions, and uses names of its own in the one database of its test. A suite runs in
# several subclasses, which is what Hypothesis would warn of: what fails on one database may well hold on another.
_few = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)

_components = st.from_regex(r"[ab0](?:(?:\.|__?|--?)[ab0]){0,2}", fullmatch=True)


class RegistryStores(Protocol):
    """The stores of one process, as ``db.engine.Database`` has them."""

    manifests: ManifestStore
    catalog: CatalogStore
    journal: JournalStore
    uploads: UploadStore
    blobs: BlobStore
    layers: LayerRecords
    instance: InstanceStore


def new_manifest(
    text: str = "{}", references: Sequence[ManifestReference] = (), *, algorithm: Algorithm = Algorithm.SHA256,
    subject: Digest | None = None, artifact_type: str | None = None, annotations: dict[str, str] | None = None,
) -> NewManifest:  # fmt: skip
    """Return a manifest whose bytes are `text`."""
    raw = text.encode()
    return NewManifest(
        digest=Digest.of(raw, algorithm),
        media_type=MEDIA_TYPE,
        raw=raw,
        references=references,
        subject=subject,
        artifact_type=artifact_type,
        annotations=annotations or {},
    )


def new_blob(text: str) -> BlobRecord:
    """Return a blob whose bytes are `text`."""
    digest = Digest.of(text.encode())
    return BlobRecord(digest, len(text), Key(f"blobs/{digest.encoded}"))


def layer(blob: BlobRecord, *, size: int | None = None, optional: bool = False) -> ManifestReference:
    """Return a manifest's reference to a blob."""
    return ManifestReference(ReferenceKind.LAYER, blob.digest, blob.size if size is None else size, optional)


def child(manifest: NewManifest) -> ManifestReference:
    """Return an index's reference to a manifest."""
    return ManifestReference(ReferenceKind.CHILD, manifest.digest, len(manifest.raw))


def new_upload(upload_id: str = "u1", *, started_at: datetime = NOW, repository: RepositoryName = APP) -> UploadRecord:
    """Return a session that isn't stored yet."""
    return UploadRecord(upload_id=upload_id, repository=repository, started_at=started_at)


async def tag_history(stores: RegistryStores, tag: Tag = LATEST) -> list[tuple[Digest | None, Digest | None]]:
    """Return where the tag came from and went to, oldest change first."""
    changes = await stores.journal.tag_changes(APP, tag, limit=1000)
    return [(change.previous, change.digest) for change in reversed(changes)]


class ManifestStoreContract:
    """The promises of `ManifestStore` and `JournalStore`."""

    async def test_a_pushed_manifest_is_found(self, stores: RegistryStores) -> None:
        """By tag, by digest, and its exact bytes by digest."""
        manifest = new_manifest('{"a": 1}')

        await stores.manifests.put(APP, manifest, [LATEST, Tag("v1")], now=NOW)

        record = ManifestRecord(manifest.digest, MEDIA_TYPE, len(manifest.raw))
        assert await stores.manifests.find_by_tag(APP, LATEST) == record
        assert await stores.manifests.find_by_tag(APP, Tag("v1")) == record
        assert await stores.manifests.find_by_digest(APP, manifest.digest) == record
        assert await stores.manifests.content(manifest.digest) == manifest.raw

    async def test_nothing_is_found_where_nothing_is(self, stores: RegistryStores) -> None:
        """Unknown repositories, tags and digests, and a tag's repository next door, give None."""
        manifest = new_manifest()
        await stores.manifests.put(APP, manifest, [LATEST], now=NOW)

        assert await stores.manifests.find_by_tag(APP, Tag("Latest")) is None
        assert await stores.manifests.find_by_tag(OTHER, LATEST) is None
        assert await stores.manifests.find_by_digest(OTHER, manifest.digest) is None
        assert await stores.manifests.find_by_digest(APP, Digest.of(b"other")) is None
        with pytest.raises(KeyError):
            await stores.manifests.content(Digest.of(b"other"))

    async def test_a_manifest_is_known_by_the_digest_it_was_pushed_with(self, stores: RegistryStores) -> None:
        """One pushed under sha512 is found under sha512."""
        manifest = new_manifest(algorithm=Algorithm.SHA512)

        await stores.manifests.put(APP, manifest, [LATEST], now=NOW)

        assert await stores.manifests.content(manifest.digest) == manifest.raw
        found = await stores.manifests.find_by_tag(APP, LATEST)
        assert found is not None
        assert found.digest == manifest.digest

    async def test_a_tag_moves_and_says_so(self, stores: RegistryStores) -> None:
        """The journal has a line for each move, and none for a push that changes nothing."""
        first, second = new_manifest("1"), new_manifest("2")

        for manifest in (first, first, second, first):
            await stores.manifests.put(APP, manifest, [LATEST], now=NOW)

        assert await tag_history(stores) == [
            (None, first.digest),
            (first.digest, second.digest),
            (second.digest, first.digest),
        ]

    async def test_the_journal_comes_in_pages(self, stores: RegistryStores) -> None:
        """The latest change first, with its moment and why; then those before a position."""
        manifests = [new_manifest(str(number)) for number in range(3)]
        for seconds, manifest in enumerate(manifests):
            await stores.manifests.put(APP, manifest, [LATEST], now=NOW + timedelta(seconds=seconds))
        await stores.manifests.delete_tag(APP, LATEST, now=NOW + timedelta(seconds=3))

        page = await stores.journal.tag_changes(APP, LATEST, limit=2)
        rest = await stores.journal.tag_changes(APP, LATEST, before=page[-1].position, limit=10)

        assert [change.digest for change in page] == [None, manifests[2].digest]
        assert [change.origin for change in page] == [ChangeOrigin.UNTAG, ChangeOrigin.PUSH]
        assert page[0].at == NOW + timedelta(seconds=3)
        assert [change.digest for change in rest] == [manifests[1].digest, manifests[0].digest]
        assert await stores.journal.tag_changes(OTHER, LATEST, limit=10) == []

    async def test_the_journal_at_a_moment(self, stores: RegistryStores) -> None:
        """The last line up to a moment counts, that moment included; of two at once the later."""
        manifests = [new_manifest(str(number)) for number in range(4)]
        for seconds, manifest in zip((0, 5, 5, 9), manifests, strict=True):
            await stores.manifests.put(APP, manifest, [LATEST], now=NOW + timedelta(seconds=seconds))

        found = [
            await stores.journal.tag_change_at(APP, LATEST, NOW + timedelta(seconds=seconds))
            for seconds in (0, 4, 5, 20)
        ]

        assert [change and change.digest for change in found] == [manifests[at].digest for at in (0, 0, 2, 3)]
        assert await stores.journal.tag_change_at(APP, LATEST, NOW - timedelta(microseconds=1)) is None
        assert await stores.journal.tag_change_at(OTHER, LATEST, NOW) is None

    async def test_what_is_missing_is_named(self, stores: RegistryStores) -> None:
        """Every digest that isn't in this repository, once; next door doesn't count."""
        here, next_door, nowhere = new_blob("here"), new_blob("next door"), new_blob("nowhere")
        await stores.blobs.commit(APP, here, upload=None, now=NOW)
        await stores.blobs.commit(OTHER, next_door, upload=None, now=NOW)
        part = new_manifest("child")
        references = [layer(here), layer(next_door), layer(nowhere), layer(nowhere), child(part)]

        with pytest.raises(ManifestBlobUnknownError) as caught:
            await stores.manifests.put(APP, new_manifest("{}", references), [LATEST], now=NOW)

        assert caught.value.missing == (next_door.digest, nowhere.digest, part.digest)

    async def test_a_refused_push_leaves_nothing(self, stores: RegistryStores) -> None:
        """No repository, no manifest, no bytes, no tag, no line in the journal."""
        manifest = new_manifest("{}", [layer(new_blob("nowhere"))])

        with pytest.raises(ManifestBlobUnknownError):
            await stores.manifests.put(APP, manifest, [LATEST, Tag("v1")], now=NOW)

        assert await stores.catalog.tags(APP, after="", limit=10) is None
        assert await stores.catalog.repositories(after="", limit=10) == []
        assert await stores.manifests.find_by_digest(APP, manifest.digest) is None
        assert await stores.journal.tag_changes(APP, LATEST, limit=10) == []
        with pytest.raises(KeyError):
            await stores.manifests.content(manifest.digest)

    async def test_an_index_follows_its_children(self, stores: RegistryStores) -> None:
        """Refused before them, taken after them."""
        part = new_manifest("part")
        index = new_manifest("index", [child(part)])
        with pytest.raises(ManifestBlobUnknownError):
            await stores.manifests.put(APP, index, [LATEST], now=NOW)

        await stores.manifests.put(APP, part, [], now=NOW)
        await stores.manifests.put(APP, index, [LATEST], now=NOW)

        assert await stores.manifests.find_by_tag(APP, LATEST) is not None

    @pytest.mark.parametrize("optional", [False, True])
    async def test_a_declared_size_has_to_be_the_size(self, stores: RegistryStores, optional: bool) -> None:  # noqa: FBT001 -- parametrised
        """A wrong one would break pulls, so the push is refused; also of content that need not be there and is."""
        blob = new_blob("four")
        await stores.blobs.commit(APP, blob, upload=None, now=NOW)

        with pytest.raises(DescriptorSizeError) as caught:
            await stores.manifests.put(APP, new_manifest("{}", [layer(blob, size=5, optional=optional)]), [], now=NOW)

        assert (caught.value.declared, caught.value.actual) == (5, 4)

    async def test_optional_content_need_not_be_there(self, stores: RegistryStores) -> None:
        """Non-distributable layers."""
        manifest = new_manifest("{}", [layer(new_blob("foreign"), optional=True)])

        await stores.manifests.put(APP, manifest, [LATEST], now=NOW)

        assert await stores.manifests.find_by_tag(APP, LATEST) is not None

    async def test_many_references(self, stores: RegistryStores) -> None:
        """A manifest with more layers than a statement has parameters at once; the same layer may come twice."""
        blobs = [new_blob(f"layer {number}") for number in range(501)]
        for blob in blobs:
            await stores.blobs.commit(APP, blob, upload=None, now=NOW)
        references = [layer(blob) for blob in [*blobs, blobs[0]]]

        await stores.manifests.put(APP, new_manifest("{}", references), [LATEST], now=NOW)

        assert await stores.manifests.find_by_tag(APP, LATEST) is not None

    @pytest.mark.parametrize(
        ("condition", "met_by_none", "met_by_first"),
        [
            (TagCondition(), True, True),
            (TagCondition(absent=True), True, False),
            (TagCondition(any_existing=True), False, True),
            (TagCondition(match=frozenset({Digest.of(b"first"), Digest.of(b"x")})), False, True),
            (TagCondition(match=frozenset({Digest.of(b"x")})), False, False),
        ],
    )
    async def test_conditions(
        self, stores: RegistryStores, condition: TagCondition, *, met_by_none: bool, met_by_first: bool
    ) -> None:
        """If-Match and If-None-Match are checked against the tag as it is when it would move."""
        second = new_manifest("second")
        for tag, met in ((Tag("none"), met_by_none), (Tag("first"), met_by_first)):
            if tag == Tag("first"):
                await stores.manifests.put(APP, new_manifest("first"), [tag], now=NOW)
            if met:
                await stores.manifests.put(APP, second, [tag], condition=condition, now=NOW)
            else:
                with pytest.raises(TagConditionError):
                    await stores.manifests.put(APP, second, [tag], condition=condition, now=NOW)

            found = await stores.manifests.find_by_tag(APP, tag)
            assert (found is not None and found.digest == second.digest) is met

    async def test_one_unmet_condition_refuses_all_tags(self, stores: RegistryStores) -> None:
        """All or nothing: the error tells where the tag is, and no other tag has moved."""
        first = new_manifest("first")
        await stores.manifests.put(APP, first, [Tag("b")], now=NOW)

        with pytest.raises(TagConditionError) as caught:
            await stores.manifests.put(
                APP, new_manifest("2"), [Tag("a"), Tag("b")], condition=TagCondition(absent=True), now=NOW
            )

        assert (caught.value.tag, caught.value.current) == (Tag("b"), first.digest)
        assert await stores.catalog.tags(APP, after="", limit=10) == ["b"]

    async def test_deleting_takes_the_tags_along(self, stores: RegistryStores) -> None:
        """A deleted manifest is gone with every tag at it, each with its line; other tags stay."""
        doomed, kept = new_manifest("doomed"), new_manifest("kept")
        await stores.manifests.put(APP, doomed, [Tag("b"), Tag("a")], now=NOW)
        await stores.manifests.put(APP, kept, [LATEST], now=NOW)

        assert await stores.manifests.delete(APP, doomed.digest, now=NOW) == [Tag("a"), Tag("b")]

        assert await stores.manifests.find_by_digest(APP, doomed.digest) is None
        assert await stores.manifests.find_by_tag(APP, Tag("a")) is None
        assert await stores.catalog.tags(APP, after="", limit=10) == ["latest"]
        assert await tag_history(stores, Tag("a")) == [(None, doomed.digest), (doomed.digest, None)]
        assert await stores.manifests.delete(APP, doomed.digest, now=NOW) is None
        assert await stores.manifests.delete(OTHER, kept.digest, now=NOW) is None

    async def test_bytes_stay_while_a_repository_holds_them(self, stores: RegistryStores) -> None:
        """Two repositories share the bytes of one manifest; the last to go takes them."""
        manifest = new_manifest("shared")
        await stores.manifests.put(APP, manifest, [], now=NOW)
        await stores.manifests.put(OTHER, manifest, [], now=NOW)

        assert await stores.manifests.delete(APP, manifest.digest, now=NOW) == []
        assert await stores.manifests.content(manifest.digest) == manifest.raw
        assert await stores.manifests.delete(OTHER, manifest.digest, now=NOW) == []
        with pytest.raises(KeyError):
            await stores.manifests.content(manifest.digest)

    async def test_removing_a_tag_leaves_the_manifest(self, stores: RegistryStores) -> None:
        """And says whether there was one."""
        manifest = new_manifest()
        await stores.manifests.put(APP, manifest, [LATEST, Tag("v1")], now=NOW)

        assert await stores.manifests.delete_tag(APP, LATEST, now=NOW) is True
        assert await stores.manifests.delete_tag(APP, LATEST, now=NOW) is False
        assert await stores.manifests.delete_tag(OTHER, LATEST, now=NOW) is False

        assert await stores.manifests.find_by_digest(APP, manifest.digest) is not None
        assert await stores.catalog.tags(APP, after="", limit=10) == ["v1"]

    async def test_a_hundred_pushes_of_one_new_tag(self, stores: RegistryStores, elsewhere: RegistryStores) -> None:
        """All succeed, the tag ends at one of them, and the journal tells the way without a gap."""
        manifests = [new_manifest(str(number)) for number in range(100)]

        await asyncio.gather(
            *(
                (stores, elsewhere)[number % 2].manifests.put(APP, manifest, [LATEST], now=NOW)
                for number, manifest in enumerate(manifests)
            )
        )

        history = await tag_history(stores)
        final = await elsewhere.manifests.find_by_tag(APP, LATEST)
        assert final is not None
        assert final.digest == history[-1][1]
        assert {digest for _, digest in history} == {manifest.digest for manifest in manifests}
        assert [previous for previous, _ in history] == [None, *(digest for _, digest in history[:-1])]

    async def test_only_one_makes_a_tag_that_must_be_absent(
        self, stores: RegistryStores, elsewhere: RegistryStores
    ) -> None:
        """Of many pushes with If-None-Match: * exactly one is taken."""
        taken = await asyncio.gather(
            *(
                (stores, elsewhere)[number % 2].manifests.put(
                    APP, new_manifest(str(number)), [LATEST], condition=TagCondition(absent=True), now=NOW
                )
                for number in range(20)
            ),
            return_exceptions=True,
        )

        refused = [result for result in taken if isinstance(result, TagConditionError)]
        assert taken.count(None) == 1
        assert len(refused) == 19

    async def test_push_and_delete_of_one_digest(self, stores: RegistryStores, elsewhere: RegistryStores) -> None:
        """Whatever comes first, a tag is there with its manifest or not at all, and the catalog agrees."""
        manifest = new_manifest()
        for _ in range(25):
            await asyncio.gather(
                stores.manifests.put(APP, manifest, [LATEST, Tag("v1")], now=NOW),
                elsewhere.manifests.delete(APP, manifest.digest, now=NOW),
            )
            tagged = await stores.manifests.find_by_tag(APP, LATEST)
            held = await stores.manifests.find_by_digest(APP, manifest.digest)
            assert (tagged is None) == (held is None)
            listed = await elsewhere.catalog.tags(APP, after="", limit=10)
            assert listed == ([] if held is None else ["latest", "v1"])
            assert await stores.catalog.repositories(after="", limit=10) == ([] if held is None else [str(APP)])

    async def test_content_that_two_repositories_share_survives_a_race(
        self, stores: RegistryStores, elsewhere: RegistryStores
    ) -> None:
        """Deleting here while the same bytes are pushed there leaves them there."""
        manifest = new_manifest("shared")
        for _ in range(25):
            await stores.manifests.put(APP, manifest, [], now=NOW)
            await asyncio.gather(
                stores.manifests.delete(APP, manifest.digest, now=NOW),
                elsewhere.manifests.put(OTHER, manifest, [], now=NOW),
            )
            assert await stores.manifests.content(manifest.digest) == manifest.raw
            await stores.manifests.delete(OTHER, manifest.digest, now=NOW)

    async def test_a_push_and_the_unlinking_of_its_layer(
        self, stores: RegistryStores, elsewhere: RegistryStores
    ) -> None:
        """The push is refused, or the layer was there when it was taken; it never fails otherwise."""
        blob = new_blob("layer")
        for number in range(25):
            await stores.blobs.commit(APP, blob, upload=None, now=NOW)
            manifest = new_manifest(f"{number}", [layer(blob)])
            pushed, unlinked = await asyncio.gather(
                stores.manifests.put(APP, manifest, [LATEST], now=NOW),
                elsewhere.blobs.unlink(APP, blob.digest, now=NOW),
                return_exceptions=True,
            )
            assert unlinked is True
            assert pushed is None or isinstance(pushed, ManifestBlobUnknownError)

    async def test_pushes_of_the_same_tags_in_different_orders(
        self, stores: RegistryStores, elsewhere: RegistryStores
    ) -> None:
        """They don't lock each other out."""
        tags = [Tag(f"t{number}") for number in range(8)]
        await asyncio.gather(
            *(
                (stores, elsewhere)[number % 2].manifests.put(
                    APP, new_manifest(str(number)), tags if number % 2 else tags[::-1], now=NOW
                )
                for number in range(20)
            )
        )

        ends = {record.digest for tag in tags if (record := await stores.manifests.find_by_tag(APP, tag)) is not None}
        assert len(ends) == 1

    async def test_the_journal_replays_to_the_present(self, stores: RegistryStores, elsewhere: RegistryStores) -> None:
        """Whatever pushes and deletes meet: per tag the lines join without a gap and end where the tag is."""
        tags = [Tag(name) for name in ("x", "y", "z")]
        manifests = [new_manifest(str(number)) for number in range(3)]

        async def move(process: RegistryStores, choice: Random) -> None:
            for _ in range(20):
                manifest, some = choice.choice(manifests), choice.sample(tags, 2)
                if (turn := choice.randrange(4)) == 0:
                    await process.manifests.delete(APP, manifest.digest, now=NOW)
                elif turn == 1:
                    await process.manifests.delete_tag(APP, some[0], now=NOW)
                else:
                    await process.manifests.put(APP, manifest, some, now=NOW)

        await asyncio.gather(*(move((stores, elsewhere)[seed % 2], Random(seed)) for seed in range(8)))  # noqa: S311  # repeatable on purpose

        for tag in tags:
            history = await tag_history(stores, tag)
            now = await elsewhere.manifests.find_by_tag(APP, tag)
            assert [previous for previous, _ in history] == [None, *(digest for _, digest in history[:-1])]
            assert history[-1][1] == (None if now is None else now.digest)

    async def test_a_write_is_seen_elsewhere_at_once(self, stores: RegistryStores, elsewhere: RegistryStores) -> None:
        """What was acknowledged here is what a reader on another connection finds, every time."""
        manifests = [new_manifest("even"), new_manifest("odd")]
        for number in range(300):
            wanted = manifests[number % 2]
            await stores.manifests.put(APP, wanted, [LATEST], now=NOW)
            found = await elsewhere.manifests.find_by_tag(APP, LATEST)
            assert found is not None
            assert found.digest == wanted.digest
            if number % 10 == 9:
                await elsewhere.manifests.delete_tag(APP, LATEST, now=NOW)
                assert await stores.manifests.find_by_tag(APP, LATEST) is None

    async def test_a_moving_tag_is_never_missing(self, stores: RegistryStores, elsewhere: RegistryStores) -> None:
        """Whoever reads while a tag moves finds the old manifest or the new one."""
        manifests = [new_manifest(str(number)) for number in range(2)]
        await stores.manifests.put(APP, manifests[0], [LATEST], now=NOW)
        done = asyncio.Event()

        async def move() -> None:
            for number in range(100):
                await stores.manifests.put(APP, manifests[number % 2], [LATEST], now=NOW)
            done.set()

        async def read() -> int:
            missing = 0
            while not done.is_set():
                missing += await elsewhere.manifests.find_by_tag(APP, LATEST) is None
                await asyncio.sleep(0)
            return missing

        async with asyncio.TaskGroup() as group:
            group.create_task(move())
            reading = group.create_task(read())

        assert reading.result() == 0


class CatalogStoreContract:
    """The promises of `CatalogStore`."""

    @_few
    @given(names=st.sets(st.text(alphabet="aBb0._-", min_size=1, max_size=4), max_size=12), limit=st.integers(1, 5))
    async def test_tags_come_in_pages(self, stores: RegistryStores, names: set[str], limit: int) -> None:
        """Bytewise ascending, each once, wherever the pages are cut."""
        repository = RepositoryName(f"tags/r{next(_serial)}")
        tags = [Tag(name) for name in names if name[0] not in ".-"]
        await stores.manifests.put(repository, new_manifest(), tags, now=NOW)

        listed: list[str] = []
        after = ""
        while page := await stores.catalog.tags(repository, after=after, limit=limit):
            assert len(page) <= limit
            listed += page
            after = page[-1]

        assert listed == sorted(tag.value for tag in tags)

    async def test_all_tags_fit_one_page(self, stores: RegistryStores) -> None:
        """The largest limit there is, 2³¹ - 1: what a client gets that asks for no pages."""
        await stores.manifests.put(RepositoryName("all/tags"), new_manifest(), [Tag("a"), Tag("b")], now=NOW)

        assert await stores.catalog.tags(RepositoryName("all/tags"), after="", limit=(1 << 31) - 1) == ["a", "b"]

    @_few
    @given(names=st.sets(st.lists(_components, min_size=1, max_size=3).map("/".join), max_size=10),
           limit=st.integers(1, 4))  # fmt: skip
    async def test_repositories_come_in_pages(self, stores: RegistryStores, names: set[str], limit: int) -> None:
        """Component by component, as distribution walks its tree."""
        prefix = f"catalog{next(_serial)}"
        for name in sorted(names, reverse=True):
            await stores.manifests.put(RepositoryName(f"{prefix}/{name}"), new_manifest(), [], now=NOW)

        listed: list[str] = []
        after = prefix
        while page := await stores.catalog.repositories(after=after, limit=limit):
            assert len(page) <= limit
            listed += [name for name in page if name.startswith(f"{prefix}/")]
            after = page[-1]

        assert listed == sorted((f"{prefix}/{name}" for name in names), key=lambda name: name.split("/"))

    async def test_a_slash_sorts_first(self, stores: RegistryStores) -> None:
        """``a/b`` comes before ``a-b``, and before ``a.b``; paging on from each agrees."""
        names = ["a", "a/b", "a/b/c", "a-b", "a.b", "a0"]
        for name in reversed(names):
            await stores.manifests.put(RepositoryName(name), new_manifest(), [], now=NOW)

        assert await stores.catalog.repositories(after="", limit=10) == names
        for position, name in enumerate(names):
            assert await stores.catalog.repositories(after=name, limit=10) == names[position + 1 :]

    @pytest.mark.parametrize("after", ["a\0z", "\0", "a\ud800", "\U0001f600", "a\N{LATIN SMALL LETTER E WITH ACUTE}"])
    async def test_a_page_may_begin_anywhere(self, stores: RegistryStores, after: str) -> None:
        """What a client sends as ``last`` need not be a name, nor sensible text."""
        repositories = ["a", "a0", "b"]
        for name in repositories:
            await stores.manifests.put(RepositoryName(name), new_manifest(), [Tag(name)], now=NOW)

        expected = [name for name in repositories if name > after]
        assert await stores.catalog.repositories(after=after, limit=10) == expected
        assert await stores.catalog.tags(RepositoryName("a"), after=after, limit=10) == (["a"] if after == "\0" else [])
        assert await stores.catalog.referrers(
            RepositoryName("a"), Digest.of(b""), artifact_type=after, after=after, limit=1
        ) == []  # fmt: skip

    async def test_an_unknown_repository_has_no_list(self, stores: RegistryStores) -> None:
        """None, as against an empty page."""
        await stores.manifests.put(APP, new_manifest(), [], now=NOW)

        assert await stores.catalog.tags(OTHER, after="", limit=10) is None
        assert await stores.catalog.tags(APP, after="", limit=10) == []

    async def test_only_repositories_with_a_manifest_are_listed(self, stores: RegistryStores) -> None:
        """Not those with blobs alone, and no longer those that were emptied; they come back with a push."""
        manifest = new_manifest()
        await stores.blobs.commit(OTHER, new_blob("alone"), upload=None, now=NOW)
        await stores.manifests.put(APP, manifest, [], now=NOW)
        assert await stores.catalog.repositories(after="", limit=10) == [str(APP)]

        await stores.manifests.delete(APP, manifest.digest, now=NOW)
        assert await stores.catalog.repositories(after="", limit=10) == []

        await stores.manifests.put(OTHER, manifest, [], now=NOW)
        await stores.manifests.put(APP, manifest, [], now=NOW)
        assert await stores.catalog.repositories(after="", limit=10) == [str(APP), str(OTHER)]

    async def test_limit_zero_is_an_empty_page(self, stores: RegistryStores) -> None:
        """``n=0``."""
        await stores.manifests.put(APP, new_manifest(), [LATEST], now=NOW)

        assert await stores.catalog.tags(APP, after="", limit=0) == []
        assert await stores.catalog.repositories(after="", limit=0) == []

    async def test_referrers_come_in_pages_and_by_type(self, stores: RegistryStores) -> None:
        """Digests ascending, with type and annotations; filtered exactly; the subject need not exist."""
        subject = Digest.of(b"never pushed")
        kinds = ["a/sbom", "a/sig", None]
        pushed = [
            new_manifest(str(number), subject=subject, artifact_type=kinds[number % 3], annotations={"n": f"ü{number}"})
            for number in range(9)
        ]
        for manifest in pushed:
            await stores.manifests.put(APP, manifest, [], now=NOW)
        await stores.manifests.put(APP, new_manifest("x", subject=Digest.of(b"another")), [], now=NOW)
        await stores.manifests.put(OTHER, new_manifest("y", subject=subject), [], now=NOW)
        pushed.sort(key=lambda manifest: str(manifest.digest))

        first = await stores.catalog.referrers(APP, subject, artifact_type=None, after="", limit=4)
        rest = await stores.catalog.referrers(APP, subject, artifact_type=None, after=str(first[-1].digest), limit=10)
        signatures = await stores.catalog.referrers(APP, subject, artifact_type="a/sig", after="", limit=2)
        more = await stores.catalog.referrers(
            APP, subject, artifact_type="a/sig", after=str(signatures[-1].digest), limit=10
        )

        assert [record.digest for record in [*first, *rest]] == [manifest.digest for manifest in pushed]
        assert [record.annotations for record in first] == [manifest.annotations for manifest in pushed[:4]]
        assert [record.artifact_type for record in first] == [manifest.artifact_type for manifest in pushed[:4]]
        assert [record.digest for record in [*signatures, *more]] == [
            manifest.digest for manifest in pushed if manifest.artifact_type == "a/sig"
        ]

    async def test_a_deleted_referrer_is_gone_and_a_deleted_subject_is_not_missed(self, stores: RegistryStores) -> None:
        """Referrers outlive their subject and leave the list when they are deleted themselves."""
        subject = new_manifest("subject")
        referrer = new_manifest("referrer", subject=subject.digest)
        await stores.manifests.put(APP, subject, [], now=NOW)
        await stores.manifests.put(APP, referrer, [], now=NOW)

        await stores.manifests.delete(APP, subject.digest, now=NOW)
        listed = await stores.catalog.referrers(APP, subject.digest, artifact_type=None, after="", limit=5)
        assert [record.digest for record in listed] == [referrer.digest]

        await stores.manifests.delete(APP, referrer.digest, now=NOW)
        assert await stores.catalog.referrers(APP, subject.digest, artifact_type=None, after="", limit=5) == []
        assert await stores.catalog.referrers(OTHER, subject.digest, artifact_type=None, after="", limit=5) == []


class UploadStoreContract:
    """The promises of `UploadStore`."""

    async def test_a_session_is_kept_as_it_was_stored(self, stores: RegistryStores) -> None:
        """Every field, and the version one higher."""
        record = UploadRecord(
            upload_id="u1",
            repository=APP,
            staged=Staged(5 * 2**30, '{"parts": [1]}'),
            algorithm=Algorithm.SHA512,
            digest_so_far="ab" * 64,
            hash_state=b"\0\xff",
            started_at=NOW,
        )
        assert await stores.uploads.find("u1") is None

        assert await stores.uploads.advance(record, now=NOW) is True

        found = await stores.uploads.find("u1")
        assert found is not None
        assert found.version == 1
        assert found == _with_version(record, 1)

    async def test_a_session_holds_few_bytes_itself(self, stores: RegistryStores, elsewhere: RegistryStores) -> None:
        """They come back as they are, to everybody, until the bytes are staged or the session ends."""
        held = replace(new_upload(), held=bytes(range(256)) * 128)
        assert await stores.uploads.advance(held, now=NOW) is True
        found = await elsewhere.uploads.find("u1")
        assert found == _with_version(held, 1)
        assert found.size == len(held.held)

        staged = replace(found, held=b"", staged=Staged(40_000, "{}"), hash_state=b"state", digest_so_far="ab")
        assert await elsewhere.uploads.advance(staged, now=NOW) is True
        assert await stores.uploads.find("u1") == _with_version(staged, 2)

        other = replace(new_upload("u2"), held=b"few")
        assert await stores.uploads.advance(other, now=NOW) is True
        assert await stores.uploads.cancel(_with_version(other, 1), now=NOW) is True
        cancelled = await stores.uploads.find("u2")
        assert cancelled is not None
        assert (cancelled.state, cancelled.held) == (UploadState.CANCELLED, b"")

    async def test_only_one_of_two_writers_advances(self, stores: RegistryStores, elsewhere: RegistryStores) -> None:
        """At any version, the first included: the other is told, and nothing of it is stored."""
        for version in range(10):
            sizes = (version * 10 + 1, version * 10 + 2)
            records = [_with_version(_staged(new_upload(), size), version) for size in sizes]
            results = await asyncio.gather(
                stores.uploads.advance(records[0], now=NOW), elsewhere.uploads.advance(records[1], now=NOW)
            )
            assert sorted(results) == [False, True]
            found = await stores.uploads.find("u1")
            assert found is not None
            assert (found.version, found.staged.size) == (version + 1, sizes[results.index(True)])

    async def test_a_stale_or_closed_session_does_not_advance(self, stores: RegistryStores) -> None:
        """Nor does one that says it is stored and isn't."""
        record = new_upload()
        assert await stores.uploads.advance(_with_version(record, 3), now=NOW) is False
        assert await stores.uploads.advance(record, now=NOW) is True
        assert await stores.uploads.advance(record, now=NOW) is False
        assert await stores.uploads.cancel(_with_version(record, 1), now=NOW) is True
        assert await stores.uploads.advance(_with_version(record, 2), now=NOW) is False

    async def test_cancelling(self, stores: RegistryStores) -> None:
        """Once; also where nothing was stored yet, and whatever version the caller knew."""
        assert await stores.uploads.cancel(new_upload("u1"), now=NOW) is True
        assert await stores.uploads.cancel(new_upload("u1"), now=NOW) is False
        await stores.uploads.advance(new_upload("u2"), now=NOW)
        assert await stores.uploads.cancel(new_upload("u2"), now=NOW) is True
        await stores.blobs.commit(APP, new_blob("b"), upload=new_upload("u3"), now=NOW)
        assert await stores.uploads.cancel(new_upload("u3"), now=NOW) is False

        states = [found.state for name in ("u1", "u2", "u3") if (found := await stores.uploads.find(name))]
        assert states == [UploadState.CANCELLED, UploadState.CANCELLED, UploadState.COMMITTED]

    async def test_abandoned_sessions(self, stores: RegistryStores) -> None:
        """Open ones begun before a moment, the oldest first, up to a limit."""
        for hours in (3, 1, 2, 4):
            await stores.uploads.advance(new_upload(f"u{hours}", started_at=NOW + timedelta(hours=hours)), now=NOW)
        await stores.uploads.cancel(new_upload("u1"), now=NOW)

        before = NOW + timedelta(hours=4)
        found = await stores.uploads.abandoned(started_before=before, limit=10)
        assert [record.upload_id for record in found] == ["u2", "u3"]
        assert [record.upload_id for record in await stores.uploads.abandoned(started_before=before, limit=1)] == ["u2"]

    async def test_closed_sessions_are_forgotten(self, stores: RegistryStores) -> None:
        """Those not touched since; open ones stay."""
        await stores.uploads.advance(new_upload("open"), now=NOW)
        await stores.uploads.cancel(new_upload("old"), now=NOW)
        await stores.blobs.commit(APP, new_blob("b"), upload=new_upload("done"), now=NOW)
        await stores.uploads.cancel(new_upload("new"), now=NOW + timedelta(hours=1))

        assert await stores.uploads.forget_closed(touched_before=NOW + timedelta(minutes=1)) == 2
        left = [name for name in ("open", "old", "done", "new") if await stores.uploads.find(name) is not None]
        assert left == ["open", "new"]


class BlobStoreContract:
    """The promises of `BlobStore`."""

    async def test_a_committed_blob_is_found(self, stores: RegistryStores) -> None:
        """In its repository only; that its bytes are stored is known everywhere."""
        blob = new_blob("bytes")

        assert await stores.blobs.commit(APP, blob, upload=None, now=NOW) == blob

        assert await stores.blobs.find(APP, blob.digest) == blob
        assert await stores.blobs.find(OTHER, blob.digest) is None
        assert await stores.layers.find(blob.digest) is not None
        assert await stores.layers.find(Digest.of(b"other")) is None

    async def test_stored_bytes_stay_where_they_are(self, stores: RegistryStores) -> None:
        """A second commit of a digest is answered with the first one's key."""
        blob = new_blob("bytes")
        await stores.blobs.commit(APP, blob, upload=None, now=NOW)

        again = await stores.blobs.commit(OTHER, BlobRecord(blob.digest, 5, Key("a/copy")), upload=None, now=NOW)

        assert again == blob
        assert await stores.blobs.find(OTHER, blob.digest) == blob

    async def test_commit_closes_the_session(self, stores: RegistryStores) -> None:
        """In the same transaction, whether it was stored before or not; the same commit again changes nothing."""
        blob = new_blob("bytes")
        stored = new_upload("u1")
        await stores.uploads.advance(stored, now=NOW)

        for upload in (_with_version(stored, 1), new_upload("u2")):
            for _ in range(2):
                await stores.blobs.commit(APP, blob, upload=upload, now=NOW)
            found = await stores.uploads.find(upload.upload_id)
            assert found is not None
            assert (found.state, found.committed) == (UploadState.COMMITTED, blob.digest)

    async def test_a_closed_session_takes_no_blob(self, stores: RegistryStores) -> None:
        """Cancelled, become another blob, or written to by another request: and nothing of the commit is stored."""
        await stores.uploads.cancel(new_upload("cancelled"), now=NOW)
        await stores.blobs.commit(OTHER, new_blob("first"), upload=new_upload("done"), now=NOW)
        await stores.uploads.advance(new_upload("busy"), now=NOW)
        blob = new_blob("late")

        for name, error in (
            ("cancelled", UploadUnknownError),
            ("done", UploadUnknownError),
            ("busy", UploadBusyError),
        ):
            with pytest.raises(error):
                await stores.blobs.commit(APP, blob, upload=new_upload(name), now=NOW)

        assert await stores.layers.find(blob.digest) is None
        assert await stores.catalog.tags(APP, after="", limit=1) is None

    async def test_two_commits_of_one_blob(self, stores: RegistryStores, elsewhere: RegistryStores) -> None:
        """Both succeed and agree on the key."""
        for number in range(10):
            blob = new_blob(f"blob {number}")
            copies = [BlobRecord(blob.digest, blob.size, Key(f"{number}/{copy}")) for copy in "ab"]
            first, second = await asyncio.gather(
                stores.blobs.commit(APP, copies[0], upload=None, now=NOW),
                elsewhere.blobs.commit(OTHER, copies[1], upload=None, now=NOW),
            )
            assert first == second
            assert first in copies

    async def test_mounting(self, stores: RegistryStores) -> None:
        """From a repository that may serve it, or from any; otherwise None and nothing comes to be."""
        blob = new_blob("bytes")
        await stores.blobs.commit(APP, blob, upload=None, now=NOW)
        third = RepositoryName("third")

        assert await stores.blobs.mount(third, blob.digest, source=OTHER, now=NOW) is None
        assert await stores.blobs.mount(third, Digest.of(b"?"), source=None, now=NOW) is None
        assert await stores.catalog.tags(third, after="", limit=1) is None
        assert await stores.blobs.mount(OTHER, blob.digest, source=APP, now=NOW) == blob
        assert await stores.blobs.mount(third, blob.digest, source=None, now=NOW) == blob
        assert await stores.blobs.find(third, blob.digest) == blob

    async def test_unlinking(self, stores: RegistryStores) -> None:
        """Takes the blob from one repository; the bytes stay for the other, and stored."""
        blob = new_blob("bytes")
        await stores.blobs.commit(APP, blob, upload=None, now=NOW)
        await stores.blobs.commit(OTHER, blob, upload=None, now=NOW)

        assert await stores.blobs.unlink(APP, blob.digest, now=NOW) is True
        assert await stores.blobs.unlink(APP, blob.digest, now=NOW) is False
        assert await stores.blobs.unlink(RepositoryName("third"), blob.digest, now=NOW) is False

        assert await stores.blobs.find(APP, blob.digest) is None
        assert await stores.blobs.find(OTHER, blob.digest) == blob
        assert await stores.blobs.mount(APP, blob.digest, source=APP, now=NOW) is None
        await stores.blobs.unlink(OTHER, blob.digest, now=NOW)
        assert await stores.layers.find(blob.digest) is not None
        assert await stores.blobs.mount(APP, blob.digest, source=None, now=NOW) is None

    async def test_mount_and_unlink_at_once(self, stores: RegistryStores, elsewhere: RegistryStores) -> None:
        """Mounted means that it can be served."""
        blob = new_blob("bytes")
        for number in range(25):
            await stores.blobs.commit(APP, blob, upload=None, now=NOW)
            target = RepositoryName(f"target{number}")
            mounted, unlinked = await asyncio.gather(
                stores.blobs.mount(target, blob.digest, source=APP, now=NOW),
                elsewhere.blobs.unlink(APP, blob.digest, now=NOW),
            )
            assert unlinked is True
            assert await stores.blobs.find(target, blob.digest) == mounted


class InstanceStoreContract:
    """The promises of `InstanceStore`."""

    async def test_a_secret_is_made_once(self, stores: RegistryStores, elsewhere: RegistryStores) -> None:
        """Whoever asks first: all get the same 32 bytes, other names others."""
        secrets = await asyncio.gather(
            *((stores, elsewhere)[number % 2].instance.secret("state") for number in range(10))
        )

        assert len(set(secrets)) == 1
        assert len(secrets[0]) == 32
        assert await elsewhere.instance.secret("state") == secrets[0]
        assert await stores.instance.secret("other") != secrets[0]


def _with_version(record: UploadRecord, version: int) -> UploadRecord:
    return replace(record, version=version)


def _staged(record: UploadRecord, size: int) -> UploadRecord:
    return replace(record, staged=Staged(size))
