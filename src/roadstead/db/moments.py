"""Moments as the database keeps them: whole microseconds since 1970, UTC; small, exact and alike on every database."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Return the microseconds since 1970; exact. The moment is aware."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the aware moment, in UTC; the inverse of `to_micros`."""
    return _EPOCH + timedelta(microseconds=micros)
