"""Moments as names hold them."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.oci.reference import ImageReference, RepositoryName, Tag
from roadstead.registry.history import MomentInvalidError, as_of, format_moment, parse_moment


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
        ("2026-11-22t10.05", datetime(2026, 11, 22, 10, 5, tzinfo=UTC)),
        ("2026-11-22t10.05z", datetime(2026, 11, 22, 10, 5, tzinfo=UTC)),
        ("2026-11-22t10.05.30z", datetime(2026, 11, 22, 10, 5, 30, tzinfo=UTC)),
        ("2026-11-22t10.05.30.25z", datetime(2026, 11, 22, 10, 5, 30, 250_000, tzinfo=UTC)),
    ],
)
def test_moments(text: str, expected: datetime) -> None:
    """From a day to a microsecond, in UTC."""
    assert parse_moment(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-11",
        "2026-11-31",
        "2026-11-22t25.00z",
        "2026-11-22t10",
        "2026-11-22t10.00+01",
        "20261122",
        "0-0-0",
    ],
)
def test_what_is_no_moment(text: str) -> None:
    """It is told how one is written."""
    with pytest.raises(MomentInvalidError, match="isn't a time"):
        parse_moment(text)


@given(st.datetimes(min_value=datetime(1000, 1, 1), max_value=datetime(9999, 1, 1)))  # noqa: DTZ001 - made aware below
def test_a_name_of_every_moment(naive: datetime) -> None:
    """Each is read as it was written, and clients take the name."""
    moment = naive.replace(tzinfo=UTC)

    assert parse_moment(format_moment(moment)) == moment
    name = as_of(moment, RepositoryName("team/app"), Tag("V1"))
    reference = ImageReference.parse(f"registry.example/{name}")
    assert str(reference) == f"registry.example/{name}"
