"""What a manifest has to satisfy before the store looks for its content: pure (image-spec, distribution-spec end-7)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from roadstead.oci import mediatypes
from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Algorithm, Digest, DigestMismatchError
from roadstead.oci.manifest import ImageIndex, ImageManifest, parse_manifest
from roadstead.registry.ports import ManifestReference, NewManifest, ReferenceKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparseness:
    """What a repository may be without (distribution-spec, "Sparse" in its conformance data)."""

    indexes: bool = False  # the manifests that an index lists
    images: bool = False  # the layers of an image; its config is always wanted


COMPLETE: Final = Sparseness()


def check_manifest(
    raw: bytes, media_type: str | None, *, expected: Digest | None, sparse: Sparseness = COMPLETE
) -> NewManifest:
    """Return the facts of a manifest on its way in.

    `expected` is the digest it was pushed under, None for a push by tag: then sha256 names it. `sparse` says
    what may be absent. Raises ManifestInvalidError and DigestMismatchError.
    """
    manifest = parse_manifest(raw, media_type)
    digest = Digest.of(raw, expected.algorithm if expected else Algorithm.SHA256)
    if expected is not None and digest != expected:
        raise DigestMismatchError(expected, digest)
    listed = manifest.referrer_descriptor()
    return NewManifest(
        digest=digest,
        media_type=manifest.media_type,
        raw=raw,
        references=tuple(_references(manifest, sparse)),
        subject=manifest.subject.digest if manifest.subject else None,
        artifact_type=listed.artifact_type,
        annotations=dict(listed.annotations),
    )


def _references(manifest: ImageManifest | ImageIndex, sparse: Sparseness) -> Iterator[ManifestReference]:
    """Yield what must be in the repository; a subject need not be there, ever (distribution-spec end-7)."""
    if isinstance(manifest, ImageIndex):
        for child in manifest.manifests:
            yield _reference(ReferenceKind.CHILD, child, optional=sparse.indexes)
        return
    yield _reference(ReferenceKind.CONFIG, manifest.config)
    for layer in manifest.layers:
        may_be_absent = sparse.images or layer.media_type in mediatypes.NON_DISTRIBUTABLE
        yield _reference(ReferenceKind.LAYER, layer, optional=may_be_absent)


def _reference(kind: ReferenceKind, descriptor: Descriptor, *, optional: bool = False) -> ManifestReference:
    return ManifestReference(kind, descriptor.digest, descriptor.size, optional=optional)
