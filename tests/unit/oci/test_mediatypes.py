"""Media types: bare names and twins."""

import pytest

from roadstead.oci import mediatypes
from roadstead.oci.mediatypes import bare, docker_twin, like, oci_twin


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (mediatypes.OCI_INDEX, mediatypes.OCI_INDEX),
        (f"{mediatypes.OCI_INDEX}; charset=utf-8", mediatypes.OCI_INDEX),
        (f" {mediatypes.OCI_INDEX} ;x=y;z", mediatypes.OCI_INDEX),
        ("", ""),
    ],
)
def test_parameters_are_dropped(given: str, expected: str) -> None:
    """Some clients send a charset with JSON."""
    assert bare(given) == expected


@pytest.mark.parametrize(
    "docker",
    [
        mediatypes.DOCKER_MANIFEST,
        mediatypes.DOCKER_LIST,
        mediatypes.DOCKER_CONFIG,
        mediatypes.DOCKER_LAYER_TAR,
        mediatypes.DOCKER_LAYER_GZIP,
        mediatypes.DOCKER_LAYER_ZSTD,
        mediatypes.DOCKER_FOREIGN_LAYER_GZIP,
    ],
)
def test_twins_lead_back(docker: str) -> None:
    """Each Docker type has one OCI twin, and the other way round."""
    assert oci_twin(docker) != docker
    assert docker_twin(oci_twin(docker)) == docker


def test_a_layer_is_named_in_its_manifests_family() -> None:
    """Types without a twin stay."""
    assert like(mediatypes.DOCKER_MANIFEST, mediatypes.OCI_LAYER_GZIP) == mediatypes.DOCKER_LAYER_GZIP
    assert like(mediatypes.OCI_MANIFEST, mediatypes.DOCKER_LAYER_GZIP) == mediatypes.OCI_LAYER_GZIP
    assert like(mediatypes.OCI_MANIFEST, "application/wasm") == "application/wasm"
