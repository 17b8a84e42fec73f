"""Image and plan make an image: arithmetic, with the results written down."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.augment.plan import MARK, Plan, PlannedLayer, Profile
from roadstead.augment.rewrite import ENTRY_CHAIN, NotServed, Unchanged, derive_image, derive_index, is_runnable
from roadstead.oci.descriptor import Descriptor, Platform
from roadstead.oci.digest import Digest
from roadstead.oci.image_config import ImageConfig
from roadstead.oci.layer import Compression
from roadstead.oci.manifest import ImageIndex, ImageManifest, parse_manifest
from roadstead.oci.mediatypes import DOCKER_LAYER_GZIP, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from roadstead.oci.mutate import Image, ImageInvalidError
from roadstead.oci.strict_json import compact
from roadstead.testing.images import (
    TestImage,
    TestIndex,
    make_artifact,
    make_attestation,
    make_image,
    make_index,
)

UNHURRIED = settings(deadline=None)  # a busy machine isn't a mistake of ours


LAYER = PlannedLayer(Digest.of(b"gzip"), 345, Digest.of(b"tar"))
ARM_LAYER = PlannedLayer(Digest.of(b"gzip for arm"), 346, Digest.of(b"tar for arm"), Platform("linux", "arm64"))
AMD_LAYER = PlannedLayer(Digest.of(b"gzip for amd"), 347, Digest.of(b"tar for amd"), Platform("linux", "amd64"))
PLAN = Plan(layers=(LAYER,), env=(("GREETING", "hello"),))


def derive(image: TestImage, plan: Plan = PLAN, platform: Platform | None = None) -> Image | Unchanged | NotServed:
    return derive_image(image.manifest, ImageConfig.parse(image.config), plan, platform)


def derived(image: TestImage, plan: Plan = PLAN) -> Image:
    outcome = derive(image, plan)
    assert isinstance(outcome, Image)
    return outcome


def config_of(image: Image) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(image.config.raw)
    return document


def test_the_worked_example_comes_out_byte_for_byte() -> None:
    """A golden table: config, manifest and index of wave.md §2.10's image in the native profile.

    Derivations outlive releases, so these digests stay.
    """
    one, two = ("sha256:" + digit * 64 for digit in "12")
    config = compact(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/bin"], "Entrypoint": ["/bin/tool", "--flag"], "Cmd": ["run"]},
            "rootfs": {"type": "layers", "diff_ids": [one]},
        }
    )
    manifest = compact(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": str(Digest.of(config)),
                "size": len(config),
            },
            "layers": [{"mediaType": OCI_LAYER_GZIP, "digest": two, "size": 1000}],
        }
    )
    arm_entry = {
        "mediaType": OCI_MANIFEST,
        "digest": "sha256:" + "3" * 64,
        "size": 700,
        "platform": {"architecture": "arm64", "os": "linux", "variant": "v8"},
    }
    amd_entry = {
        "mediaType": OCI_MANIFEST,
        "digest": str(Digest.of(manifest)),
        "size": len(manifest),
        "platform": {"architecture": "amd64", "os": "linux"},
    }
    index = compact({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [amd_entry, arm_entry]})
    assert (len(config), len(manifest), len(index)) == (236, 402, 506)
    plan = Plan(
        layers=(
            PlannedLayer(
                Digest.parse("sha256:" + "b" * 64), 345, Digest.parse("sha256:" + "a" * 64), Platform("linux", "amd64")
            ),
        ),
        env=(("FOO", "bar"),),
        entrypoint=("/opt/fusion/entry.sh",),
    )
    parsed, parsed_index = parse_manifest(manifest, None), parse_manifest(index, None)
    assert isinstance(parsed, ImageManifest)
    assert isinstance(parsed_index, ImageIndex)

    image = derive_image(parsed, ImageConfig.parse(config), plan)
    assert isinstance(image, Image)
    new_index = derive_index(parsed_index, [image.manifest, NotServed((Platform("linux", "arm64"),))], plan)
    assert isinstance(new_index, ImageIndex)

    mark = str(plan.digest)
    assert image.config.raw == compact(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/bin", "FOO=bar", 'ROADSTEAD_ENTRY_CHAIN=["/bin/tool","--flag"]'],
                "Entrypoint": ["/opt/fusion/entry.sh"],
                "Cmd": ["run"],
                "Labels": {"io.roadstead.augmented": mark},
            },
            "rootfs": {"type": "layers", "diff_ids": [one, "sha256:" + "a" * 64]},
        }
    )
    assert image.manifest.raw == compact(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": str(image.config.digest),
                "size": len(image.config.raw),
            },
            "layers": [
                {"mediaType": OCI_LAYER_GZIP, "digest": two, "size": 1000},
                {"mediaType": OCI_LAYER_GZIP, "digest": "sha256:" + "b" * 64, "size": 345},
            ],
            "annotations": {"io.roadstead.augmented": mark},
        }
    )
    replaced = amd_entry | {"digest": str(image.manifest.digest), "size": image.manifest.size}
    assert new_index.raw == compact(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [replaced],
            "annotations": {"io.roadstead.augmented": mark},
        }
    )
    assert (mark, str(image.manifest.digest), str(new_index.digest)) == (
        "sha256:f64734e7173a02be940dfeec097866271f19bc0023864f58b93e4ff0e8bb0a24",
        "sha256:0d46aef2953116515de6a788cc99b53ce14f77fe48f16c25325e3ca619fa5949",
        "sha256:8874632b9be4a957884a84a019f834d12fd9950d7ea303e635588fba7b7e3316",
    )


@pytest.mark.parametrize(("docker", "layer_type"), [(False, OCI_LAYER_GZIP), (True, DOCKER_LAYER_GZIP)])
def test_layers_go_on_top_typed_as_the_image_is(docker: bool, layer_type: str) -> None:
    """Manifest, diff_ids and history get one entry each, and the family's own type; Docker's has no annotations."""
    image = make_image(layers=2, docker=docker)

    result = derived(image)

    assert result.manifest.media_type == image.media_type
    assert result.manifest.layers[:2] == image.manifest.layers
    assert result.manifest.layers[2:] == (Descriptor(layer_type, LAYER.gzip_digest, 345),)
    assert result.config.diff_ids == (*(layer.diff_id for layer in image.layers), LAYER.tar_digest)
    assert len(result.config.history) == 3
    assert result.config.history[-1].created_by == "roadstead augment"
    assert result.config.labels[MARK] == str(PLAN.digest)
    assert result.manifest.annotations == ({} if docker else {MARK: str(PLAN.digest)})


def test_an_image_without_a_history_gets_none() -> None:
    """A history of the added layer alone would say that the image has one layer."""
    assert derived(make_image(history=False)).config.history == ()


@pytest.mark.parametrize(
    ("given", "plan", "wanted"),
    [
        ({}, Plan(env=(("A", "1"),)), {"Env": ["P=0", "A=1"], "Cmd": ["sh"]}),
        ({"Env": ["A=0", "B=2"]}, Plan(env=(("A", "1"),)), {"Env": ["A=1", "B=2"], "Cmd": ["sh"]}),
        ({}, Plan(env=(("A", "1"), ("P", "ü=x"))), {"Env": ["P=ü=x", "A=1"], "Cmd": ["sh"]}),
        ({}, Plan(entrypoint=("/x",)), {"Env": ["P=0"], "Cmd": ["sh"], "Entrypoint": ["/x"]}),
        (
            {"Entrypoint": ["/bin/a b", "é"]},
            Plan(entrypoint=("/x",)),
            {"Env": ["P=0", ENTRY_CHAIN + '=["/bin/a b","é"]'], "Cmd": ["sh"], "Entrypoint": ["/x"]},
        ),
        (
            {"Entrypoint": "/bin/a"},
            Plan(entrypoint=("/x",)),
            {"Env": ["P=0", ENTRY_CHAIN + '=["/bin/a"]'], "Cmd": ["sh"], "Entrypoint": ["/x"]},
        ),
        (
            {"Entrypoint": ["/a"]},
            Plan(entrypoint=("/x",), env=((ENTRY_CHAIN, "mine"),)),
            {"Env": ["P=0", ENTRY_CHAIN + "=mine"], "Cmd": ["sh"], "Entrypoint": ["/x"]},
        ),
        (
            {"Entrypoint": ["/a"]},
            Plan(entrypoint=()),
            {"Env": ["P=0", ENTRY_CHAIN + '=["/a"]'], "Cmd": ["sh"]},
        ),
        ({"Entrypoint": ["/a"]}, Plan(cmd=("b",)), {"Env": ["P=0"], "Cmd": ["b"], "Entrypoint": ["/a"]}),
        ({}, Plan(cmd=()), {"Env": ["P=0"]}),
        ({}, Plan(workdir="/w"), {"Env": ["P=0"], "Cmd": ["sh"], "WorkingDir": "/w"}),
        ({"Labels": {"a": "b"}, "Env": None, "Cmd": None}, Plan(env=(("A", "1"),)), {"Env": ["A=1"]}),
    ],
)
def test_the_environment_is_merged_by_name_and_the_rest_replaced(
    given: dict[str, Any], plan: Plan, wanted: dict[str, Any]
) -> None:
    """What the plan doesn't give stays; an entrypoint that is replaced is handed on; a cmd outlives the entrypoint."""
    image = make_image(config={"Env": ["P=0"], **given})

    result = config_of(derived(image, plan))["config"]

    labels = result.pop("Labels")
    assert labels.pop(MARK) == str(plan.digest)
    assert labels == given.get("Labels", {})
    assert {name: value for name, value in result.items() if value} == wanted


