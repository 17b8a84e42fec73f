"""Manifests and indexes: which bytes are one, of which kind, and what they refer to."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.oci.digest import Digest
from roadstead.oci.manifest import (
    ImageIndex,
    ImageManifest,
    ManifestInvalidError,
    ManifestUnsupportedError,
    Schema1UnsupportedError,
    parse_image,
    parse_index,
    parse_manifest,
)
from roadstead.oci.mediatypes import (
    DOCKER_CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCKER_SCHEMA1,
    DOCKER_SCHEMA1_SIGNED,
    OCI_ARTIFACT_MANIFEST,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
)


def pointer(media_type: str, fill: str, size: int = 7, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": "sha256:" + fill * 64, "size": size, **more}


IMAGE = {
    "schemaVersion": 2,
    "mediaType": OCI_MANIFEST,
    "config": pointer(OCI_CONFIG, "a"),
    "layers": [pointer(OCI_LAYER_GZIP, "b"), pointer(OCI_LAYER_GZIP, "c")],
}
INDEX = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [pointer(OCI_MANIFEST, "d")]}
DOCKER_IMAGE = {
    "schemaVersion": 2,
    "mediaType": DOCKER_MANIFEST,
    "config": pointer(DOCKER_CONFIG, "a"),
    "layers": [pointer(DOCKER_LAYER_GZIP, "b")],
}
EMPTY = pointer(OCI_EMPTY, "4", 2)


def encoded(document: object) -> bytes:
    return json.dumps(document, indent=3).encode()


def test_an_image_keeps_its_bytes() -> None:
    """Digest and size are those of the bytes as they came, white space and all."""
    raw = encoded(IMAGE)
    manifest = parse_image(raw, f"{OCI_MANIFEST}; charset=utf-8")

    assert (manifest.raw, manifest.size, manifest.digest) == (raw, len(raw), Digest.of(raw))
    assert manifest.media_type == OCI_MANIFEST
    assert manifest.is_image
    assert [blob.digest.encoded[0] for blob in manifest.references()] == ["a", "b", "c"]
    assert manifest.descriptor().as_json() == {
        "mediaType": OCI_MANIFEST,
        "digest": str(Digest.of(raw)),
        "size": len(raw),
    }


def test_an_index_lists_its_children() -> None:
    """Their platforms are read; an index without entries is one too."""
    platform = {"architecture": "arm64", "os": "linux", "variant": "v8"}
    index = parse_index(encoded(INDEX | {"manifests": [pointer(OCI_MANIFEST, "d", platform=platform)]}), OCI_INDEX)

    assert [str(child.platform) for child in index.references()] == ["linux/arm64/v8"]
    assert index.descriptor().size == index.size
    for manifests in ([], None):
        assert parse_index(encoded(INDEX | {"manifests": manifests}), None).manifests == ()


@pytest.mark.parametrize(
    ("document", "announced", "expected"),
    [
        (IMAGE, OCI_MANIFEST, OCI_MANIFEST),
        (IMAGE, None, OCI_MANIFEST),
        (IMAGE, "", OCI_MANIFEST),
        (INDEX, None, OCI_INDEX),
        (DOCKER_IMAGE, DOCKER_MANIFEST, DOCKER_MANIFEST),
        (DOCKER_IMAGE, None, DOCKER_MANIFEST),
        (INDEX | {"mediaType": DOCKER_LIST}, DOCKER_LIST, DOCKER_LIST),
        ({k: v for k, v in IMAGE.items() if k != "mediaType"}, OCI_MANIFEST, OCI_MANIFEST),
        ({k: v for k, v in IMAGE.items() if k != "mediaType"}, None, OCI_MANIFEST),
        ({k: v for k, v in INDEX.items() if k != "mediaType"}, None, OCI_INDEX),
        (IMAGE | {"layers": []}, OCI_MANIFEST, OCI_MANIFEST),
        (IMAGE | {"layers": None}, OCI_MANIFEST, OCI_MANIFEST),
        ({k: v for k, v in IMAGE.items() if k != "layers"}, OCI_MANIFEST, OCI_MANIFEST),
        (IMAGE | {"config": EMPTY, "artifactType": "a/b"}, OCI_MANIFEST, OCI_MANIFEST),
        (IMAGE | {"x-unknown": {"a": [1]}, "annotations": None}, OCI_MANIFEST, OCI_MANIFEST),
        (IMAGE | {"manifests": None}, OCI_MANIFEST, OCI_MANIFEST),
    ],
)
def test_what_is_accepted_and_as_what(document: dict[str, Any], announced: str | None, expected: str) -> None:
    """The header decides, then the member, then the shape; lists may be absent, unknown members are kept."""
    raw = encoded(document)
    manifest = parse_manifest(raw, announced)

    assert manifest.media_type == expected
    assert manifest.raw == raw
    assert isinstance(manifest, ImageIndex if expected in {OCI_INDEX, DOCKER_LIST} else ImageManifest)


@pytest.mark.parametrize(
    ("document", "announced", "reason"),
    [
        (IMAGE, OCI_INDEX, "it came as"),
        (INDEX, OCI_MANIFEST, "it came as"),
        (IMAGE, DOCKER_MANIFEST, "it came as"),
        (IMAGE | {"mediaType": 1}, OCI_MANIFEST, "mediaType is a number"),
        (IMAGE | {"mediaType": f"{OCI_MANIFEST};x"}, OCI_MANIFEST, "it came as"),
        (IMAGE | {"MediaType": OCI_INDEX}, OCI_MANIFEST, "differs only in case"),
        (IMAGE | {"Manifests": []}, OCI_MANIFEST, "differs only in case"),
        (IMAGE | {"manifests": []}, OCI_MANIFEST, "an image manifest with manifests"),
        (IMAGE | {"fsLayers": []}, OCI_MANIFEST, "with fsLayers"),
        (IMAGE | {"history": []}, OCI_MANIFEST, "with history"),
        (INDEX | {"config": EMPTY}, OCI_INDEX, "an index with config"),
        (INDEX | {"layers": []}, OCI_INDEX, "an index with layers"),
        ({k: v for k, v in (IMAGE | INDEX).items() if k != "mediaType"}, None, "with manifests"),
        ({k: v for k, v in DOCKER_IMAGE.items() if k != "mediaType"}, DOCKER_MANIFEST, "mediaType is absent"),
        ({"schemaVersion": 2}, None, "neither a config nor manifests"),
        ({"schemaVersion": 2}, OCI_MANIFEST, "config is absent"),
        ({"schemaVersion": 2}, OCI_INDEX, "manifests is absent"),
        (IMAGE | {"schemaVersion": 3}, OCI_MANIFEST, "schemaVersion is 3"),
        (IMAGE | {"schemaVersion": "2"}, OCI_MANIFEST, "schemaVersion is 2, not"),
        (IMAGE | {"schemaVersion": 2.0}, OCI_MANIFEST, "schemaVersion is 2.0"),
        (IMAGE | {"schemaVersion": True}, OCI_MANIFEST, "schemaVersion is True"),
        ({k: v for k, v in IMAGE.items() if k != "schemaVersion"}, OCI_MANIFEST, "schemaVersion is None"),
        (IMAGE | {"config": None}, OCI_MANIFEST, "config is absent"),
        (IMAGE | {"config": []}, OCI_MANIFEST, "config: it is an array"),
        (IMAGE | {"config": EMPTY}, OCI_MANIFEST, "artifactType is absent"),
        (IMAGE | {"config": EMPTY, "artifactType": ""}, OCI_MANIFEST, "artifactType is absent"),
        (IMAGE | {"layers": {}}, OCI_MANIFEST, "layers is an object"),
        (IMAGE | {"layers": [EMPTY, {}]}, OCI_MANIFEST, "layers[1]: size"),
        (IMAGE | {"layers": [EMPTY | {"size": -1}]}, OCI_MANIFEST, "layers[0]: size -1"),
        (IMAGE | {"layers": [EMPTY | {"digest": "sha256:x"}]}, OCI_MANIFEST, "layers[0]: digest"),
        (IMAGE | {"subject": "sha256:x"}, OCI_MANIFEST, "subject: it is a string"),
        (IMAGE | {"annotations": {"a": 1}}, OCI_MANIFEST, "annotations has a number"),
        (IMAGE | {"artifactType": 1}, OCI_MANIFEST, "artifactType"),
        (INDEX | {"manifests": [1]}, OCI_INDEX, "manifests[0]: it is a number"),
        ([], OCI_MANIFEST, "expected an object"),
    ],
)
def test_what_is_refused_and_why(document: object, announced: str | None, reason: str) -> None:
    """One kind can't pass as another (CVE-2021-41190), and the message says where it is wrong."""
    with pytest.raises(ManifestInvalidError) as caught:
        parse_manifest(encoded(document), announced)

    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("document", "announced"),
    [
        ({"schemaVersion": 1, "fsLayers": [], "history": []}, DOCKER_SCHEMA1),
        ({"schemaVersion": 1, "fsLayers": [], "history": []}, DOCKER_SCHEMA1_SIGNED),
        ({"schemaVersion": 1, "fsLayers": [], "history": []}, None),
        (IMAGE | {"schemaVersion": 1}, OCI_MANIFEST),
    ],
)
def test_schema_1_is_refused_by_name(document: dict[str, Any], announced: str | None) -> None:
    """People with such images are told what to do."""
    with pytest.raises(Schema1UnsupportedError) as caught:
        parse_manifest(encoded(document), announced)

    assert "skopeo" in caught.value.advice()


