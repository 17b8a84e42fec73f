"""Distribution's tree, read: links, tags, and manifests that nothing names the type of."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.oci import mediatypes
from roadstead.oci.digest import Algorithm, Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.ports import ReferenceKind
from roadstead.registry.tree import (
    NotAManifestError,
    Tree,
    fallback_subject,
    parse_link,
    parse_link_path,
    read_manifest,
)
from roadstead.storage import keys
from roadstead.storage.drivers.memory import MemoryDriver
from roadstead.storage.ports import Key
from roadstead.testing.images import make_image

ONE, TWO = Digest.of(b"1"), Digest.of(b"2")
APP = RepositoryName("team/app")


async def put(driver: MemoryDriver, key: str, content: bytes) -> None:
    async with driver.write(Key(key)) as handle:
        await handle.append(content)
        await handle.commit()


@pytest.mark.parametrize(
    "content",
    [None, b"", b"sha256:12", str(ONE).encode() + b"\n", b"\0" * 71, "sha256:é".encode(), b"md5:" + b"0" * 32],
)
def test_a_damaged_link_is_none(content: bytes | None) -> None:
    """Whatever isn't a digest to the last byte."""
    assert parse_link(content) is None


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_link_is_a_digest(algorithm: Algorithm) -> None:
    """Its content, and the end of its path."""
    digest = Digest.of(b"x", algorithm)

    assert parse_link(str(digest).encode()) == digest
    assert parse_link_path(f"{algorithm}/{digest.encoded}/link") == digest
    assert parse_link_path(f"{algorithm}/{digest.encoded}/signatures") is None
    assert parse_link_path(f"{algorithm}/12/link") is None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_link_or_none(content: bytes) -> None:
    """No content raises; what is a link prints as it was."""
    digest = parse_link(content)

    assert digest is None or str(digest).encode() == content


@pytest.mark.parametrize(
    ("tag", "subject"),
    [(f"sha256-{ONE.encoded}", ONE), (f"sha256-{ONE.encoded}.sig", None), ("sha256-12", None), ("v1", None)],
)
def test_fallback_tags_are_told_from_others(tag: str, subject: Digest | None) -> None:
    """Only a whole digest with a dash; signatures of cosign have tags of their own."""
    assert fallback_subject(Tag(tag)) == subject


KINDS = [
    ({"schemaVersion": 1, "fsLayers": [{"blobSum": str(ONE)}]}, mediatypes.DOCKER_SCHEMA1),
    ({"schemaVersion": 1, "signatures": [], "fsLayers": [{"blobSum": str(ONE)}]}, mediatypes.DOCKER_SCHEMA1_SIGNED),
    ({"schemaVersion": 2, "mediaType": "application/x+json", "layers": [{"digest": str(ONE)}]}, "application/x+json"),
    ({"schemaVersion": 2, "mediaType": "a\nb", "layers": [{"digest": str(ONE)}, 7, {}]}, mediatypes.OCI_MANIFEST),
    (
        {"mediaType": mediatypes.OCI_ARTIFACT_MANIFEST, "blobs": [{"digest": str(ONE)}]},
        mediatypes.OCI_ARTIFACT_MANIFEST,
    ),
]


@pytest.mark.parametrize(("document", "media_type"), KINDS)
def test_what_our_rules_refuse_is_kept(document: object, media_type: str) -> None:
    """With its type as distribution makes it out, and the digests it names."""
    raw = json.dumps(document).encode()

    manifest = read_manifest(raw, Digest.of(raw))

    assert (manifest.raw, manifest.media_type) == (raw, media_type)
    assert [(one.kind, one.digest) for one in manifest.references] == [(ReferenceKind.LAYER, ONE)]


def test_what_our_rules_take_is_read_by_them() -> None:
    """A manifest that could be pushed is known by as much as if it had been."""
    image = make_image(layers=2)

    manifest = read_manifest(image.raw, image.digest)

    assert manifest.media_type == image.media_type
    assert [one.digest for one in manifest.references] == list(image.blobs)


@given(st.binary(max_size=100) | st.recursive(
    st.none() | st.text(max_size=5) | st.integers(),
    lambda inner: st.dictionaries(
        st.sampled_from(["config", "layers", "manifests", "digest", "subject", "annotations", "mediaType"]), inner
    ) | st.lists(inner, max_size=3),
).map(lambda document: json.dumps(document).encode()))  # fmt: skip
def test_any_bytes_are_a_manifest_or_refused(raw: bytes) -> None:
    """Nothing but NotAManifestError is raised, whatever lies in a tree."""
    try:
        manifest = read_manifest(raw, Digest.of(raw))
    except NotAManifestError:
        return
    assert manifest.media_type.isascii()


async def test_repositories_are_found_in_order() -> None:
    """Those in others too, component by component; folders that begin with a line are none."""
    driver = MemoryDriver()
    for name in ("a/_layers/sha256/x/link", "a-b/_manifests/x", "a/c/_uploads/id/data", "z/_manifests/_odd/x"):
        await put(driver, keys.REPOSITORIES + name, b"x")

    found = [name async for name, _ in Tree(driver).repositories()]

    assert found == ["a", "a/c", "a-b", "z"]
    assert [name async for name, _ in Tree(driver).repositories(after="a/c")] == ["a-b", "z"]


async def test_tags_are_read_with_their_history() -> None:
    """In batches that never part a tag; an empty link of the history counts for nothing."""
    driver = MemoryDriver()
    for number in range(600):
        tag = Tag(f"v{number}")
        await put(driver, keys.tag_link(APP, tag), str(TWO).encode())
        await put(driver, keys.tag_index_link(APP, tag, TWO), str(TWO).encode())
        await put(driver, keys.tag_index_link(APP, tag, ONE), b"" if number == 7 else str(ONE).encode())
    await put(driver, f"{keys.tags(APP)}lost/index/sha256/{ONE.encoded}/link", b"x")

    found = {folder.name: folder async for batch in Tree(driver).tags(APP) for folder in batch}

    assert len(found) == 601
    current = found["v1"].current
    assert current is not None
    assert current.target == TWO
    assert [digest for digest, _ in found["v1"].history()] == [ONE]
    assert found["v7"].history() == []
    assert found["lost"].current is None
    assert datetime.now(UTC) - current.at < timedelta(minutes=5)