def test_what_we_do_not_know_stays() -> None:
    """Unknown members, their order and the other annotations survive."""
    image = make_image(config={"X-Unknown": {"z": 1, "a": [1.5]}}, annotations={"b": "2", "a": "1"})

    result = derived(image)

    assert config_of(result)["config"]["X-Unknown"] == {"z": 1, "a": [1.5]}
    assert list(config_of(result)) == list(json.loads(image.config))
    assert list(result.manifest.annotations) == ["b", "a", MARK]


def test_a_derived_image_is_never_derived_again() -> None:
    """Known by its config; a copy of one from elsewhere by having all that the plan gives."""
    plans = [
        PLAN,
        Plan(env=(("OTHER", "1"),)),
        Plan(entrypoint=("/x",), cmd=(), workdir="/w", labels=(("a", "b"),)),
        Plan(layers=(LAYER,), entrypoint=()),
    ]
    for plan in plans:
        once = derived(make_image(config={"Entrypoint": ["/a"]}), plan)

        assert derive_image(once.manifest, once.config, plan) is Unchanged.PRESENT
        assert derive_image(once.manifest, once.config, plan, made_here=True) is Unchanged.DERIVED


def test_a_mark_is_no_proof() -> None:
    """Whoever writes the label, with this plan's digest or another's, gets what the rule adds all the same."""
    for value in (str(PLAN.digest), "sha256:of-another-plan", ""):
        result = derived(make_image(config={"Labels": {MARK: value}}))

        assert result.manifest.layers[-1].digest == LAYER.gzip_digest
        assert "GREETING=hello" in result.config.env
        assert result.config.labels[MARK] == str(PLAN.digest)


