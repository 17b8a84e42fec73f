"""What a manifest has to satisfy before the store looks for its content: pure (image-spec, distribution-spec end-7)."""

from collections.abc import Iterator

from roadstead.oci import mediatypes
from roadstead.oci.descriptor import Descriptor
from roadstead.oci.digest import Algorithm, Digest, DigestMismatchError
from roadstead.oci.manifest import ImageIndex, ImageManifest, parse_manifest
from roadstead.registry.ports import ManifestReference, NewManifest, ReferenceKind


def check_manifest(
    raw: bytes, media_type: str | None, *, expected: Digest | None, sparse_indexes: bool = False
) -> NewManifest:
    """Return the facts of a manifest on its way in.

    `expected` is the digest it was pushed under, None for a push by tag: then sha256 names it. With `sparse_indexes`
    an index may name children that aren't here. Raises ManifestInvalidError and DigestMismatchError.
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
        references=tuple(_references(manifest, sparse_indexes=sparse_indexes)),
        subject=manifest.subject.digest if manifest.subject else None,
        artifact_type=listed.artifact_type,
        annotations=dict(listed.annotations),
    )


def _references(manifest: ImageManifest | ImageIndex, *, sparse_indexes: bool) -> Iterator[ManifestReference]:
    """Yield what must be in the repository; a subject need not be there, ever (distribution-spec end-7)."""
    if isinstance(manifest, ImageIndex):
        for child in manifest.manifests:
            yield _reference(ReferenceKind.CHILD, child, optional=sparse_indexes)
        return
    yield _reference(ReferenceKind.CONFIG, manifest.config)
    for layer in manifest.layers:
        yield _reference(ReferenceKind.LAYER, layer, optional=layer.media_type in mediatypes.NON_DISTRIBUTABLE)


def _reference(kind: ReferenceKind, descriptor: Descriptor, *, optional: bool = False) -> ManifestReference:
    return ManifestReference(kind, descriptor.digest, descriptor.size, optional=optional)