@pytest.mark.parametrize("announced", [OCI_ARTIFACT_MANIFEST, "application/json", "text/plain", "x" * 500])
def test_other_media_types_are_refused_by_name(announced: str) -> None:
    """The withdrawn artifact manifest is one of them."""
    with pytest.raises(ManifestUnsupportedError) as caught:
        parse_manifest(encoded({k: v for k, v in IMAGE.items() if k != "mediaType"}), announced)

    assert caught.value.media_type == announced
    assert OCI_MANIFEST in caught.value.advice()


@pytest.mark.parametrize(
    "raw",
    [
        b'{"schemaVersion":2,"mediaType":"%b","mediaType":"%b"}' % (OCI_MANIFEST.encode(), OCI_INDEX.encode()),
        b"\xef\xbb\xbf" + encoded(IMAGE),
        encoded(IMAGE) + b"{}",
        b'{"schemaVersion":NaN}',
        b"[" * 100_000,
        b"\xff",
        b"",
    ],
    ids=["twice", "bom", "trailing", "nan", "deep", "utf-8", "empty"],
)
def test_json_that_is_not_strict_is_refused(raw: bytes) -> None:
    """As an invalid manifest."""
    with pytest.raises(ManifestInvalidError, match="strict JSON"):
        parse_manifest(raw, OCI_MANIFEST)


