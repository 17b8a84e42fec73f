"""What a manifest needs in its repository, and what it may be without."""

import pytest

from roadstead.oci.digest import Algorithm, Digest, DigestMismatchError
from roadstead.oci.manifest import ImageManifest, parse_manifest
from roadstead.registry.ports import ReferenceKind
from roadstead.registry.validation import COMPLETE, Sparseness, check_manifest
from roadstead.testing.images import make_artifact, make_image, make_index

IMAGE = make_image(layers=2)
INDEX = make_index([IMAGE])


@pytest.mark.parametrize(
    ("sparse", "optional"), [(COMPLETE, False), (Sparseness(indexes=True), False), (Sparseness(images=True), True)]
)
def test_layers_may_be_absent_where_images_are_sparse(sparse: Sparseness, optional: bool) -> None:
    """The config is needed all the same: it says what the image is."""
    references = check_manifest(IMAGE.raw, IMAGE.media_type, expected=None, sparse=sparse).references

    assert [(reference.kind, reference.optional) for reference in references] == [
        (ReferenceKind.CONFIG, False),
        (ReferenceKind.LAYER, optional),
        (ReferenceKind.LAYER, optional),
    ]


@pytest.mark.parametrize(
    ("sparse", "optional"), [(COMPLETE, False), (Sparseness(images=True), False), (Sparseness(indexes=True), True)]
)
def test_children_may_be_absent_where_indexes_are_sparse(sparse: Sparseness, optional: bool) -> None:
    """Each kind has its own word."""
    references = check_manifest(INDEX.raw, INDEX.media_type, expected=None, sparse=sparse).references

    assert [(reference.kind, reference.optional) for reference in references] == [(ReferenceKind.CHILD, optional)]


def test_a_subject_is_no_reference() -> None:
    """It need not be there, ever (distribution-spec end-7); the referrer is listed by its type and annotations."""
    artifact = make_artifact("application/vnd.example", subject=IMAGE.descriptor(), annotations={"a": "b"})

    found = check_manifest(artifact.raw, artifact.media_type, expected=None)

    assert found.subject == IMAGE.digest
    assert (found.artifact_type, found.annotations) == ("application/vnd.example", {"a": "b"})
    assert IMAGE.digest not in [reference.digest for reference in found.references]


def test_the_digest_is_of_the_algorithm_it_was_pushed_under() -> None:
    """By tag sha256 names it; by digest its own algorithm does, and another digest is refused."""
    wanted = Digest.of(IMAGE.raw, Algorithm.SHA512)

    assert check_manifest(IMAGE.raw, IMAGE.media_type, expected=None).digest == IMAGE.digest
    assert check_manifest(IMAGE.raw, IMAGE.media_type, expected=wanted).digest == wanted
    with pytest.raises(DigestMismatchError):
        check_manifest(IMAGE.raw, IMAGE.media_type, expected=INDEX.digest)


def test_foreign_layers_may_always_be_absent() -> None:
    """Non-distributable layers are fetched from their URLs (image-spec layer.md)."""
    raw = IMAGE.raw.replace(b"layer.v1.tar+gzip", b"layer.nondistributable.v1.tar+gzip")
    assert isinstance(parse_manifest(raw, IMAGE.media_type), ImageManifest)

    references = check_manifest(raw, IMAGE.media_type, expected=None).references

    assert [reference.optional for reference in references] == [False, True, True]
