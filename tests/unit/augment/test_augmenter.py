"""Pulls by tag: what is answered, what is kept, and how often the work is done."""

import asyncio
import json
from datetime import UTC, datetime

import pytest

from roadstead.augment import service
from roadstead.augment.plan import MARK, Plan, PlannedLayer
from roadstead.augment.ports import Derivation, Served
from roadstead.augment.rules import Rule, Rules
from roadstead.augment.service import (
    Augmenter,
    IndexTooLargeError,
    LayerMissingError,
    LegacyImageError,
    PlatformNotServedError,
)
from roadstead.oci.descriptor import Platform
from roadstead.oci.digest import Digest
from roadstead.oci.image_config import ImageConfig
from roadstead.oci.manifest import ImageIndex, ImageManifest, parse_manifest
from roadstead.oci.mediatypes import DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED
from roadstead.oci.pattern import Pattern
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.errors import BlobUnknownError, ContentTooLargeError, ManifestUnknownError
from roadstead.testing.images import (
    TestImage,
    TestIndex,
    make_artifact,
    make_attestation,
    make_image,
    make_index,
    make_layer,
)
from roadstead.testing.memory_stores import MemoryDerivations, MemoryImages, MemoryLayers

REPOSITORY, TAG = RepositoryName.parse("team/web"), Tag.parse("latest")
LAYER = make_layer({"foo.txt": b"hello\n"})
PLAN = Plan(layers=(PlannedLayer(LAYER.digest, len(LAYER.raw), LAYER.diff_id),), env=(("GREETING", "hello"),))
NOW = datetime(2026, 1, 2, tzinfo=UTC)


class FixedClock:
    """The same moment always."""

    def now(self) -> datetime:
        return NOW


class House:
    """An augmenter with all its stores, in memory."""

    def __init__(self, *rules: tuple[str, Plan]) -> None:
        self.rules = Rules(Rule(Pattern.parse(match), plan) for match, plan in rules or [("team/*", PLAN)])
        self.images = MemoryImages()
        self.derivations = MemoryDerivations()
        self.layers = MemoryLayers()
        self.layers.blobs[LAYER.digest] = LAYER.raw
        self.augmenter = self.another()

    def another(self) -> Augmenter:
        """An augmenter on the same stores, as another worker has it."""
        return Augmenter(self.rules, self.images, self.derivations, self.layers, FixedClock())

    def put(self, image: TestImage | TestIndex) -> Served:
        return self.images.put(REPOSITORY, image)

    async def pull(self, source: Served, tag: Tag = TAG, *, by: Augmenter | None = None) -> Served:
        """Pull a tag that is at `source`, by this augmenter or another."""
        augmenter = by or self.augmenter
        self.derivations.tags[REPOSITORY, tag] = source
        plan = augmenter.plan_for(REPOSITORY, tag)
        assert plan is not None
        served = await augmenter.pull(REPOSITORY, tag, plan)
        assert served is not None
        return served

    def keep_derived(self, derivation: Derivation) -> None:
        """What the registry does with a derivation: from now on the repository holds it."""
        for manifest in derivation.manifests:
            self.images._manifests[REPOSITORY, manifest.digest] = (manifest.media_type, manifest.raw)
            for blob in manifest.blobs:
                if blob in self.layers.blobs:
                    self.images._blobs[REPOSITORY, blob] = self.layers.blobs[blob]


@pytest.fixture
def house() -> House:
    return House()


def described(derivation: Derivation) -> set[Digest]:
    return {blob.digest for blob in derivation.blobs}


async def test_without_a_rule_nothing_is_asked(house: House) -> None:
    """A pull that no rule matches has no plan, and no store is touched to know it."""
    house.put(make_image())

    assert house.augmenter.plan_for(RepositoryName.parse("other/web"), TAG) is None
    assert house.images.reads == []


async def test_a_tag_that_is_not_there(house: House) -> None:
    """It has no answer, rule or not."""
    assert await house.augmenter.pull(REPOSITORY, TAG, PLAN) is None


