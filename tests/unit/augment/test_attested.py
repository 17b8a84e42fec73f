"""What is said of derived images: made with them, once, the same everywhere, and made up for when it is missing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from roadstead.augment import provenance
from roadstead.augment.attested import AttestedDerivations
from roadstead.augment.plan import Plan, PlannedLayer
from roadstead.augment.ports import Derivation, DerivedManifest, Said, Served
from roadstead.oci.artifact import Artifact, ArtifactBlob
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.testing.memory_stores import MemoryDerivations, MemoryLayers

NOW = datetime(2026, 1, 2, tzinfo=UTC)
APP, TAG = RepositoryName.parse("team/app"), Tag.parse("v1")
SOURCE = Digest.of(b"source")
PLAN = Plan(layers=(PlannedLayer(Digest.of(b"layer"), 5, Digest.of(b"tar")),), env=(("A", "b"),))


class Seal:
    """Signs in words."""

    def __init__(self, key: str = "one") -> None:
        self.mark = ("key", key)

    def signatures(self, subject: Digest, name: str) -> Sequence[Artifact]:
        return (
            Artifact("text/signature", (ArtifactBlob("text/plain", f"{name} {subject}".encode()),), dict([self.mark])),
        )

    def signed(self, statement: bytes, predicate_type: str) -> Artifact:
        return Artifact("text/bundle", (ArtifactBlob("text/plain", statement),), dict([self.mark]))


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the referrers list."""

    artifact_type: str | None
    annotations: dict[str, str]


class Kept:
    """Lists what was recorded last."""

    def __init__(self, derivations: MemoryDerivations) -> None:
        self.asked = 0
        self.lines: list[Line] = []
        self._derivations = derivations

    async def referrers(
        self, repository: RepositoryName, subject: Digest, *, artifact_type: str | None, after: str, limit: int
    ) -> Sequence[Said]:
        self.asked += 1
        return self.lines


def derivation() -> Derivation:
    """An image that was derived, with one platform."""
    child = DerivedManifest(digest=Digest.of(b"child"), media_type="a/b", raw=b"child", source=Digest.of(b"s1"))
    root = DerivedManifest(
        digest=Digest.of(b"root"), media_type="application/vnd.oci.image.index.v1+json", raw=b"root", source=SOURCE
    )
    return Derivation(
        repository=APP,
        source=SOURCE,
        plan_digest=PLAN.digest,
        plan=PLAN.canonical(),
        manifests=(child, root),
        blobs=(),
    )


class House:
    """The store under test, with what is beneath it."""

    def __init__(self) -> None:
        self.derivations = MemoryDerivations()
        self.layers = MemoryLayers()
        self.kept = Kept(self.derivations)

    def store(self, seal: Seal | None = None, *, with_provenance: bool = True) -> AttestedDerivations:
        return AttestedDerivations(
            self.derivations, self.layers, self.kept, builder="urn:us", with_provenance=with_provenance, seal=seal
        )

    def recorded(self) -> Derivation:
        """Return what was recorded last, and list it from now on."""
        [*_, last] = self.derivations.recorded
        self.kept.lines = [Line(one.artifact_type, dict(one.annotations)) for one in last.attached]
        return last


@pytest.fixture
def house() -> House:
    return House()


async def test_the_statement_names_source_plan_and_all_that_came_of_it(house: House) -> None:
    """It is about root and children, and depends on the source, the layers and the plan."""
    await house.store().record(derivation(), now=NOW)
    [said] = house.recorded().attached
    document = json.loads(said.raw)
    statement = json.loads(house.layers.blobs[Digest.parse(document["layers"][0]["digest"])])

    assert document["subject"]["digest"] == str(Digest.of(b"root"))
    assert said.artifact_type == "application/vnd.in-toto+json"
    assert [one["digest"]["sha256"] for one in statement["subject"]] == [
        Digest.of(b"root").encoded,
        Digest.of(b"child").encoded,
    ]
    assert statement["_type"] == provenance.STATEMENT
    definition = statement["predicate"]["buildDefinition"]
    assert [one["digest"]["sha256"] for one in definition["resolvedDependencies"]] == [
        SOURCE.encoded,
        Digest.of(b"layer").encoded,
    ]
    assert definition["externalParameters"]["plan"] == json.loads(PLAN.canonical())
    assert statement["predicate"]["runDetails"] == {"builder": {"id": "urn:us"}}


async def test_all_its_blobs_are_recorded_with_it(house: House) -> None:
    """The empty config too: clients fetch it."""
    await house.store(Seal()).record(derivation(), now=NOW)
    last = house.recorded()

    needed = {digest for said in last.attached for digest in said.blobs}
    assert needed == {blob.digest for blob in last.blobs}
    assert Digest.of(b"{}") in needed


async def test_every_worker_says_the_same() -> None:
    """Digests are equal, whoever derives, whenever."""
    said = []
    for year in (2025, 2026):
        house = House()
        await house.store(Seal()).record(derivation(), now=NOW.replace(year=year))
        said.append([one.digest for one in house.recorded().attached])

    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("before", "after", "again"),
    [
        ((None, True), (None, True), False),
        ((None, False), (None, True), True),
        ((None, True), (Seal(), True), True),
        ((Seal(), True), (Seal(), True), False),
        ((Seal(), True), (Seal("two"), True), True),
        ((Seal(), True), (None, True), False),
        ((Seal(), True), (Seal(), False), False),
    ],
    ids=["same", "provenance is new", "a key is new", "same key", "another key", "no key more", "no provenance more"],
)
async def test_what_is_missing_is_made_up_for(
    house: House, before: tuple[Seal | None, bool], after: tuple[Seal | None, bool], again: bool
) -> None:
    """A derived image that lacks something isn't found, so that it is derived once more; then it is."""
    first, later = (house.store(seal, with_provenance=wanted) for seal, wanted in (before, after))
    house.derivations.tags[APP, TAG] = Served(SOURCE, "a/b", 6)
    await first.record(derivation(), now=NOW)
    house.recorded()

    by_tag, by_digest = await later.find_by_tag(APP, TAG, PLAN.digest), await later.find(APP, SOURCE, PLAN.digest)

    assert by_tag is not None
    assert (by_tag.derived is None) is again
    assert (by_digest is None) is again
    await later.record(derivation(), now=NOW)
    assert await later.find(APP, SOURCE, PLAN.digest) is not None


async def test_a_pull_asks_once(house: House) -> None:
    """That nothing is missing is remembered: it costs the first pull of each worker one look."""
    await house.store().record(derivation(), now=NOW)
    house.recorded()
    store = house.store()

    for _ in range(3):
        assert await store.find(APP, SOURCE, PLAN.digest) is not None
    assert house.kept.asked == 1
    assert await store.find(APP, Digest.of(b"other"), PLAN.digest) is None
