"""Settings that are tables of free names: HTTP headers, and fields of log lines."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from roadstead.errors import InvalidError
from roadstead.secret import Secret

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 §5.6.2
_VALUE = re.compile(r"[\x20-\x7e\x80-\xff\t]*")  # RFC 9110 §5.5, without line ends and other control characters

# What comes of a reference to an empty secret: nothing, or the scheme alone.
_SAYS = re.compile(r"(?!\s*(?:(?:basic|bearer|token)\s*)?$).*", re.IGNORECASE | re.DOTALL)

_OURS = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "docker-content-digest",
        "keep-alive",
        "location",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""What an answer says of itself: a second value would make clients read it wrongly."""

_OF_THE_REQUEST = frozenset(
    {"connection", "content-encoding", "content-length", "content-type", "host", "keep-alive", "te", "trailer",
     "transfer-encoding", "upgrade", "x-roadstead-signature-256"}
)  # fmt: skip
"""What a request to a receiver says of itself."""

_LINE_FIELDS = frozenset({"time", "level", "event", "exception"})

FieldValue = str | int | float | bool


class HeaderInvalidError(InvalidError):
    """A header can't be sent with every answer."""


class FieldInvalidError(InvalidError):
    """A field can't stand in every log line."""


@dataclass(frozen=True, slots=True)
class Headers:
    """Headers with their values; a name may come several times."""

    pairs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, table: Mapping[str, object]) -> Self:
        """Read ``{Name: [value, …]}``; raises HeaderInvalidError."""
        pairs: list[tuple[str, str]] = []
        for name, values in table.items():
            if not _TOKEN.fullmatch(name):
                raise HeaderInvalidError(f"{name!r} is not a name that a header can have")
            if name.lower() in _OURS:
                raise HeaderInvalidError(f"{name} is for each answer itself to say")
            if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
                raise HeaderInvalidError(f'{name} takes a list of texts, such as ["nosniff"]')
            if not all(_VALUE.fullmatch(value) for value in values):
                raise HeaderInvalidError(f"a value of {name} has a character that no header can carry")
            pairs.extend((name, value) for value in values)
        return cls(tuple(pairs))

    def as_table(self) -> dict[str, list[str]]:
        """Return ``{Name: [value, …]}``: the inverse of `parse`."""
        table: dict[str, list[str]] = {}
        for name, value in self.pairs:
            table.setdefault(name, []).append(value)
        return table


@dataclass(frozen=True, slots=True)
class SentHeaders:
    """Headers of requests that we make, with their values; credentials, as a rule, so the values don't print."""

    pairs: tuple[tuple[str, Secret], ...] = ()

    @classmethod
    def parse(cls, table: Mapping[str, object]) -> Self:
        """Read ``{Name: [value, …]}``, or a single value without its list; raises HeaderInvalidError."""
        pairs: list[tuple[str, Secret]] = []
        for name, given in table.items():
            values = [given] if isinstance(given, str) else given
            if not _TOKEN.fullmatch(name):
                raise HeaderInvalidError(f"{name!r} is not a name that a header can have")
            if name.lower() in _OF_THE_REQUEST:
                raise HeaderInvalidError(f"{name} is for each request itself to say")
            if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
                raise HeaderInvalidError(f'{name} takes a text or a list of texts, such as ["Basic …"]')
            if not all(_VALUE.fullmatch(value) for value in values):
                raise HeaderInvalidError(f"a value of {name} has a character that no header can carry")
            if not all(_SAYS.fullmatch(value) for value in values):
                raise HeaderInvalidError(f"a value of {name} is empty, or a scheme with nothing behind it")
            pairs.extend((name, Secret(value)) for value in values)
        return cls(tuple(pairs))

    def as_table(self, *, masked: bool) -> dict[str, list[str]]:
        """Return ``{Name: [value, …]}``, the inverse of `parse`; masked, each value is ``***``."""
        table: dict[str, list[str]] = {}
        for name, value in self.pairs:
            table.setdefault(name, []).append(str(value) if masked else value.reveal())
        return table


@dataclass(frozen=True, slots=True)
class LogFields:
    """Names and values that stand in every log line."""

    pairs: tuple[tuple[str, FieldValue], ...] = ()

    @classmethod
    def parse(cls, table: Mapping[str, object]) -> Self:
        """Read ``{name: value}``; raises FieldInvalidError."""
        pairs: list[tuple[str, FieldValue]] = []
        for name, value in table.items():
            if name in _LINE_FIELDS:
                raise FieldInvalidError(f"{name} is a field that every line has already")
            if not isinstance(value, str | int | float | bool):
                raise FieldInvalidError(f"{name} takes a text, a number, or true or false")
            pairs.append((name, value))
        return cls(tuple(pairs))

    def as_table(self) -> dict[str, FieldValue]:
        """Return ``{name: value}``: the inverse of `parse`."""
        return dict(self.pairs)
