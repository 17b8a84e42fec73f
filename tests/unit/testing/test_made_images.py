"""The images that other tests are made of hold together."""

import gzip
import io
import tarfile

import pytest

from roadstead.oci.digest import Digest
from roadstead.oci.image_config import ImageConfig
from roadstead.testing.images import make_artifact, make_attestation, make_image, make_index


@pytest.mark.parametrize("docker", [False, True])
def test_an_image_is_whole(docker: bool) -> None:
    """Manifest, config and layers name each other by digest and size, and the layers are tars."""
    image = make_image(layers=2, size=3000, platform="linux/arm/v7", docker=docker, config={"Entrypoint": ["/x"]})
    manifest, config = image.manifest, ImageConfig.parse(image.config)

    assert manifest.is_image
    assert manifest.config.digest == image.config_digest
    assert manifest.config.size == len(image.config)
    assert [(layer.digest, layer.size) for layer in manifest.layers] == [
        (Digest.of(layer.raw), len(layer.raw)) for layer in image.layers
    ]
    assert config.diff_ids == tuple(Digest.of(gzip.decompress(layer.raw)) for layer in image.layers)
    assert len(config.history) == 2
    assert config.entrypoint == ("/x",)
    assert str(config.platform) == "linux/arm/v7"
    assert all(len(layer.raw) > 3000 for layer in image.layers)


def test_the_same_arguments_make_the_same_image() -> None:
    """Same bytes at every call; another seed makes another image."""
    assert make_image(layers=2) == make_image(layers=2)
    assert make_image(seed="a").digest != make_image(seed="b").digest


def test_files_are_where_they_should_be() -> None:
    """Layers can be given by their files."""
    image = make_image(layers=[{"etc/motd": b"hello"}])

    with tarfile.open(fileobj=io.BytesIO(image.layers[0].raw)) as archive:
        member = archive.extractfile("etc/motd")
        assert member is not None
        assert member.read() == b"hello"


def test_an_index_lists_its_images() -> None:
    """Platforms and digests in the order given; attestations are marked as such."""
    amd64, arm64 = make_image(), make_image(platform="linux/arm64")
    index = make_index([amd64, arm64, make_attestation(amd64)])

    entries = index.index.manifests
    assert [entry.digest for entry in entries] == [child.digest for child in index.children]
    assert [str(entry.platform) for entry in entries] == ["linux/amd64", "linux/arm64", "unknown/unknown"]
    assert [entry.is_attestation for entry in entries] == [False, False, True]


def test_an_artifact_refers_to_its_subject() -> None:
    """An artifact isn't an image, and says what it belongs to."""
    image = make_image()
    artifact = make_artifact(subject=image.descriptor())

    assert not artifact.manifest.is_image
    assert artifact.manifest.subject == image.descriptor()
    assert artifact.manifest.artifact_type == "application/vnd.example.sbom"