async def test_a_tag_that_moves(house: House) -> None:
    """The next pull is answered with what the new image becomes, and back again."""
    first, second = house.put(make_image()), house.put(make_image(layers=3))

    answers = [await house.pull(source) for source in (first, second, first)]

    assert answers[0] == answers[2] != answers[1]
    assert [derivation.source for derivation in house.derivations.recorded] == [first.digest, second.digest]


async def test_an_image_is_served_augmented(house: House) -> None:
    """The answer is a manifest that was recorded with all it needs; its layers are the image's and the plan's."""
    image = make_image(layers=2)
    source = house.put(image)

    answer = await house.pull(source)

    (derivation,) = house.derivations.recorded
    root = derivation.root
    assert answer == Served(root.digest, image.media_type, len(root.raw))
    assert answer.digest == Digest.of(root.raw) != source.digest
    manifest = parse_manifest(root.raw, root.media_type)
    assert isinstance(manifest, ImageManifest)
    assert [layer.digest for layer in manifest.layers] == [*(layer.digest for layer in image.layers), LAYER.digest]
    assert tuple(root.blobs) == tuple(reference.digest for reference in manifest.references())
    assert (root.source, root.children) == (source.digest, ())
    assert described(derivation) == {LAYER.digest, manifest.config.digest}
    assert ImageConfig.parse(house.layers.blobs[manifest.config.digest]).labels[MARK] == str(PLAN.digest)
    assert (derivation.source, derivation.plan_digest, derivation.plan) == (
        source.digest,
        PLAN.digest,
        PLAN.canonical(),
    )


async def test_the_second_pull_derives_nothing(house: House) -> None:
    """What is recorded answers, here and in every other worker."""
    source = house.put(make_image())
    first = await house.pull(source)
    reads = list(house.images.reads)

    assert await house.pull(source) == first
    assert await house.pull(source, by=house.another()) == first
    assert house.images.reads == reads
    assert len(house.derivations.recorded) == 1


async def test_an_index_is_served_with_all_its_platforms(house: House) -> None:
    """Children come before the root; attestations are neither read nor changed; their digests stay in the index."""
    amd64, arm64 = make_image(), make_image(platform="linux/arm64")
    attestation = make_attestation(amd64)
    source = house.put(make_index([amd64, arm64, attestation]))

    answer = await house.pull(source)

    (derivation,) = house.derivations.recorded
    *children, root = derivation.manifests
    index = parse_manifest(root.raw, root.media_type)
    assert isinstance(index, ImageIndex)
    assert answer.digest == root.digest == index.digest
    assert [child.source for child in children] == [amd64.digest, arm64.digest]
    assert tuple(root.children) == (children[0].digest, children[1].digest, attestation.digest)
    assert tuple(entry.digest for entry in index.manifests) == tuple(root.children)
    assert root.blobs == ()
    assert attestation.digest not in house.images.reads
    assert len(described(derivation)) == 3


async def test_what_no_engine_chooses_is_not_touched(house: House) -> None:
    """An entry for platform unknown stays, whatever lies behind it and whether or not it's annotated."""
    other = make_image(platform="unknown/unknown")
    source = house.put(make_index([make_image(), other]))

    await house.pull(source)

    (derivation,) = house.derivations.recorded
    assert derivation.root.children[1] == other.digest
    assert other.digest not in house.images.reads


async def test_nested_indexes_are_derived_from_within(house: House) -> None:
    """An index in an index is replaced by what was derived from it."""
    image = make_image()
    inner = make_index([image])
    source = house.put(make_index([inner, make_image(platform="linux/arm64")]))

    await house.pull(source)

    (derivation,) = house.derivations.recorded
    sources = [manifest.source for manifest in derivation.manifests]
    assert sources[0] == image.digest
    assert sources[1] == inner.digest
    assert sources[-1] == source.digest
    assert derivation.root.children[0] == derivation.manifests[1].digest


def nested(depth: int) -> TestIndex:
    index = make_index([make_image()])
    for _ in range(depth - 1):
        index = make_index([index])
    return index


