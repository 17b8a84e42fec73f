"""The tree of keys: distribution's own layout (so that it can take the tree back), and a corner of ours.

    docker/registry/v2/
    ├── blobs/<algorithm>/<first two of hex>/<hex>/data     bytes of layers, configs and manifests
    ├── repositories/<name>/                                distribution's links (facts are in the database)
    │   ├── _layers/<algorithm>/<hex>/link                      the repository may serve the blob
    │   ├── _manifests/revisions/<algorithm>/<hex>/link         the repository holds the manifest
    │   ├── _manifests/tags/<tag>/current/link                  where the tag points
    │   └── _manifests/tags/<tag>/index/<algorithm>/<hex>/link  where it ever pointed
    └── roadstead/
        ├── lock                                            which installation writes here (file systems)
        ├── writer                                          the same of a bucket without a database server
        ├── finished                                        nobody goes back to distribution (such a bucket)
        ├── uploads/<upload id>                             bytes on their way in
        ├── staged/<upload id>                              blobs that an object store keeps where they came in
        ├── quarantine/<algorithm>/<hex>                    bytes that weren't their digest's, put aside by hand
        └── tmp/<random>                                    objects being written, never seen under a key

Every component is one or more of ``[A-Za-z0-9._-]`` (what distribution's drivers accept) and neither ``.`` nor
``..``, so that no key, whatever it was made of, leads out of the store.
"""

import re
from typing import Final

from roadstead.oci.digest import Algorithm, Digest
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.storage.ports import Key, KeyInvalidError

ROOT: Final = "docker/registry/v2"
BLOBS: Final = f"{ROOT}/blobs/"
REPOSITORIES: Final = f"{ROOT}/repositories/"
LOCK: Final = f"{ROOT}/roadstead/lock"
WRITER: Final = Key(f"{ROOT}/roadstead/writer")
FINISHED: Final = Key(f"{ROOT}/roadstead/finished")
UPLOADS: Final = f"{ROOT}/roadstead/uploads/"
STAGED: Final = f"{ROOT}/roadstead/staged/"
QUARANTINE: Final = f"{ROOT}/roadstead/quarantine/"
TEMPORARY: Final = f"{ROOT}/roadstead/tmp/"

_KEY = re.compile(r"[A-Za-z0-9._-]{1,255}(?:/[A-Za-z0-9._-]{1,255})*", re.ASCII)
_UPLOAD_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", re.ASCII)
_BLOB = re.compile(re.escape(BLOBS) + r"([a-z0-9]+)/([0-9a-f]{2})/(\2[0-9a-f]+)/data", re.ASCII)

_MAX_SIZE = 900  # S3 allows 1,024 bytes, of which the bucket's prefix takes some.


def check_key(text: str) -> Key:
    """Return the text as a key, or raise ``KeyInvalidError``."""
    if len(text) > _MAX_SIZE:
        raise KeyInvalidError(text, f"it is longer than {_MAX_SIZE} characters")
    if _KEY.fullmatch(text) is None:
        raise KeyInvalidError(text, "components are 1 to 255 of A-Z a-z 0-9 . _ - separated by single slashes")
    if "." in text and any(component in {".", ".."} for component in text.split("/")):
        raise KeyInvalidError(text, "no component may be . or ..")
    return Key(text)


def check_prefix(text: str) -> str:
    """Return the text as a prefix of keys, empty or ending in a slash, or raise ``KeyInvalidError``."""
    if not text:
        return text
    if not text.endswith("/"):
        raise KeyInvalidError(text, "a prefix ends in a slash")
    check_key(text[:-1])
    return text


def check_upload_id(text: str) -> str:
    """Return the text as an upload id, or raise ``KeyInvalidError``."""
    if _UPLOAD_ID.fullmatch(text) is None:
        raise KeyInvalidError(text, "an upload id is 1 to 128 of A-Z a-z 0-9 _ - and begins with a letter or digit")
    return text


def blob(digest: Digest) -> Key:
    """Return where distribution keeps the blob; ``parse_blob_key`` is the inverse."""
    return Key(f"{BLOBS}{digest.algorithm}/{digest.encoded[:2]}/{digest.encoded}/data")


def parse_blob_key(key: str) -> Digest | None:
    """Return the digest of the blob that the key is for, or None when the key isn't a blob's."""
    match = _BLOB.fullmatch(key)
    if match is None or match[1] not in set(Algorithm) or len(match[3]) != Algorithm(match[1]).hex_length:
        return None
    return Digest(Algorithm(match[1]), match[3])


def layers(repository: RepositoryName) -> str:
    """Return the prefix of the links to what the repository may serve."""
    return f"{REPOSITORIES}{repository}/_layers/"


def revisions(repository: RepositoryName) -> str:
    """Return the prefix of the links to the manifests that the repository holds."""
    return f"{REPOSITORIES}{repository}/_manifests/revisions/"


def tags(repository: RepositoryName) -> str:
    """Return the prefix of the links of the repository's tags."""
    return f"{REPOSITORIES}{repository}/_manifests/tags/"


def layer_link(repository: RepositoryName, digest: Digest) -> Key:
    """Return where distribution notes that the repository may serve the blob."""
    return Key(f"{layers(repository)}{digest.algorithm}/{digest.encoded}/link")


def revision_link(repository: RepositoryName, digest: Digest) -> Key:
    """Return where distribution notes that the repository holds the manifest."""
    return Key(f"{revisions(repository)}{digest.algorithm}/{digest.encoded}/link")


def tag_folder(repository: RepositoryName, tag: Tag) -> str:
    """Return the prefix of everything distribution keeps of a tag."""
    return f"{tags(repository)}{tag}/"


def tag_link(repository: RepositoryName, tag: Tag) -> Key:
    """Return where distribution notes where the tag points."""
    return Key(f"{tag_folder(repository, tag)}current/link")


def tag_index_link(repository: RepositoryName, tag: Tag, digest: Digest) -> Key:
    """Return where distribution notes that the tag has pointed at a manifest."""
    return Key(f"{tag_folder(repository, tag)}index/{digest.algorithm}/{digest.encoded}/link")


def upload(upload_id: str) -> Key:
    """Return where bytes on their way in are staged."""
    return Key(UPLOADS + check_upload_id(upload_id))


def quarantine(digest: Digest) -> Key:
    """Return where bytes are put that were stored as this digest and aren't."""
    return Key(f"{QUARANTINE}{digest.algorithm}/{digest.encoded}")


def staged(upload_id: str) -> Key:
    """Return where an object store keeps a published upload that it would otherwise have to copy."""
    return Key(STAGED + check_upload_id(upload_id))


def is_internal(key: str) -> bool:
    """Tell whether the key lies in the driver's own folders, which listings from above leave out."""
    return key.startswith((UPLOADS, TEMPORARY))
