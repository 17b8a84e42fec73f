"""Upload ids: bound to one repository, in one spelling, not to be guessed or changed."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.oci.digest import Algorithm
from roadstead.oci.reference import RepositoryName
from roadstead.registry.upload_ids import UploadIds, UploadLifetimes
from roadstead.storage import keys

IDS = UploadIds(b"k" * 32)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
APP = RepositoryName.parse("team/app")


@given(st.sampled_from(Algorithm), st.datetimes(datetime(2020, 1, 1), datetime(2200, 1, 1)))  # noqa: DTZ001
def test_an_id_says_what_it_was_made_of(algorithm: Algorithm, moment: datetime) -> None:
    """What is minted is read back, to the second, and is a lawful key of the storage."""
    now = moment.replace(tzinfo=UTC, microsecond=0)

    ticket = IDS.mint(APP, algorithm, now)

    assert IDS.check(APP, ticket.upload_id) == ticket
    assert (ticket.started_at, ticket.algorithm) == (now, algorithm)
    assert keys.check_upload_id(ticket.upload_id) == ticket.upload_id


def test_an_id_is_no_good_in_another_repository() -> None:
    """A session belongs to one repository (CVE-2026-32589)."""
    ticket = IDS.mint(APP, Algorithm.SHA256, NOW)

    assert IDS.check(RepositoryName.parse("team/other"), ticket.upload_id) is None


def test_another_secret_does_not_know_it() -> None:
    """Ids of another installation are unknown."""
    assert UploadIds(b"x" * 32).check(APP, IDS.mint(APP, Algorithm.SHA256, NOW).upload_id) is None


@given(st.data())
def test_no_changed_id_is_taken(data: st.DataObject) -> None:
    """Whatever character is changed, added or dropped: unknown, and never an error."""
    text = IDS.mint(APP, Algorithm.SHA256, NOW).upload_id
    place = data.draw(st.integers(0, len(text) - 1))
    with_other = text[:place] + data.draw(st.characters()) + text[place + 1 :]

    for changed in {with_other, text[:-1], text + "A", text + "=", text.upper()} - {text}:
        assert IDS.check(APP, changed) is None


def test_finished_sessions_are_remembered_for_as_long_as_fresh_ids_are_good() -> None:
    """Else the id of a finished session would look like a fresh one."""
    with pytest.raises(ValueError, match="remembered"):
        UploadLifetimes(unused=timedelta(hours=2), closed=timedelta(hours=1))
