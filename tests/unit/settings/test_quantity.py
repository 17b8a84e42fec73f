"""Durations and sizes as people write them."""

import contextlib
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.settings.quantity import (
    ByteSize,
    DurationInvalidError,
    SizeInvalidError,
    counted,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
    rounded_size,
)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=36_500)))
def test_durations_come_back(duration: timedelta) -> None:
    """What is written is read as the same."""
    assert parse_duration(format_duration(duration)) == duration


@given(st.integers(min_value=0, max_value=1 << 50))
def test_sizes_come_back(size: int) -> None:
    """What is written is read as the same."""
    assert parse_size(format_size(size)) == size


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text does anything but be read or be refused."""
    with contextlib.suppress(DurationInvalidError):
        assert parse_duration(text) >= timedelta(0)
    with contextlib.suppress(SizeInvalidError):
        assert parse_size(text) >= 0


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("30s", timedelta(seconds=30)),
        ("500ms", timedelta(milliseconds=500)),
        ("1h30m", timedelta(minutes=90)),
        ("168h", timedelta(days=7)),
        ("7d", timedelta(days=7)),
        ("0", timedelta(0)),
    ],
)
def test_durations(text: str, duration: timedelta) -> None:
    """Whole numbers with units, one after another."""
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "30", "s", "1 s", "-1s", "1.5s", "1w", "٣s", "99999999h"])
def test_no_durations(text: str) -> None:
    """A number without a unit is ambiguous, and a duration has an end."""
    with pytest.raises(DurationInvalidError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("4MiB", 4 << 20), ("10MB", 10_000_000), ("65536", 65_536), ("1 KiB", 1024), ("7B", 7)]
)
def test_sizes(text: str, size: int) -> None:
    """Binary units are 1024, decimal ones 1000."""
    assert parse_size(text) == ByteSize(size)


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5MiB", "4mib", "4M", "٤"])
def test_no_sizes(text: str) -> None:
    """What could be read two ways isn't read."""
    with pytest.raises(SizeInvalidError):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (1000, "1000"), (4 << 20, "4MiB"), ((4 << 20) + 1024, "4097KiB"), (1 << 40, "1TiB")]
)
def test_sizes_are_written_exactly(size: int, text: str) -> None:
    """The largest unit that loses nothing."""
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (2 << 20, "2.0 MiB"),
        ((2 << 20) + 100_000, "2.1 MiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (5000 << 40, "5000.0 TiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    """Always with a unit."""
    assert rounded_size(size) == text


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (1200, "blob", "1,200 blobs"),
        (1, "repository", "1 repository"),
        (2, "repository", "2 repositories"),
    ],
)
def test_counts_for_people(number: int, noun: str, text: str) -> None:
    """One is one, and any other number is many."""
    assert counted(number, noun) == text
