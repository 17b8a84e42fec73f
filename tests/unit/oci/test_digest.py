"""Content addresses: what is one, what isn't, and what bytes have which."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.errors import InvalidError
from roadstead.oci.digest import (
    Algorithm,
    Digest,
    DigestInvalidError,
    DigestMismatchError,
    DigestUnsupportedError,
    Hasher,
)

HEX = "0123456789abcdef"
digests = st.sampled_from(Algorithm).flatmap(
    lambda algorithm: st.text(HEX, min_size=algorithm.hex_length, max_size=algorithm.hex_length).map(
        lambda encoded: Digest(algorithm, encoded)
    )
)


@given(digests)
def test_a_printed_digest_reads_back(digest: Digest) -> None:
    """``parse`` and ``str`` are each other's inverse."""
    assert Digest.parse(str(digest)) == digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        "sha256:baddigeststring",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + "a" * 64 + "\n",
        "sha256:" + "a" * 32 + "\r\n" + "a" * 30,
        "sha256: " + "a" * 63,
        "sha256:" + "\N{ARABIC-INDIC DIGIT ONE}" * 64,
        "Sha256:" + "a" * 64,
        "sha256::" + "a" * 63,
        "sha512:" + "a" * 64,
        "../../etc:passwd",
        "sha256:../../../../" + "a" * 52,
        "sha256:" + "a" * 100_000,
        "+:a",
        "a+:b",
        "a:b/c",
        "a:",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """Length, case and alphabet count; what looks like a path or a header never passes (CVE-2024-3727)."""
    with pytest.raises(DigestInvalidError) as caught:
        Digest.parse(text)

    assert not isinstance(caught.value, DigestUnsupportedError)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert caught.value.advice()


@pytest.mark.parametrize("text", ["md5:" + "a" * 32, "sha384:" + "a" * 96, "multihash+base58:QmRZxt2b", "x-y_z.w:A=_-"])
def test_a_well_formed_digest_of_another_algorithm_is_named_as_such(text: str) -> None:
    """The grammar of descriptor.md is wider than what we can check."""
    with pytest.raises(DigestUnsupportedError) as caught:
        Digest.parse(text)

    assert caught.value.algorithm == text.partition(":")[0]
    assert isinstance(caught.value, InvalidError)


def test_a_digest_cannot_be_built_wrong() -> None:
    """The constructor checks what ``parse`` checks."""
    with pytest.raises(DigestInvalidError):
        Digest(Algorithm.SHA256, "../x")


@given(st.lists(st.binary(max_size=50), max_size=5), st.sampled_from(Algorithm))
def test_hashing_in_pieces_is_hashing_at_once(pieces: list[bytes], algorithm: Algorithm) -> None:
    """A hasher counts and digests what passed, whatever kind of buffer it came in."""
    whole = b"".join(pieces)
    hasher = Hasher(algorithm)
    for kind, piece in zip([bytes, bytearray, memoryview] * 2, pieces, strict=False):
        hasher.update(kind(piece))

    assert hasher.size == len(whole)
    assert hasher.digest() == Digest.of(whole, algorithm)
    assert hasher.digest().encoded == hashlib.new(algorithm.value, whole).hexdigest()


def test_a_memoryview_of_wide_items_counts_in_bytes() -> None:
    """``len`` of such a view counts items."""
    hasher = Hasher()
    hasher.update(memoryview(bytes(16)).cast("Q"))

    assert hasher.size == 16


def test_verifying_tells_both_digests() -> None:
    """A mismatch carries what was expected and what came."""
    hasher = Hasher()
    hasher.update(b"abc")
    hasher.verify(Digest.of(b"abc"))

    with pytest.raises(DigestMismatchError) as caught:
        hasher.verify(Digest.of(b"abd"))

    assert (caught.value.expected, caught.value.actual) == (Digest.of(b"abd"), Digest.of(b"abc"))


def test_a_copy_goes_on_by_itself() -> None:
    """What one of them takes in afterwards, the other doesn't see."""
    hasher = Hasher()
    hasher.update(b"a")
    twin = hasher.copy()
    twin.update(b"b")

    assert (hasher.size, hasher.digest()) == (1, Digest.of(b"a"))
    assert (twin.size, twin.digest()) == (2, Digest.of(b"ab"))
