"""Which tags retention keeps: tables, and what holds for all."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.oci.digest import Digest
from roadstead.oci.pattern import Pattern
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.immutable import ImmutableTags
from roadstead.registry.ports import TagAge
from roadstead.registry.retention import KEEP_ALL, Retention, RetentionInvalidError, RetentionRule
from roadstead.testing.clock import START

APP = RepositoryName("team/app")
DAY = timedelta(days=1)


def tags(*names: str) -> list[TagAge]:
    """Return tags, the first a day old, the next two."""
    return [TagAge(Tag(name), Digest.of(name.encode()), START - DAY * (n + 1)) for n, name in enumerate(names)]


def rule(
    match: str = "team/*", newest: int | None = None, younger: timedelta | None = None, matching: tuple[str, ...] = ()
) -> RetentionRule:
    """Return a rule."""
    return RetentionRule(match=Pattern.parse(match), keep_newest=newest, keep_younger=younger, keep_matching=matching)


TAGS = tags("latest", "v2", "nightly-3", "nightly-2", "v1", "nightly-1")


@pytest.mark.parametrize(
    ("rules", "expired"),
    [
        ([], []),
        ([rule(newest=2)], ["nightly-3", "nightly-2", "v1", "nightly-1"]),
        ([rule(newest=0)], ["latest", "v2", "nightly-3", "nightly-2", "v1", "nightly-1"]),
        ([rule(newest=10)], []),
        ([rule(younger=3 * DAY)], ["nightly-3", "nightly-2", "v1", "nightly-1"]),
        ([rule(matching=("v*", "latest"))], ["nightly-3", "nightly-2", "nightly-1"]),
        ([rule(newest=1, younger=4 * DAY, matching=("v*",))], ["nightly-2", "nightly-1"]),
        ([rule("team/*:nightly-*", newest=1)], ["nightly-2", "nightly-1"]),
        ([rule("other/*", newest=0)], []),
        ([rule("team/*:v*", newest=5), rule(newest=1)], ["nightly-3", "nightly-2", "nightly-1"]),
    ],
)
def test_rules(rules: list[RetentionRule], expired: list[str]) -> None:
    """A tag stays for any of a rule's reasons; the first rule that matches it decides; without one it stays."""
    found = Retention(tuple(rules)).expired(APP, TAGS, START)

    assert [tag.tag.value for tag in found] == expired


def test_immutable_tags_stay() -> None:
    """Whatever a rule says of them."""
    retention = Retention((rule(newest=0),), ImmutableTags.parse(["team/*:v*"]))

    assert {tag.tag.value for tag in retention.expired(APP, TAGS, START)} == {
        "latest",
        "nightly-3",
        "nightly-2",
        "nightly-1",
    }


def test_a_rule_that_keeps_nothing_is_refused() -> None:
    """It was meant otherwise."""
    with pytest.raises(RetentionInvalidError):
        rule()


_ages = st.lists(
    st.tuples(st.from_regex(r"[a-c][0-9]{0,2}", fullmatch=True), st.integers(0, 100)), unique_by=lambda pair: pair[0]
)


@given(_ages, st.integers(0, 10), st.integers(0, 100))
def test_what_is_kept_is_what_was_asked_for(ages: list[tuple[str, int]], newest: int, days: int) -> None:
    """Nothing young goes, so many stay, nothing that goes is newer than what stays, and again changes nothing."""
    all_tags = [TagAge(Tag(name), Digest.of(b"x"), START - DAY * age) for name, age in ages]
    retention = Retention((rule(newest=newest, younger=DAY * days),))

    expired = retention.expired(APP, all_tags, START)

    kept = [tag for tag in all_tags if tag not in expired]
    assert all(tag.since <= START - DAY * days for tag in expired)
    assert len(kept) >= min(newest, len(all_tags))
    assert not expired or not kept or max(tag.since for tag in expired) <= min(tag.since for tag in kept)
    assert retention.expired(APP, kept, START) == []


@given(_ages)
def test_without_rules_all_stay(ages: list[tuple[str, int]]) -> None:
    """The default."""
    all_tags = [TagAge(Tag(name), Digest.of(b"x"), START - DAY * age) for name, age in ages]

    assert KEEP_ALL.expired(APP, all_tags, START) == []
