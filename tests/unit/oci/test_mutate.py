"""New images from old ones: what changes, what stays, and the digests that come of it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Algorithm, Digest
from roadstead.oci.image_config import ImageConfig
from roadstead.oci.layer import PackedLayer
from roadstead.oci.manifest import ImageIndex, parse_image, parse_index
from roadstead.oci.mediatypes import (
    DOCKER_CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    OCI_LAYER_TAR,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
)
from roadstead.oci.mutate import (
    AddedLayer,
    Change,
    ChangeInvalidError,
    Image,
    ImageInvalidError,
    apply,
    with_cmd,
    with_entrypoint,
    with_env,
    with_labels,
    with_layers,
    with_manifests,
    with_workdir,
)
from roadstead.oci.strict_json import compact


def of(fill: str) -> Digest:
    return Digest(Algorithm.SHA256, fill * 64)


BASE_CONFIG = compact(
    {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/bin"], "Entrypoint": ["/bin/tool", "--flag"], "Cmd": ["run"]},
        "rootfs": {"type": "layers", "diff_ids": [str(of("1"))]},
    }
)
BASE_LAYER = {"mediaType": OCI_LAYER_GZIP, "digest": str(of("2")), "size": 1000}
ADDED = AddedLayer.of(PackedLayer(of("b"), 345, of("a"), 10240))


def an_image(
    config: bytes = BASE_CONFIG,
    layers: tuple[dict[str, Any], ...] = (BASE_LAYER,),
    *,
    docker: bool = False,
    config_type: str | None = None,
) -> Image:
    """An image of that config, written compactly in the order that builders use."""
    pointer = {
        "mediaType": config_type or (DOCKER_CONFIG if docker else OCI_CONFIG),
        "digest": str(Digest.of(config)),
        "size": len(config),
    }
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    raw = compact({"schemaVersion": 2, "mediaType": media_type, "config": pointer, "layers": [*layers]})
    return Image(parse_image(raw, media_type), ImageConfig.parse(config))


def config_with(**settings: Any) -> Image:
    document = json.loads(BASE_CONFIG)
    document["config"] = settings
    return an_image(compact(document))


def settings_of(image: Image) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(image.config.raw)["config"]
    return settings


def test_the_golden_image() -> None:
    """The documents of a known image, and the config it has to become, to the byte."""
    image = an_image()
    assert str(image.config.digest).startswith("sha256:afd08913")
    assert (image.manifest.size, str(image.manifest.digest)[:15]) == (402, "sha256:84564c9d")

    changed = apply(
        image,
        Change(
            layers=(ADDED,),
            env=("FOO=bar", 'WAVE_ENTRY_CHAIN=["/bin/tool","--flag"]'),
            entrypoint=("/opt/fusion/entry.sh",),
        ),
    )

    assert changed.config.size == 368
    assert str(changed.config.digest) == "sha256:788954f87c6510a6b9360fe49b07e8d5e446cd59f70df93f48f56b3398a1db78"
    assert str(changed.manifest.digest) == "sha256:c8efec634735632768e5ebabb693b63c51d81b63bf42d59becc2f66417e4cf26"
    assert changed.manifest.layers[1] == Descriptor(OCI_LAYER_GZIP, of("b"), 345)


def test_the_golden_index() -> None:
    """Only the entry that was replaced changes, and in it only where it points."""
    linux = {"architecture": "amd64", "os": "linux"}
    arm = {"architecture": "arm64", "os": "linux", "variant": "v8"}
    index = an_index(
        {"mediaType": OCI_MANIFEST, "digest": str(an_image().manifest.digest), "size": 402, "platform": linux},
        {"mediaType": OCI_MANIFEST, "digest": str(of("3")), "size": 700, "platform": arm},
    )
    assert (index.size, str(index.digest)[:15]) == (506, "sha256:10f5ca88")

    target = Descriptor(
        OCI_MANIFEST, Digest.parse("sha256:9c327af5cb9db1fcb8da246aa324663dbb8d7d201cdf672711bf0d44df28d7c9"), 562
    )
    changed = with_manifests(index, {0: target})

    assert str(changed.digest) == "sha256:6b5fa51f8dc72b1231de181f31e9d15cf5f4dbbd7a6732b4751f546e3e21dd4d"


def an_index(*entries: dict[str, Any], **more: Any) -> ImageIndex:
    media_type = "application/vnd.oci.image.index.v1+json"
    return parse_index(compact({"schemaVersion": 2, "mediaType": media_type, "manifests": [*entries]} | more), None)


def test_history_is_kept_and_grows() -> None:
    """One entry a layer, at the time that was given."""
    document = json.loads(BASE_CONFIG) | {"history": [{"created": "2024-01-01T00:00:00Z", "comment": "base"}]}
    image = an_image(compact(document))
    changed = with_layers(image, [ADDED, ADDED], created=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC))

    assert json.loads(changed.config.raw)["history"] == [
        {"created": "2024-01-01T00:00:00Z", "comment": "base"},
        {"created": "2030-01-02T03:04:05Z", "created_by": "roadstead"},
        {"created": "2030-01-02T03:04:05Z", "created_by": "roadstead"},
    ]
    assert changed.config.diff_ids == (of("1"), of("a"), of("a"))


def test_a_history_that_is_absent_stays_absent() -> None:
    """Unless there is nothing yet that it would leave out."""
    empty = compact({"os": "linux", "architecture": "amd64"})

    assert with_layers(an_image(), [ADDED]).config.history == ()
    assert [entry.created for entry in with_layers(an_image(empty, ()), [ADDED]).config.history] == [
        "1970-01-01T00:00:00Z"
    ]


@pytest.mark.parametrize(
    ("docker", "given", "expected"),
    [
        (False, OCI_LAYER_GZIP, OCI_LAYER_GZIP),
        (False, DOCKER_LAYER_GZIP, OCI_LAYER_GZIP),
        (True, OCI_LAYER_GZIP, DOCKER_LAYER_GZIP),
        (True, OCI_LAYER_TAR, "application/vnd.docker.image.rootfs.diff.tar"),
        (True, OCI_LAYER_ZSTD, "application/vnd.docker.image.rootfs.diff.tar.zstd"),
    ],
)
def test_layers_are_typed_as_their_manifest_types_them(docker: bool, given: str, expected: str) -> None:
    """An OCI type in a Docker manifest isn't known to every engine."""
    changed = with_layers(an_image(docker=docker), [AddedLayer(Descriptor(given, of("b"), 1), of("a"))])

    assert changed.manifest.layers[-1].media_type == expected
    assert changed.manifest.media_type == (DOCKER_MANIFEST if docker else OCI_MANIFEST)


