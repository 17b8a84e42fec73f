"""Keys: distribution's layout, and nothing that leads out of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.oci.digest import Algorithm, Digest
from roadstead.storage import keys
from roadstead.storage.ports import KeyInvalidError


def test_a_blob_lies_where_distribution_keeps_it() -> None:
    """The key is distribution's path, to the letter."""
    digest = Digest.parse("sha256:" + "ab12" * 16)

    assert keys.blob(digest) == f"docker/registry/v2/blobs/sha256/ab/{'ab12' * 16}/data"


@given(st.binary(), st.sampled_from(Algorithm))
def test_blob_keys_are_read_back(content: bytes, algorithm: Algorithm) -> None:
    """parse_blob_key is the inverse of blob."""
    digest = Digest.of(content, algorithm)

    assert keys.parse_blob_key(keys.blob(digest)) == digest


@pytest.mark.parametrize(
    "key",
    [
        "",
        "docker/registry/v2/blobs/sha256/ab/abcd/data",
        f"docker/registry/v2/blobs/sha256/cd/{'ab' * 32}/data",
        f"docker/registry/v2/blobs/sha256/ab/{'ab' * 32}/link",
        f"docker/registry/v2/blobs/sha256/ab/{'ab' * 32}/data\n",
        f"docker/registry/v2/blobs/sha512/ab/{'ab' * 32}/data",
        f"docker/registry/v2/blobs/md5/ab/{'ab' * 32}/data",
        f"x/docker/registry/v2/blobs/sha256/ab/{'ab' * 32}/data",
    ],
)
def test_other_keys_are_no_blobs(key: str) -> None:
    """A key that only looks like a blob's isn't taken for one."""
    assert keys.parse_blob_key(key) is None


@given(st.text())
def test_a_checked_key_stays_inside(text: str) -> None:
    """Whatever the text: it is refused, or every component names something below the root."""
    try:
        key = keys.check_key(text)
    except KeyInvalidError:
        return
    assert all(component and component not in {".", ".."} for component in key.split("/"))
    assert key.isascii()
    assert key.isprintable()


@given(st.lists(st.text("abz09._-", min_size=1, max_size=20).filter(lambda text: text not in {".", ".."}), min_size=1))
def test_components_of_the_charset_are_keys(components: list[str]) -> None:
    """What distribution's drivers accept is accepted."""
    text = "/".join(components)

    if len(text) <= 900:
        assert keys.check_key(text) == text


def test_internal_folders_are_told_apart() -> None:
    """Staging is internal; what an object store keeps published isn't."""
    assert keys.is_internal(keys.upload("u"))
    assert keys.is_internal(keys.TEMPORARY + "x")
    assert not keys.is_internal(keys.staged("u"))
    assert not keys.is_internal(keys.blob(Digest.of(b"")))
