"""Moments in the database."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from roadstead.db.moments import from_micros, to_micros


@given(st.datetimes(timezones=st.just(UTC)))
def test_moments_come_back_exactly(moment: datetime) -> None:
    """To the microsecond, before 1970 too."""
    assert from_micros(to_micros(moment)) == moment


def test_the_zone_does_not_matter() -> None:
    """A moment is a moment."""
    there = datetime(2026, 3, 1, 14, tzinfo=timezone(timedelta(hours=2)))

    assert to_micros(there) == to_micros(datetime(2026, 3, 1, 12, tzinfo=UTC))


def test_what_the_calendar_has_not_is_its_end() -> None:
    """Such a row is read, with all that stand beside it."""
    assert from_micros(to_micros(datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))))).year == 9999
    assert from_micros(to_micros(datetime.min.replace(tzinfo=timezone(timedelta(hours=14))))).year == 1