async def test_indexes_are_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Depth and number of manifests have a limit, whoever pushed them."""
    deepest = house.put(nested(service.MAX_DEPTH))
    too_deep = house.put(nested(service.MAX_DEPTH + 1))
    monkeypatch.setattr(service, "MAX_MANIFESTS", 5)
    widest = house.put(make_index([make_image(seed=str(n)) for n in range(5)]))
    too_wide = house.put(make_index([make_image(seed=str(n)) for n in range(6)]))

    assert (await house.pull(deepest)).digest != deepest.digest
    assert (await house.pull(widest)).digest != widest.digest
    for source in (too_deep, too_wide):
        with pytest.raises(IndexTooLargeError):
            await house.pull(source)


async def test_a_platform_without_layers_is_left_out(house: House) -> None:
    """The index has only the platforms that the plan serves."""
    linux, windows = make_image(), make_image(platform="windows/amd64")
    source = house.put(make_index([windows, linux]))

    await house.pull(source)

    (derivation,) = house.derivations.recorded
    assert [manifest.source for manifest in derivation.manifests] == [linux.digest, source.digest]
    assert len(derivation.root.children) == 1


@pytest.mark.parametrize("indexed", [False, True])
async def test_no_platform_left_is_an_error_that_says_so(house: House, indexed: bool) -> None:
    """Not found, with the platforms in the message; asking again reads nothing again."""
    windows = make_image(platform="windows/amd64")
    source = house.put(make_index([windows]) if indexed else windows)

    for _ in range(2):
        with pytest.raises(PlatformNotServedError, match=r"team/web:latest.*windows/amd64") as caught:
            await house.pull(source)

    assert caught.value.platforms == (Platform("windows", "amd64"),)
    assert caught.value.advice()
    assert len(house.images.reads) == len(set(house.images.reads))
    assert house.derivations.recorded == []


@pytest.mark.parametrize(
    "image",
    [
        make_artifact(),
        make_attestation(make_image()),
        make_index([make_artifact()]),
        make_index([]),
        make_image(layers=[{"base": b"1"}, {"foo.txt": b"hello\n"}], config={"Env": ["GREETING=hello"]}),
    ],
    ids=["artifact", "attestation", "index of artifacts", "empty index", "has it all"],
)
async def test_what_is_never_augmented_is_served_and_remembered(house: House, image: TestImage | TestIndex) -> None:
    """The very source is the answer; the second pull reads nothing and asks nobody."""
    source = house.put(image)

    assert await house.pull(source) is source
    reads = list(house.images.reads)
    assert await house.pull(source) is source

    assert house.images.reads == reads
    assert house.derivations.recorded == []


async def test_memory_is_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten first, and then found out anew."""
    monkeypatch.setattr(service, "MAX_REMEMBERED", 2)
    sources = [house.put(make_artifact(content=str(n).encode())) for n in range(3)]
    for source in sources:
        await house.pull(source)
    house.images.reads.clear()

    for source in reversed(sources):
        assert await house.pull(source) is source

    assert house.images.reads == [sources[0].digest]


@pytest.mark.parametrize("media_type", [DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED])
async def test_schema_1_is_refused_where_a_rule_matches(house: House, media_type: str) -> None:
    """Nothing can be added to it, and without what the rule adds it isn't what was asked for; it says what to do."""
    with pytest.raises(LegacyImageError, match=r"team/web:latest.*schema 1") as caught:
        await house.pull(Served(Digest.of(b"schema 1"), media_type, 10))

    assert "as-pushed/team/web:latest" in caught.value.advice()


@pytest.mark.parametrize("value", [str(PLAN.digest), "sha256:of-another-plan", ""])
async def test_a_mark_that_a_pusher_wrote_keeps_no_rule_off(house: House, value: str) -> None:
    """Neither in an image nor in an index of one: what isn't derived here has to have what the plan gives."""
    image = make_image(config={"Labels": {MARK: value}})
    for source in (house.put(image), house.put(make_index([image]))):
        assert (await house.pull(source)).digest != source.digest

    assert all(LAYER.digest in described(derivation) for derivation in house.derivations.recorded)


