"""The media types of images: Docker's and the OCI's twins, and what each may stand for.

image-spec media-types.md, and Docker's image manifest version 2, schema 2.
"""

from types import MappingProxyType

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_PLUGIN_CONFIG = "application/vnd.docker.plugin.v1+json"
DOCKER_LAYER_TAR = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
DOCKER_FOREIGN_LAYER_TAR = "application/vnd.docker.image.rootfs.foreign.diff.tar"
DOCKER_FOREIGN_LAYER_GZIP = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_NONDISTRIBUTABLE_TAR = "application/vnd.oci.image.layer.nondistributable.v1.tar"
OCI_NONDISTRIBUTABLE_GZIP = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
OCI_NONDISTRIBUTABLE_ZSTD = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_ARTIFACT_MANIFEST = "application/vnd.oci.artifact.manifest.v1+json"
"""Withdrawn before image-spec 1.1; named so that it can be refused by name."""

IMAGE_MANIFESTS = frozenset({DOCKER_MANIFEST, OCI_MANIFEST})
INDEXES = frozenset({DOCKER_LIST, OCI_INDEX})
MANIFESTS = IMAGE_MANIFESTS | INDEXES
DOCKER_MANIFESTS = frozenset({DOCKER_MANIFEST, DOCKER_LIST})
SCHEMA1_MANIFESTS = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})
IMAGE_CONFIGS = frozenset({DOCKER_CONFIG, OCI_CONFIG})
NON_DISTRIBUTABLE = frozenset(
    {
        DOCKER_FOREIGN_LAYER_TAR,
        DOCKER_FOREIGN_LAYER_GZIP,
        OCI_NONDISTRIBUTABLE_TAR,
        OCI_NONDISTRIBUTABLE_GZIP,
        OCI_NONDISTRIBUTABLE_ZSTD,
    }
)
"""Layers that may live elsewhere, under their ``urls``: a registry doesn't ask for their bytes."""

_DOCKER_TWINS = MappingProxyType(
    {
        OCI_MANIFEST: DOCKER_MANIFEST,
        OCI_INDEX: DOCKER_LIST,
        OCI_CONFIG: DOCKER_CONFIG,
        OCI_LAYER_TAR: DOCKER_LAYER_TAR,
        OCI_LAYER_GZIP: DOCKER_LAYER_GZIP,
        OCI_LAYER_ZSTD: DOCKER_LAYER_ZSTD,
        OCI_NONDISTRIBUTABLE_TAR: DOCKER_FOREIGN_LAYER_TAR,
        OCI_NONDISTRIBUTABLE_GZIP: DOCKER_FOREIGN_LAYER_GZIP,
    }
)
_OCI_TWINS = MappingProxyType({docker: oci for oci, docker in _DOCKER_TWINS.items()})


def bare(media_type: str) -> str:
    """Return *media_type* without its parameters, such as ``; charset=utf-8`` (RFC 9110 §8.3)."""
    return media_type.partition(";")[0].strip(" \t")


def docker_twin(media_type: str) -> str:
    """Return Docker's name for an OCI type; any other type as it is."""
    return _DOCKER_TWINS.get(media_type, media_type)


def oci_twin(media_type: str) -> str:
    """Return the OCI's name for a Docker type; any other type as it is."""
    return _OCI_TWINS.get(media_type, media_type)


def like(manifest_media_type: str, media_type: str) -> str:
    """Return *media_type* as a manifest of *manifest_media_type* names it: Docker's names in Docker's manifests."""
    return docker_twin(media_type) if manifest_media_type in DOCKER_MANIFESTS else oci_twin(media_type)