def test_an_image_built_from_a_derived_one_gets_what_it_lacks() -> None:
    """The layers come on top again; its own entrypoint is what the wrapper runs, and the wrapper never runs itself."""
    plan = Plan(layers=(LAYER,), entrypoint=("/wrapper",))
    once = derived(make_image(config={"Entrypoint": ["/app"]}), plan).config
    labels = dict(once.labels)
    kept = make_image(config={"Entrypoint": ["/wrapper"], "Env": list(once.env), "Labels": labels})
    own = make_image(config={"Entrypoint": ["/own"], "Labels": labels})

    assert f'{ENTRY_CHAIN}=["/app"]' in derived(kept, plan).config.env
    assert f'{ENTRY_CHAIN}=["/own"]' in derived(own, plan).config.env


def test_an_image_that_ends_with_the_layers_stays() -> None:
    """A layer isn't put on twice, whoever put it there first; what the plan sets is set all the same."""
    image = make_image(layers=3)
    top = tuple(PlannedLayer(layer.digest, len(layer.raw), layer.diff_id) for layer in image.layers[1:])

    assert derive(image, Plan(layers=top)) is Unchanged.PRESENT
    lacking = derived(image, Plan(layers=top, env=(("A", "1"),)))
    assert lacking.manifest.layers == image.manifest.layers
    assert "A=1" in lacking.config.env
    assert isinstance(derive(image, Plan(layers=top[:1])), Image)
    assert isinstance(derive(image, Plan(env=(("A", "1"),))), Image)
    assert isinstance(derive(make_image(layers=0), Plan(layers=top)), Image)


def test_artifacts_stay() -> None:
    """Neither an artifact nor what only calls its config an image's is changed: signatures would break."""
    image = make_image()
    signature = json.loads(image.raw)
    signature["layers"][0]["mediaType"] = "application/vnd.dev.cosign.simplesigning.v1+json"
    parsed = parse_manifest(compact(signature), None)
    assert isinstance(parsed, ImageManifest)

    assert derive(make_attestation(image)) is Unchanged.ARTIFACT
    assert derive_image(parsed, ImageConfig.parse(image.config), PLAN) is Unchanged.ARTIFACT
    assert not is_runnable(make_artifact().manifest)


