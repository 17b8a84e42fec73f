"""What distribution's Accept rules take (registry spec §1.8), where settings ask for them."""

import pytest

from roadstead.http.negotiation import acceptable, legacy_child
from roadstead.oci import mediatypes
from roadstead.testing.images import make_image, make_index


@pytest.mark.parametrize(
    ("accept", "media_type", "expected"),
    [
        ([], mediatypes.OCI_MANIFEST, False),
        (["*/*"], mediatypes.OCI_MANIFEST, False),
        ([mediatypes.OCI_MANIFEST], mediatypes.OCI_MANIFEST, True),
        ([f"{mediatypes.OCI_INDEX};q=0.1, {mediatypes.OCI_MANIFEST}"], mediatypes.OCI_INDEX, True),
        (["text/html", mediatypes.OCI_INDEX], mediatypes.OCI_INDEX, True),
        ([], mediatypes.DOCKER_MANIFEST, True),
        (["text/html"], mediatypes.DOCKER_MANIFEST, True),
        (["text/html"], mediatypes.DOCKER_LIST, False),
    ],
)
def test_a_type_is_accepted(accept: list[str], media_type: str, expected: bool) -> None:
    """Named exactly, whatever its weight; Docker's image manifest always."""
    assert acceptable(accept, media_type) is expected


def test_a_client_without_platforms_gets_the_image_for_amd64() -> None:
    """And nothing where the list has none."""
    amd64, arm64 = make_image(platform="linux/amd64", docker=True), make_image(platform="linux/arm64", docker=True)

    found = legacy_child(make_index([arm64, amd64], docker=True).index)

    assert found is not None
    assert found.digest == amd64.digest
    assert legacy_child(make_index([arm64], docker=True).index) is None
