"""Artifacts that say something of an image: manifests with a subject (image-spec manifest.md, Artifact Usage).

What is made here has no time in it and no name of its maker: equal parts have equal digests, whoever joins them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Digest
from roadstead.oci.manifest import ImageManifest, parse_image
from roadstead.oci.mediatypes import OCI_EMPTY, OCI_MANIFEST
from roadstead.oci.strict_json import compact

EMPTY = b"{}"
"""The content of a config that says nothing (image-spec manifest.md, Guidance for an Empty Descriptor)."""


@dataclass(frozen=True, slots=True)
class ArtifactBlob:
    """One blob of an artifact: its content, and what its descriptor says beside digest and size."""

    media_type: str
    content: bytes = field(repr=False)
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    def descriptor(self) -> Descriptor:
        """Return the pointer to it."""
        return Descriptor(
            self.media_type, Digest.of(self.content), len(self.content), annotations=dict(self.annotations)
        )


@dataclass(frozen=True, slots=True)
class Artifact:
    """Blobs of one type that belong together, and have no subject yet."""

    artifact_type: str
    blobs: Sequence[ArtifactBlob] = field(hash=False)
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    def about(self, subject: Descriptor) -> ImageManifest:
        """Return the manifest that says it of a subject. Pure, and the same bytes each time."""
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": self.artifact_type,
            "config": ArtifactBlob(OCI_EMPTY, EMPTY).descriptor().as_json(),
            "layers": [blob.descriptor().as_json() for blob in self.blobs],
            "subject": Descriptor(subject.media_type, subject.digest, subject.size).as_json(),
        }
        if self.annotations:
            document["annotations"] = dict(sorted(self.annotations.items()))
        return parse_image(compact(document), OCI_MANIFEST)

    def contents(self) -> Sequence[bytes]:
        """Return what has to be stored with the manifest: the empty config, and the blobs."""
        return (EMPTY, *(blob.content for blob in self.blobs))