@pytest.mark.parametrize(
    ("platform", "plan", "served"),
    [
        ("linux/s390x", PLAN, True),
        ("windows/amd64", PLAN, False),
        ("windows/amd64", Plan(env=(("A", "1"),)), True),
        ("linux/arm64", Plan(layers=(ARM_LAYER,)), True),
        ("linux/amd64", Plan(layers=(ARM_LAYER,)), False),
    ],
)
def test_a_platform_without_layers_is_not_served(platform: str, plan: Plan, served: bool) -> None:
    """Never unchanged: an image is served with all its plan's layers or not at all."""
    outcome = derive(make_image(platform=platform), plan)

    assert isinstance(outcome, Image) == served
    assert served or outcome == NotServed((Platform.parse(platform),))


def test_the_index_knows_the_platform_better() -> None:
    """Engines choose by the index's entry; builders that cross-build leave wrong names in configs."""
    plan = Plan(layers=(ARM_LAYER,))

    assert isinstance(derive(make_image(platform="linux/amd64"), plan, Platform("linux", "arm64", "v8")), Image)


def test_a_config_of_another_image_is_refused() -> None:
    """Config and manifest must belong together, or digests would be made of a mix."""
    with pytest.raises(ImageInvalidError):
        derive_image(make_image().manifest, ImageConfig.parse(make_image(seed="other").config), PLAN)


def outcomes_of(index: TestIndex, plan: Plan) -> list[Any]:
    outcomes: list[Any] = []
    for child in index.children:
        assert isinstance(child, TestImage)
        outcome = derive(child, plan, child.platform)
        outcomes.append(outcome.manifest if isinstance(outcome, Image) else outcome)
    return outcomes


def test_an_index_keeps_everything_but_what_was_derived() -> None:
    """Entries keep order, platform and annotations; an attestation stays, a platform without layers goes."""
    amd64, arm64 = make_image(), make_image(platform="linux/arm64/v8")
    windows = make_image(platform="windows/amd64")
    index = make_index([amd64, make_attestation(amd64), windows, arm64], annotations={"a": "b"})

    result = derive_index(index.index, outcomes_of(index, PLAN), PLAN)

    assert isinstance(result, ImageIndex)
    entries = result.manifests
    assert [str(entry.platform) for entry in entries] == ["linux/amd64", "unknown/unknown", "linux/arm64/v8"]
    assert entries[0].digest == derived(amd64).manifest.digest
    assert entries[0].size == derived(amd64).manifest.size
    assert entries[1] == index.index.manifests[1]
    assert entries[2].digest == derived(arm64).manifest.digest
    assert result.annotations == {"a": "b", MARK: str(PLAN.digest)}


def test_each_platform_gets_its_variant() -> None:
    """One slot, two variants: each image gets its own."""
    plan = Plan(layers=(AMD_LAYER, ARM_LAYER))
    index = make_index([make_image(), make_image(platform="linux/arm64/v8"), make_image(platform="linux/arm")])

    outcomes = outcomes_of(index, plan)

    assert [outcome.layers[-1].digest for outcome in outcomes[:2]] == [AMD_LAYER.gzip_digest, ARM_LAYER.gzip_digest]
    assert outcomes[2] == NotServed((Platform("linux", "arm"),))


def test_a_docker_list_has_no_annotations() -> None:
    """Docker's list stays a Docker list, without members it doesn't have."""
    index = make_index([make_image(docker=True)], docker=True)

    result = derive_index(index.index, outcomes_of(index, PLAN), PLAN)

    assert isinstance(result, ImageIndex)
    assert result.media_type == index.media_type
    assert set(json.loads(result.raw)) == {"schemaVersion", "mediaType", "manifests"}


A, B = Platform("windows", "amd64"), Platform("freebsd", "amd64")
MANIFEST = make_image().manifest


