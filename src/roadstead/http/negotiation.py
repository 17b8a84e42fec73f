"""Whether a client's Accept takes a manifest: pure, and only asked where settings want distribution's strictness.

Clients that forget a type (or send none at all: curl, many scripts) are served what is stored by default; that is
what nobody has ever complained about (registry spec §1.8).
"""

from collections.abc import Sequence

from roadstead.oci import mediatypes
from roadstead.oci.descriptor import Descriptor, Platform
from roadstead.oci.manifest import ImageIndex

LEGACY_PLATFORM = Platform("linux", "amd64")
"""What a client is taken to run that is too old to know of platforms."""


def acceptable(accept: Sequence[str], media_type: str) -> bool:
    """Tell whether distribution would serve this type for these Accept headers.

    Parameters and weights don't count, wildcards don't stand for OCI types, and Docker's image manifest always goes.
    """
    if media_type == mediatypes.DOCKER_MANIFEST:
        return True
    listed = {mediatypes.bare(item) for value in accept for item in value.split(",")}
    return media_type in listed


def legacy_child(index: ImageIndex) -> Descriptor | None:
    """Return the image of a Docker list that a client without platforms gets; None if there is none for it."""
    for child in index.manifests:
        if (
            child.media_type == mediatypes.DOCKER_MANIFEST
            and child.platform
            and child.platform.matches(LEGACY_PLATFORM)
        ):
            return child
    return None