def test_what_is_unknown_stays_in_its_place() -> None:
    """In the manifest, the config and the pointer between them; embedded content, which is the old one's, goes."""
    config = b'{"x-first": {"b": 1, "a": [2.5, null]}, "os": "linux", "config": null, "x-last": "\xc3\xa4"}'
    pointer = {"x-p": 1, "size": len(config), "data": "e30=", "digest": str(Digest.of(config)), "mediaType": OCI_CONFIG}
    document = {"x-top": [1], "config": pointer, "schemaVersion": 2, "annotations": {"k": "v"}}
    raw = json.dumps(document, indent=2).encode()
    image = Image(parse_image(raw, OCI_MANIFEST), ImageConfig.parse(config))
    changed = with_workdir(image, "/ä")

    assert changed.config.raw == (
        '{"x-first":{"b":1,"a":[2.5,null]},"os":"linux","config":{"WorkingDir":"/ä"},"x-last":"ä"}'.encode()
    )
    pointer |= {"size": changed.config.size, "digest": str(changed.config.digest)}
    del pointer["data"]
    assert changed.manifest.raw == compact(document)


@pytest.mark.parametrize(
    ("before", "given", "after"),
    [
        (["A=1"], ["B=2"], ["A=1", "B=2"]),
        (["A=1", "B=2"], ["A=3"], ["A=3", "B=2"]),
        (["A=1"], ["B=2", "A=", "C=x=y"], ["A=", "B=2", "C=x=y"]),
        (["A=1", "B=2", "A=3"], ["A=4"], ["A=4", "B=2"]),
        (["A=1", "B=2", "A=3"], ["B=5"], ["A=1", "B=5", "A=3"]),
        (["odd", "=odder"], ["A=1"], ["odd", "=odder", "A=1"]),
        (["a=1"], ["A=1"], ["a=1", "A=1"]),
        ([], ["A=1", "A=2"], ["A=2"]),
        (None, ["A=ä b"], ["A=ä b"]),
    ],
)
def test_environment_is_set_by_name(before: list[str] | None, given: list[str], after: list[str]) -> None:
    """Names keep their place, new ones follow; of one name given twice the last wins."""
    assert settings_of(with_env(config_with(Env=before), given))["Env"] == after


@pytest.mark.parametrize("entry", ["A", "=1", "", "A=\x00", "A=\ud800"])
def test_environment_without_a_name_or_value_is_refused(entry: str) -> None:
    """As is what can't be written."""
    with pytest.raises(ChangeInvalidError):
        with_env(an_image(), [entry])


def test_commands_directories_and_labels_are_replaced() -> None:
    """The entry point doesn't take the command along; empty takes away; labels merge."""
    image = config_with(Entrypoint="/bin/sh -c", Cmd=["x"], WorkingDir="/a", Labels={"b": "1", "c": "2"})

    assert settings_of(with_entrypoint(image, ["/e", "f"])) == settings_of(image) | {"Entrypoint": ["/e", "f"]}
    assert "Entrypoint" not in settings_of(with_entrypoint(image, []))
    assert settings_of(with_cmd(image, ["y"]))["Cmd"] == ["y"]
    assert "Cmd" not in settings_of(with_cmd(image, []))
    assert settings_of(with_workdir(image, "/w"))["WorkingDir"] == "/w"
    assert "WorkingDir" not in settings_of(with_workdir(image, ""))
    assert list(settings_of(with_labels(image, {"z": "9", "b": "3", "a": "4"}))["Labels"].items()) == [
        ("b", "3"),
        ("c", "2"),
        ("a", "4"),
        ("z", "9"),
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda image: apply(image, Change()),
        lambda image: with_layers(image, []),
        lambda image: with_env(image, []),
        lambda image: with_env(image, ["PATH=/usr/bin"]),
        lambda image: with_entrypoint(image, ["/bin/tool", "--flag"]),
        lambda image: with_workdir(image, ""),
        lambda image: with_labels(image, {}),
    ],
)
def test_no_change_changes_no_byte(change: Callable[[Image], Image]) -> None:
    """Even where the documents aren't written as we would write them."""
    config = json.dumps(json.loads(BASE_CONFIG), indent=3).encode()
    image = an_image(config)

    assert change(image) is image


