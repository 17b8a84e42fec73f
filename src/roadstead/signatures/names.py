"""What signatures are called: the names that cosign gives them. Nothing here needs a library for keys."""

import re

from roadstead.oci.digest import Digest, DigestInvalidError

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "application/vnd.dev.cosign.artifact.sig.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"

_TAG = re.compile(r"(sha256|sha512)-([0-9a-f]{64,128})\.sig", re.ASCII)


def signature_tag(digest: Digest) -> str:
    """Return the tag under which cosign looks for the signatures of a digest; ``tagged_subject`` is the inverse."""
    return f"{digest.algorithm.value}-{digest.encoded}.sig"


def tagged_subject(tag: str) -> Digest | None:
    """Return what the signatures under a tag are about; None for another tag."""
    found = _TAG.fullmatch(tag)
    if found is None:
        return None
    try:
        return Digest.parse(f"{found[1]}:{found[2]}")
    except DigestInvalidError:
        return None
