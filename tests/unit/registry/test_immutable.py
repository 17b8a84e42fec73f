"""Which tags stay where they are: a table, and what holds for all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.oci.digest import Digest
from roadstead.oci.pattern import PatternInvalidError
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.immutable import NOTHING_IMMUTABLE, ImmutableTags

ONE, OTHER = Digest.of(b"1"), Digest.of(b"2")
RELEASES = ImmutableTags.parse(["team/*:v*", "library/**"])


@pytest.mark.parametrize(
    ("image", "current", "new", "forbidden"),
    [
        ("team/app:v1", None, ONE, False),
        ("team/app:v1", ONE, ONE, False),
        ("team/app:v1", ONE, OTHER, True),
        ("team/app:v1", ONE, None, True),
        ("team/app:v1", None, None, False),
        ("team/app:latest", ONE, OTHER, False),
        ("team/app/part:v1", ONE, OTHER, False),
        ("library/a/b:anything", ONE, None, True),
    ],
)
def test_tags(image: str, current: Digest | None, new: Digest | None, forbidden: bool) -> None:
    """A covered tag may be made, and pushed again as it is, and nothing else."""
    repository, _, tag = image.partition(":")

    assert RELEASES.forbids(RepositoryName.parse(repository), Tag.parse(tag), current, new) is forbidden


@given(st.sampled_from([None, ONE, OTHER]), st.sampled_from([None, ONE, OTHER]))
def test_without_patterns_all_may_move(current: Digest | None, new: Digest | None) -> None:
    """The default."""
    assert not NOTHING_IMMUTABLE.forbids(RepositoryName("a"), Tag("b"), current, new)


def test_a_wrong_pattern_is_named() -> None:
    """With what is wrong with it."""
    with pytest.raises(PatternInvalidError, match=r"team/\[x\]"):
        ImmutableTags.parse(["team/[x]:v*"])