async def test_a_derived_image_that_is_pushed_elsewhere_here_is_known(house: House) -> None:
    """By its config: the manifest may be one that the pusher's engine wrote anew. Another plan is carried out.

    Otherwise whoever may have any plan carried out, of their own perhaps, could keep every rule off an image.
    """
    await house.pull(house.put(make_image()))
    (derivation,) = house.derivations.recorded
    house.keep_derived(derivation)
    document = json.loads(derivation.root.raw)
    document["annotations"] = {"pushed": "again"}
    again = json.dumps(document).encode()
    house.images._manifests[REPOSITORY, Digest.of(again)] = (derivation.root.media_type, again)
    copy = Served(Digest.of(again), derivation.root.media_type, len(again))
    other = Plan(env=(("OTHER", "1"),))
    house.derivations.tags[REPOSITORY, TAG] = copy

    assert await house.augmenter.pull(REPOSITORY, TAG, PLAN) is copy
    assert await house.augmenter.pull(REPOSITORY, TAG, other) != copy


async def test_what_was_collected_is_derived_again(house: House) -> None:
    """A manifest, a platform's among them, and a config: from its source and plan, and with the same bytes."""
    image = make_index([make_image(), make_image(platform="linux/arm64")])
    await house.pull(house.put(image))
    (first,) = house.derivations.recorded

    for digest in [manifest.digest for manifest in first.manifests] + list(first.configs):
        assert await house.another().revive(REPOSITORY, digest)

    assert all(derivation == first for derivation in house.derivations.recorded)
    assert not await house.augmenter.revive(REPOSITORY, image.digest)
    assert not await house.augmenter.revive(RepositoryName.parse("team/other"), first.root.digest)


@pytest.mark.parametrize("gone", ["source", "layer"])
async def test_what_cannot_be_derived_again_is_unknown(house: House, gone: str) -> None:
    """Without its source, or a layer, it is as unknown as any digest; nothing is recorded."""
    source = house.put(make_image())
    await house.pull(source)
    if gone == "source":
        house.images.drop(REPOSITORY, source.digest)
    else:
        del house.layers.blobs[LAYER.digest]

    assert not await house.augmenter.revive(REPOSITORY, house.derivations.recorded[0].root.digest)
    assert len(house.derivations.recorded) == 1


async def test_what_was_derived_is_not_derived_again(house: House) -> None:
    """Pulled, tagged and pushed back under a name that a rule matches, it stays what it is; so does its index."""
    for image in (make_image(), make_index([make_image(seed="2"), make_image(platform="linux/arm64")])):
        answer = await house.pull(house.put(image))
        house.keep_derived(house.derivations.recorded[-1])
        recorded = len(house.derivations.recorded)

        assert await house.pull(answer) is answer
        assert len(house.derivations.recorded) == recorded


async def test_every_plan_has_its_own_derivation() -> None:
    """One source under two rules gives two images; the first rule that matches decides."""
    other = Plan(env=(("GREETING", "bye"),))
    house = House(("team/web:latest", PLAN), ("team/*", other))
    source = house.put(make_image())

    latest = await house.pull(source)
    old = await house.pull(source, Tag.parse("old"))

    assert latest.digest != old.digest
    assert [derivation.plan_digest for derivation in house.derivations.recorded] == [PLAN.digest, other.digest]
    assert len(described(house.derivations.recorded[1])) == 1  # no layer, so only the config


async def test_workers_agree_without_talking() -> None:
    """Two workers that never met give the same bytes."""
    image = make_index([make_image(layers=3), make_image(platform="linux/arm64", docker=True)])
    one, other = House(), House()

    await one.pull(one.put(image))
    await other.pull(other.put(image))

    assert one.derivations.recorded == other.derivations.recorded