@given(st.binary(max_size=40), st.none() | st.sampled_from([OCI_MANIFEST, DOCKER_LIST, ""]))
def test_whatever_comes_one_error_at_the_most(raw: bytes, announced: str | None) -> None:
    """No input raises anything but ManifestInvalidError."""
    with pytest.raises(ManifestInvalidError):
        parse_manifest(raw, announced)


values = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just([]) | st.just({}) | st.just([{}])


@given(st.dictionaries(st.sampled_from([*IMAGE, *INDEX, "subject", "annotations", "artifactType"]), values))
def test_members_of_any_type_are_read_or_refused(change: dict[str, Any]) -> None:
    """A member of the wrong type is never met by a foreign exception."""
    raw = json.dumps(IMAGE | change).encode()
    with suppress(ManifestInvalidError):
        assert parse_manifest(raw, None).raw == raw


def test_an_image_asked_for_is_not_an_index() -> None:
    """Nor the other way round."""
    with pytest.raises(ManifestInvalidError):
        parse_image(encoded(INDEX), None)
    with pytest.raises(ManifestInvalidError):
        parse_index(encoded(IMAGE), None)


@pytest.mark.parametrize(
    ("document", "artifact_type", "annotations"),
    [
        (IMAGE, OCI_CONFIG, None),
        (IMAGE | {"artifactType": "a/b"}, "a/b", None),
        (IMAGE | {"artifactType": "", "annotations": {}}, OCI_CONFIG, None),
        (IMAGE | {"config": pointer("c/d", "e"), "annotations": {"k": "v"}}, "c/d", {"k": "v"}),
        (INDEX, None, None),
        (INDEX | {"artifactType": "a/b", "annotations": {"k": "v"}}, "a/b", {"k": "v"}),
    ],
)
def test_what_the_referrers_list_shows(
    document: dict[str, Any], artifact_type: str | None, annotations: dict[str, str] | None
) -> None:
    """The artifact type falls back to the config's for images; annotations are copied (end-12a)."""
    raw = encoded(document | {"subject": pointer(OCI_MANIFEST, "f")})
    manifest = parse_manifest(raw, None)
    listed = manifest.referrer_descriptor().as_json()

    assert manifest.subject is not None
    assert manifest.subject.digest.encoded == "f" * 64
    assert manifest.subject not in manifest.references()
    assert listed["digest"] == str(Digest.of(raw))
    assert (listed.get("artifactType"), listed.get("annotations")) == (artifact_type, annotations)


def test_an_artifact_is_not_an_image() -> None:
    """Only an image config makes one that can run."""
    assert parse_image(encoded(DOCKER_IMAGE), None).is_image
    assert not parse_image(encoded(IMAGE | {"config": EMPTY, "artifactType": "a/b"}), None).is_image
