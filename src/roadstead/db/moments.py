"""Moments as the database keeps them: whole microseconds since 1970, UTC; small, exact and alike on every database."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def to_micros(moment: datetime) -> int:
    """Return the microseconds since 1970; exact. The moment is aware."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the aware moment, in UTC; the inverse of `to_micros`.

    Of a moment that only a zone far from UTC has in its calendar, the calendar's end: one row must not hide others.
    """
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return _LAST if micros > 0 else _FIRST