@pytest.mark.parametrize(
    ("outcomes", "wanted"),
    [
        ([Unchanged.ARTIFACT, Unchanged.ARTIFACT], Unchanged.ARTIFACT),
        ([Unchanged.DERIVED, Unchanged.ARTIFACT], Unchanged.DERIVED),
        ([Unchanged.PRESENT, Unchanged.DERIVED], Unchanged.DERIVED),
        ([Unchanged.PRESENT, Unchanged.OTHER_PLATFORM], Unchanged.OTHER_PLATFORM),
        ([NotServed((A,)), NotServed((B,))], NotServed((A, B))),
        ([NotServed((A,)), Unchanged.ARTIFACT], NotServed((A,))),
        ([NotServed((A,)), Unchanged.DERIVED], 1),
        ([NotServed((A,)), MANIFEST], 1),
        ([MANIFEST, Unchanged.DERIVED], 2),
        ([MANIFEST, Unchanged.OTHER_PLATFORM], 2),
        ([MANIFEST, Unchanged.ARTIFACT], 2),
    ],
)
def test_what_becomes_of_an_index(outcomes: list[Any], wanted: object) -> None:
    """All outcomes of two entries: unchanged as a whole, not served as a whole, or so many entries left."""
    index = make_index([make_image(seed="1"), make_image(seed="2")]).index

    result = derive_index(index, outcomes, PLAN)

    assert (len(result.manifests) if isinstance(result, ImageIndex) else result) == wanted


def test_an_empty_index_stays() -> None:
    """Nothing in it, nothing to change."""
    assert derive_index(make_index([]).index, [], PLAN) is Unchanged.ARTIFACT


strings = st.text(st.characters(exclude_characters="\0=", exclude_categories=["Cs"]), min_size=1, max_size=6)


@UNHURRIED
@given(
    layers=st.integers(0, 2),
    docker=st.booleans(),
    env=st.lists(st.builds("{}={}".format, strings, strings), max_size=3),
    added=st.dictionaries(strings, strings, max_size=3),
    entrypoint=st.none() | st.lists(strings, max_size=2).map(tuple),
)
def test_same_inputs_same_digests(
    layers: int, docker: bool, env: list[str], added: dict[str, str], entrypoint: tuple[str, ...] | None
) -> None:
    """Whatever the image and the plan: the result is the same again, valid, marked, and has each name of env once."""
    image = make_image(layers=layers, size=10, docker=docker, config={"Env": env, "Entrypoint": ["/a"]})
    plan = Plan(layers=(LAYER,), env=tuple(added.items()), entrypoint=entrypoint)

    one, other = derived(image, plan), derived(image, Plan.parse(plan.canonical()))

    assert (one.manifest.raw, one.config.raw) == (other.manifest.raw, other.config.raw)
    assert parse_manifest(one.manifest.raw, one.manifest.media_type) == one.manifest
    assert one.manifest.config.size == len(one.config.raw)
    assert one.manifest.config.digest == Digest.of(one.config.raw)
    assert derive_image(one.manifest, one.config, plan) is Unchanged.PRESENT
    for name, value in added.items():
        assert [entry for entry in one.config.env if entry.partition("=")[0] == name] == [f"{name}={value}"]


planned = st.builds(
    lambda name, compression: PlannedLayer(
        Digest.of(f"gzip {name}".encode()), 10, Digest.of(f"tar {name}".encode()), compression=compression
    ),
    st.integers(0, 5),
    st.sampled_from(Compression),
)


@UNHURRIED
@given(
    count=st.integers(0, 3),
    docker=st.booleans(),
    history=st.booleans(),
    added=st.lists(planned, max_size=3).map(tuple),
    labels=st.dictionaries(strings, strings, max_size=2),
    profile=st.sampled_from(Profile),
)
def test_the_laws_of_rewriting(
    count: int,
    docker: bool,
    history: bool,
    added: tuple[PlannedLayer, ...],
    labels: dict[str, str],
    profile: Profile,
) -> None:
    """Layers are appended and nothing below them moves; diff_ids, layers and history agree; once is enough."""
    image = make_image(layers=count, size=10, docker=docker, history=history)
    plan = Plan(layers=added, env=(("A", "1"),), labels=tuple(labels.items()), profile=profile)
    before = ImageConfig.parse(image.config)

    result = derived(image, plan)

    layers, config = result.manifest.layers, result.config
    assert layers[:count] == image.manifest.layers
    assert config.diff_ids[:count] == before.diff_ids
    assert [layer.digest for layer in layers[count:]] == [layer.gzip_digest for layer in added]
    assert list(config.diff_ids[count:]) == [layer.tar_digest for layer in added]
    family = "vnd.docker." if docker or profile is Profile.WAVE else "vnd.oci."
    assert all(family in layer.media_type for layer in layers[count:])
    assert all(config.labels[name] == value for name, value in labels.items())
    if profile is Profile.NATIVE:
        assert len([entry for entry in config.history if not entry.empty_layer]) in {0, len(layers)}
        again = derive_image(result.manifest, config, plan)
        assert again is Unchanged.PRESENT
    else:
        assert config.history == before.history
    assert derive_image(result.manifest, config, plan, made_here=True) is Unchanged.DERIVED
