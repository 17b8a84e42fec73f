"""Quantities as people write them: durations (``30s``, ``1h30m``) and sizes in bytes (``4MiB``)."""

import re
from datetime import timedelta
from typing import NewType

from roadstead.errors import InvalidError

ByteSize = NewType("ByteSize", int)

_MICROSECONDS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_DURATION = re.compile(r"(?:[0-9]{1,18}(?:us|ms|s|m|h|d))+|0")
_DURATION_PART = re.compile(r"([0-9]+)(us|ms|s|m|h|d)")
_WRITTEN_UNITS = ("h", "m", "s", "ms", "us")
_MAX_DURATION = timedelta(days=36_500)

_BYTES = {
    "": 1,
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}
_SIZE = re.compile(r"([0-9]{1,18}) ?([A-Za-z]{0,3})")


class DurationInvalidError(InvalidError):
    """A text isn't a duration."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not a duration such as 30s, 500ms, 1h30m or 168h")
        self.text = text


class SizeInvalidError(InvalidError):
    """A text isn't a size in bytes."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not a size such as 4MiB, 10MB or 65536 (bytes)")
        self.text = text


def parse_duration(text: str) -> timedelta:
    """Read ``1h30m``: whole numbers with us, ms, s, m, h or d; a bare number has no unit and is refused.

    Up to a century. Raises DurationInvalidError.
    """
    if not _DURATION.fullmatch(text):
        raise DurationInvalidError(text)
    microseconds = sum(int(number) * _MICROSECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    if microseconds > _MAX_DURATION // timedelta(microseconds=1):
        raise DurationInvalidError(text)
    return timedelta(microseconds=microseconds)


def format_duration(duration: timedelta) -> str:
    """Write a duration in the largest unit that holds it exactly, up to hours: the inverse of parse_duration."""
    microseconds = duration // timedelta(microseconds=1)
    if microseconds == 0:
        return "0s"
    unit = next(unit for unit in _WRITTEN_UNITS if microseconds % _MICROSECONDS[unit] == 0)
    return f"{microseconds // _MICROSECONDS[unit]}{unit}"


def parse_size(text: str) -> ByteSize:
    """Read ``4MiB`` (1024²), ``10MB`` (1000²) or a bare number of bytes; raises SizeInvalidError."""
    match = _SIZE.fullmatch(text)
    if match is None or match[2] not in _BYTES:
        raise SizeInvalidError(text)
    return ByteSize(int(match[1]) * _BYTES[match[2]])


def format_size(size: int) -> str:
    """Write a size in the largest binary unit that holds it exactly: the inverse of parse_size."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return str(size)


def rounded_size(size: int) -> str:
    """Write a size for people, `2.0 MiB`: in the largest binary unit that it reaches, to one decimal place."""
    if size < _BYTES["KiB"]:
        return f"{size} B"
    # What would round up to 1024.0 belongs to the next unit.
    units = ("KiB", "MiB", "GiB", "TiB")
    unit = next((unit for unit in units if round(size / _BYTES[unit], 1) < 1024), units[-1])
    return f"{size / _BYTES[unit]:.1f} {unit}"


def counted(number: int, noun: str) -> str:
    """Write how many there are, for people: ``1 image``, ``1,200 images``, ``2 repositories``."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun.removesuffix('y')}ies" if noun.endswith("y") else f"{number:,} {noun}s"
