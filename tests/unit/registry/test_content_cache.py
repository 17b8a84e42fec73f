"""Bytes by digest in memory: bounded, most recently used first."""

from roadstead.oci.digest import Digest
from roadstead.registry.content_cache import ContentCache


def test_it_keeps_within_its_bounds_and_drops_what_was_used_longest_ago() -> None:
    """Three of ten bytes do not fit into twenty-five: the one not asked for goes."""
    cache = ContentCache(max_bytes=25, max_item_bytes=10)
    one, two, three = (Digest.of(bytes([number])) for number in (1, 2, 3))
    cache.keep(one, b"1" * 10)
    cache.keep(two, b"2" * 10)
    assert cache.find(one) == b"1" * 10

    cache.keep(three, b"3" * 10)

    assert cache.find(two) is None
    assert cache.find(one) is not None
    assert cache.find(three) is not None


def test_what_is_too_large_is_not_kept() -> None:
    """One large manifest must not throw everything else out."""
    cache = ContentCache(max_bytes=100, max_item_bytes=10)
    digest = Digest.of(b"large")

    cache.keep(digest, b"x" * 11)

    assert cache.find(digest) is None


def test_keeping_twice_counts_once() -> None:
    """The same digest is the same bytes."""
    cache = ContentCache(max_bytes=20, max_item_bytes=10)
    digest, other = Digest.of(b"1"), Digest.of(b"2")
    for _ in range(5):
        cache.keep(digest, b"x" * 10)
    cache.keep(other, b"y" * 10)

    assert cache.find(digest) is not None
    assert cache.find(other) is not None