def test_parts_that_do_not_belong_together_are_no_image() -> None:
    """Another config, a config that isn't one, layers that aren't counted."""
    image = an_image()
    with pytest.raises(ImageInvalidError, match="its config is sha256:"):
        Image(image.manifest, ImageConfig.parse(b"{}"))
    with pytest.raises(ImageInvalidError, match="2 layers and 1 diff_ids"):
        an_image(BASE_CONFIG, (BASE_LAYER, BASE_LAYER))
    with pytest.raises(ImageInvalidError, match="of type a/b"):
        an_image(config_type="a/b")


def test_a_time_without_a_zone_is_refused() -> None:
    """It would be another moment on every machine."""
    image = an_image(compact({"os": "linux"}), ())
    with pytest.raises(ChangeInvalidError, match="zone"):
        with_layers(image, [ADDED], created=datetime(2030, 1, 1))  # noqa: DTZ001  (that is what is refused)


def test_index_entries_are_dropped_and_kept() -> None:
    """Attestations stay as they are; the entry that stays keeps what it says."""
    attestation = {
        "mediaType": OCI_MANIFEST,
        "digest": str(of("5")),
        "size": 1,
        "annotations": {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": str(of("4")),
        },
        "platform": {"architecture": "unknown", "os": "unknown"},
    }
    image = {"mediaType": OCI_MANIFEST, "digest": str(of("4")), "size": 2, "x-k": "v", "data": "e30="}
    index = an_index(image, image | {"digest": str(of("6"))}, attestation, annotations={"a": "b"})
    changed = with_manifests(index, {0: Descriptor(DOCKER_MANIFEST, of("7"), 9), 1: None})

    assert json.loads(changed.raw) == json.loads(index.raw) | {
        "manifests": [{"mediaType": DOCKER_MANIFEST, "digest": str(of("7")), "size": 9, "x-k": "v"}, attestation]
    }
    assert changed.manifests[1].is_attestation


def test_an_index_left_alone_is_the_same() -> None:
    """Also when an entry is made to point where it points."""
    index = an_index({"mediaType": OCI_MANIFEST, "digest": str(of("4")), "size": 2, "data": "e30="})

    assert with_manifests(index, {}) is index
    assert with_manifests(index, {0: Descriptor(OCI_MANIFEST, of("4"), 2)}) is index
    assert with_manifests(index, {0: None}).manifests == ()
    for position in (-1, 1):
        with pytest.raises(ChangeInvalidError, match="none at position"):
            with_manifests(index, {position: None})


layers = st.builds(
    AddedLayer, st.sampled_from([ADDED.descriptor, Descriptor(OCI_LAYER_TAR, of("c"), 1)]), st.just(of("d"))
)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=6)
entries = st.tuples(st.sampled_from("ABC"), texts).map("=".join)
changes = st.builds(
    Change,
    layers=st.lists(layers, max_size=3).map(tuple),
    env=st.lists(entries, max_size=3).map(tuple),
    entrypoint=st.none() | st.lists(texts, max_size=2).map(tuple),
    cmd=st.none() | st.lists(texts, max_size=2).map(tuple),
    workdir=st.none() | texts,
    labels=st.dictionaries(texts, texts, max_size=2),
)


@settings(deadline=None)  # each example parses a dozen documents, and a machine may be busy
@given(changes, st.booleans(), st.sampled_from([None, [], [{"created_by": "base"}]]))
def test_any_change_leaves_a_sound_image(change: Change, docker: bool, history: list[Any] | None) -> None:
    """It decodes, counts as many layers as diff_ids, says what was asked, and comes out the same again."""
    document = json.loads(BASE_CONFIG) | ({} if history is None else {"history": history})
    image = an_image(compact(document), docker=docker)
    changed = apply(image, change)

    assert apply(image, change) == changed
    assert parse_image(changed.manifest.raw, image.manifest.media_type) == changed.manifest
    assert ImageConfig.parse(changed.config.raw) == changed.config
    assert (changed.manifest.config.digest, changed.manifest.config.size) == (
        changed.config.digest,
        changed.config.size,
    )
    assert len(changed.manifest.layers) == len(changed.config.diff_ids) == 1 + len(change.layers)
    assert set(dict(entry.partition("=")[::2] for entry in change.env).items()) <= {
        entry.partition("=")[::2] for entry in changed.config.env
    }
    assert change.labels.items() <= changed.config.labels.items()
    if change.entrypoint is not None:
        assert (changed.config.entrypoint or ()) == change.entrypoint