class GatedImages(MemoryImages):
    """Reads wait until the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()

    async def manifest(self, repository: RepositoryName, digest: Digest) -> tuple[str, bytes]:
        self.asked.set()
        await self.gate.wait()
        return await super().manifest(repository, digest)


@pytest.fixture
def gated() -> tuple[House, GatedImages]:
    house = House()
    images = GatedImages()
    house.images = images
    house.augmenter = house.another()
    return house, images


async def test_many_pulls_at_once_derive_once(gated: tuple[House, GatedImages]) -> None:
    """All of them get the one answer."""
    house, images = gated
    source = house.put(make_image())

    async with asyncio.TaskGroup() as group:
        pulls = [group.create_task(house.pull(source)) for _ in range(10)]
        await images.asked.wait()
        images.gate.set()

    assert len({pull.result().digest for pull in pulls}) == 1
    assert images.reads.count(source.digest) == 1
    assert len(house.derivations.recorded) == 1


async def test_a_client_that_goes_away_takes_nobody_along(gated: tuple[House, GatedImages]) -> None:
    """The first pull is cancelled while it waits; the second gets its answer from the same work."""
    house, images = gated
    source = house.put(make_image())
    first = asyncio.create_task(house.pull(source))
    await images.asked.wait()
    second = asyncio.create_task(house.pull(source))
    await asyncio.sleep(0)

    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    images.gate.set()

    assert (await second).digest != source.digest
    assert images.reads.count(source.digest) == 1


async def test_a_failure_reaches_all_who_wait_and_is_tried_again(gated: tuple[House, GatedImages]) -> None:
    """An error isn't remembered: what is missing now may come."""
    house, images = gated
    image = make_image()
    source = house.put(image)
    images.drop(REPOSITORY, source.digest)
    images.gate.set()

    results = await asyncio.gather(house.pull(source), house.pull(source), return_exceptions=True)
    house.put(image)

    assert [type(result) for result in results] == [ManifestUnknownError, ManifestUnknownError]
    assert (await house.pull(source)).digest != source.digest


async def test_a_failure_that_nobody_waits_for_is_quiet(gated: tuple[House, GatedImages]) -> None:
    """When all clients have gone, the error has nobody to tell, and asyncio doesn't complain of it."""
    house, images = gated
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    source = house.put(make_image())
    images.drop(REPOSITORY, source.digest)
    pull = asyncio.create_task(house.pull(source))
    await images.asked.wait()
    pull.cancel()
    await asyncio.gather(pull, return_exceptions=True)
    (work,) = house.augmenter._running.values()

    images.gate.set()
    await asyncio.wait([work])
    del work
    await asyncio.sleep(0)

    assert complaints == []
    assert house.augmenter._running == {}


async def test_closing_ends_what_is_under_way(gated: tuple[House, GatedImages]) -> None:
    """Nothing is recorded in part, and whoever waits is let go."""
    house, images = gated
    pull = asyncio.create_task(house.pull(house.put(make_image())))
    await images.asked.wait()

    await house.augmenter.aclose()

    with pytest.raises(asyncio.CancelledError):
        await pull
    assert house.derivations.recorded == []


async def test_a_layer_that_is_gone_is_named(house: House) -> None:
    """A derivation without its layer would be an image that can't be pulled: the pull fails and says why."""
    del house.layers.blobs[LAYER.digest]

    with pytest.raises(LayerMissingError, match=str(LAYER.digest)) as caught:
        await house.pull(house.put(make_image()))

    assert caught.value.advice()
    assert house.derivations.recorded == []


async def test_a_config_without_bounds_is_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is asked for no more than the limit."""
    monkeypatch.setattr(service, "MAX_CONFIG_BYTES", 10)

    with pytest.raises(ContentTooLargeError):
        await house.pull(house.put(make_image()))


async def test_a_config_that_is_gone_is_an_error(house: House) -> None:
    """Nothing is served in place of what can't be read."""
    image = make_image()
    source = house.put(image)
    del house.images._blobs[REPOSITORY, image.config_digest]

    with pytest.raises(BlobUnknownError):
        await house.pull(source)


async def test_entries_that_are_no_manifests_stay(house: House) -> None:
    """An index may list anything; what isn't a manifest is neither read nor changed."""
    index = make_index([make_image()])
    document = json.loads(index.raw)
    blob = {"mediaType": "application/octet-stream", "digest": str(Digest.of(b"blob")), "size": 4}
    document["manifests"].append(blob)
    source = house.put(TestIndex(json.dumps(document).encode(), index.media_type, index.children))

    await house.pull(source)

    (derivation,) = house.derivations.recorded
    assert json.loads(derivation.root.raw)["manifests"][1] == blob
    assert len(derivation.root.children) == 1
