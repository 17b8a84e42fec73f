"""What collection decides of a blob and of a manifest: tables of facts, and what holds for all of them."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.registry.gc import (
    ABANDONED_AFTER,
    CLAIM,
    CONDEMNED_FOR,
    LONGEST_REQUEST,
    STRAY_LEASE,
    Fate,
    Policy,
    Untagged,
    judge_blob,
    judge_manifest,
)
from roadstead.registry.ports import BlobFacts, BlobState, ManifestFacts
from roadstead.storage.arrivals import MAX_ARRIVAL
from roadstead.testing.clock import START

AN_INSTANT = timedelta(microseconds=1)
BLOB = BlobFacts(
    digest=Digest.of(b"blob"),
    size=4,
    state=BlobState.LIVE,
    since=START - timedelta(days=30),
    lease_until=START,
    referenced=False,
    idle_link=False,
)
MANIFEST = ManifestFacts(
    position=(1, "x"),
    repository=RepositoryName("team/app"),
    digest=Digest.of(b"manifest"),
    size=8,
    tagged=False,
    listed=False,
    subject_here=False,
    derived=False,
    source_here=False,
    since=START - timedelta(days=7),
)
KEEP, DELETE = Policy(), Policy(untagged=Untagged.DELETE)


@pytest.mark.parametrize(
    ("facts", "fate"),
    [
        (BLOB, Fate.UNNEEDED),
        (replace(BLOB, idle_link=True), Fate.UNNEEDED),
        (replace(BLOB, lease_until=START + AN_INSTANT), Fate.LEASED),
        (replace(BLOB, lease_until=START + AN_INSTANT, referenced=True, idle_link=True), Fate.LEASED),
        (replace(BLOB, referenced=True), Fate.REFERENCED),
        (replace(BLOB, referenced=True, idle_link=True), Fate.UNLINK),
        (replace(BLOB, state=BlobState.CONDEMNED, since=START), Fate.WAITING),
        (replace(BLOB, state=BlobState.CONDEMNED, since=START - CONDEMNED_FOR + AN_INSTANT), Fate.WAITING),
        (replace(BLOB, state=BlobState.CONDEMNED, since=START - CONDEMNED_FOR), Fate.DUE),
        (replace(BLOB, state=BlobState.CONDEMNED, lease_until=START + AN_INSTANT), Fate.WAITING),
        (replace(BLOB, state=BlobState.DELETING), Fate.DELETING),
        (replace(BLOB, state=BlobState.DELETING, referenced=True), Fate.DELETING),
    ],
)
def test_blobs(facts: BlobFacts, fate: Fate) -> None:
    """A blob stays while its lease runs or a manifest refers to it; otherwise it goes in three steps."""
    assert judge_blob(facts, START) is fate


@pytest.mark.parametrize(
    ("facts", "policy", "fate"),
    [
        (MANIFEST, KEEP, Fate.UNTAGGED_KEPT),
        (MANIFEST, DELETE, Fate.UNTAGGED),
        (replace(MANIFEST, since=START - timedelta(days=7) + AN_INSTANT), DELETE, Fate.YOUNG),
        (replace(MANIFEST, tagged=True), DELETE, Fate.TAGGED),
        (replace(MANIFEST, listed=True), DELETE, Fate.LISTED),
        (replace(MANIFEST, subject_here=True), DELETE, Fate.REFERRER),
        (replace(MANIFEST, derived=True, source_here=True), DELETE, Fate.DERIVED),
        (replace(MANIFEST, derived=True), KEEP, Fate.SOURCELESS),
        (replace(MANIFEST, derived=True, listed=True), KEEP, Fate.LISTED),
    ],
)
def test_manifests(facts: ManifestFacts, policy: Policy, fate: Fate) -> None:
    """Tags, indexes, subjects and sources keep; what nothing keeps goes only where that is set, and old enough."""
    assert judge_manifest(facts, policy, START) is fate


@given(
    st.builds(
        BlobFacts,
        digest=st.just(BLOB.digest),
        size=st.just(4),
        state=st.just(BlobState.LIVE),
        since=st.just(START),
        lease_until=st.datetimes().map(lambda moment: moment.replace(tzinfo=START.tzinfo)),
        referenced=st.booleans(),
        idle_link=st.booleans(),
    )
)
def test_nothing_needed_goes(facts: BlobFacts) -> None:
    """A live blob goes if and only if its lease is over and nothing refers to it."""
    assert judge_blob(facts, START).goes == (facts.lease_until <= START and not facts.referenced)


def test_the_times_fit_together() -> None:
    """Nobody takes over before the first has certainly ended, and strays outlive any push on its way."""
    assert ABANDONED_AFTER > CLAIM + LONGEST_REQUEST
    assert STRAY_LEASE > 2 * MAX_ARRIVAL


@pytest.mark.parametrize("fate", Fate)
def test_every_fate_has_a_reason(fate: Fate) -> None:
    """A person can read why."""
    assert fate.reason
