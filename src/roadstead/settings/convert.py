"""Raw values of TOML, JSON, variables and flags become the types of the model, or say what was expected."""

import dataclasses
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from roadstead.errors import InvalidError
from roadstead.secret import Secret
from roadstead.settings.address import ListenAddress
from roadstead.settings.findings import Finding, nearest
from roadstead.settings.model import (
    EndpointSettings,
    HtpasswdSettings,
    IssuerSettings,
    IssueSettings,
    KeySettings,
    LayerSettings,
    OidcSettings,
    PolicySettings,
    QuotaSettings,
    RetentionSettings,
    RuleSettings,
    SignaturePolicySettings,
    TokenSettings,
    UpstreamSettings,
)
from roadstead.settings.quantity import ByteSize, parse_duration, parse_size
from roadstead.settings.references import (
    ReferenceInvalidError,
    blanks_around,
    resolve_references,
    resolve_url_references,
)
from roadstead.settings.tables import Headers, LogFields, SentHeaders

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}

_DATABASE_URL = "database.url"  # the one setting whose value has a password inside

TABLES = (
    RuleSettings,
    LayerSettings,
    RetentionSettings,
    PolicySettings,
    HtpasswdSettings,
    QuotaSettings,
    TokenSettings,
    IssueSettings,
    OidcSettings,
    IssuerSettings,
    EndpointSettings,
    UpstreamSettings,
    SignaturePolicySettings,
    KeySettings,
)
"""Tables within settings."""

_FREE_TABLES = (Headers, LogFields, SentHeaders)

_LOCATION = re.compile(r"(?i:(?:https?|docker)://|data:)")
_PATH_WILL_DO = (LayerSettings, HtpasswdSettings, KeySettings)
_PEM = "-----BEGIN "

_PLAIN_WORDS: tuple[tuple[type, str], ...] = (
    (bool, "the truth value"),
    (int, "the number"),
    (float, "the number"),
    (str, "the text"),
)


class ConversionError(InvalidError):
    """A raw value doesn't fit its setting; ``findings`` says where in it."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__("; ".join(str(finding) for finding in findings))
        self.findings = findings


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Where a raw value was written, and how to read it.

    ``textual``: everything is text there (environment, flags), so numbers and lists are read out of text.
    ``environment`` None: references are not followed.
    """

    name: str | None
    directory: Path
    environment: Mapping[str, str] | None
    textual: bool = False


@cache
def field_types(table: Any) -> Mapping[str, Any]:
    """Return the types of a table's fields, in their order."""
    hints = typing.get_type_hints(table)
    return {field.name: hints[field.name] for field in dataclasses.fields(table)}


def convert(kind: Any, raw: object, key: str, source: Source) -> Any:
    """Return `raw` as a value of type `kind`; raises ConversionError with every finding in it."""
    textual = source.textual
    optional = isinstance(kind, types.UnionType)
    if optional:
        kind = typing.get_args(kind)[0]
    if isinstance(raw, str) and source.environment is not None and "${" in raw and not _holds_texts(kind, raw, source):
        try:
            resolve = resolve_url_references if key == _DATABASE_URL else resolve_references
            raw = resolve(raw, environment=source.environment, directory=source.directory)
        except ReferenceInvalidError as error:
            raise ConversionError(Finding(key, str(error), source.name, error.advice(), error.id)) from error
        source = dataclasses.replace(source, environment=None)  # what came in is not searched again
        textual = True
    if optional and (raw is None or (textual and raw == "")):
        return None
    if optional and kind is Secret and raw == "":
        advice = "Give it a value; to do without, leave it out."
        raise ConversionError(Finding(key, "is empty", source.name, advice, "secret.empty"))
    if kind is Secret and isinstance(raw, str) and (wrong := blanks_around(raw)) is not None:
        advice = "Write it without them."
        raise ConversionError(Finding(key, f"it has {wrong}", source.name, advice, "secret.whitespace"))
    if typing.get_origin(kind) is tuple:
        return _many(typing.get_args(kind)[0], raw, key, source, textual=textual)
    if kind in TABLES:
        return _table(kind, raw, key, source)
    if kind in _FREE_TABLES:
        return _free_table(kind, raw, key, source, textual=textual)
    try:
        return _one(kind, raw, source, textual=textual)
    except InvalidError as error:
        raise ConversionError(Finding(key, str(error), source.name)) from error


def _holds_texts(kind: Any, raw: str, source: Source) -> bool:
    """Say whether a variable's text is JSON as it is written: what is referred to then stands in the texts in it."""
    if not source.textual or not (typing.get_origin(kind) is tuple or kind in (*TABLES, *_FREE_TABLES)):
        return False
    try:
        return isinstance(json.loads(raw), list | dict)
    except ValueError:
        return False


def _one(kind: Any, raw: object, source: Source, *, textual: bool) -> object:
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _choice(kind, raw)
    if kind is Path:
        return source.directory / _read_path(raw)
    reader = _READERS.get(kind)
    if reader is None:
        raise TypeError(f"no reader for settings of type {kind!r}")
    return reader(raw, textual)


def _many(kind: Any, raw: object, key: str, source: Source, *, textual: bool) -> tuple[Any, ...]:
    if textual and isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except ValueError as error:
            raise ConversionError(Finding(key, f"expected a list as JSON, got {raw!r}", source.name)) from error
        source = dataclasses.replace(source, textual=False)
    if not isinstance(raw, list | tuple):
        raise ConversionError(Finding(key, f"expected a list, got {_told(raw)}", source.name))
    return tuple(_collect(lambda at: convert(kind, raw[at], f"{key}[{at}]", source), range(len(raw))).values())


def _table(kind: type, raw: object, key: str, source: Source) -> object:
    if kind is LayerSettings and isinstance(raw, str) and _LOCATION.match(raw):
        raw = {"location": raw}
    elif kind in _PATH_WILL_DO and isinstance(raw, str):
        raw = {"pem" if kind is KeySettings and _PEM in raw else "path": raw}
    elif source.textual and isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except ValueError as error:
            raise ConversionError(Finding(key, f"expected a table as JSON, got {raw!r}", source.name)) from error
        source = dataclasses.replace(source, textual=False)
    if kind is IssueSettings and isinstance(raw, bool):
        raw = {"enabled": raw}
    if not isinstance(raw, Mapping):
        raise ConversionError(Finding(key, f"expected a table, got {_told(raw)}", source.name))
    known = field_types(kind)

    def field(name: str) -> object:
        if name not in known:
            raise ConversionError(Finding(f"{key}.{name}", f"unknown key{nearest(name, known)}", source.name))
        return convert(known[name], raw[name], f"{key}.{name}", source)

    return kind(**_collect(field, raw))


def _free_table(
    kind: type[Headers | LogFields | SentHeaders], raw: object, key: str, source: Source, *, textual: bool
) -> object:
    if textual and isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except ValueError as error:
            told = "another text" if kind is SentHeaders else repr(raw)
            raise ConversionError(Finding(key, f"expected a table as JSON, got {told}", source.name)) from error
    if not isinstance(raw, Mapping):
        raise ConversionError(Finding(key, f"expected a table, got {_told(raw)}", source.name))
    try:
        return kind.parse({str(name): _resolved(value, source) for name, value in raw.items()})
    except ReferenceInvalidError as error:
        raise ConversionError(Finding(key, str(error), source.name, error.advice(), error.id)) from error
    except InvalidError as error:
        raise ConversionError(Finding(key, str(error), source.name)) from error


def _resolved(raw: object, source: Source) -> object:
    """Follow the references in a text, or in the texts of a list."""
    if isinstance(raw, list | tuple):
        return [_resolved(each, source) for each in raw]
    if isinstance(raw, str) and source.environment is not None and "${" in raw:
        return resolve_references(raw, environment=source.environment, directory=source.directory)
    return raw


def _collect(read: Callable[[Any], object], names: typing.Iterable[Any]) -> dict[Any, Any]:
    """Read everything before complaining, so that one run tells every mistake."""
    values: dict[Any, object] = {}
    findings: list[Finding] = []
    for name in names:
        try:
            values[name] = read(name)
        except ConversionError as error:
            findings.extend(error.findings)
    if findings:
        raise ConversionError(*findings)
    return values


def _told(raw: object) -> str:
    """Say what came, for a message: the kind of value and the value."""
    if isinstance(raw, list | tuple):
        return "a list"
    if isinstance(raw, Mapping):
        return "a table"
    word = next((word for kind, word in _PLAIN_WORDS if isinstance(raw, kind)), "the value")
    return f"{word} {json.dumps(raw, default=str, ensure_ascii=False)}"


def _text(raw: object, expected: str = "a text") -> str:
    if not isinstance(raw, str):
        raise InvalidError(f"expected {expected}, got {_told(raw)}")
    return raw


def _read_path(raw: object) -> Path:
    text = _text(raw)
    if not text:  # it would be the directory that paths begin at
        raise InvalidError("expected a path, got an empty text")
    return Path(text).expanduser()


def _read_text(raw: object, textual: bool) -> str:  # noqa: FBT001 - one shape for all readers
    return _text(raw)


def _read_whole_number(raw: object, textual: bool) -> int:  # noqa: FBT001 - as above
    if textual and isinstance(raw, str) and _WHOLE_NUMBER.fullmatch(raw):
        return int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise InvalidError(f"expected a whole number, got {_told(raw)}")
    return raw


def _read_truth(raw: object, textual: bool) -> bool:  # noqa: FBT001 - as above
    if textual and isinstance(raw, str) and raw.lower() in _TRUTH:
        return _TRUTH[raw.lower()]
    if not isinstance(raw, bool):
        raise InvalidError(f"expected true or false, got {_told(raw)}")
    return raw


def _read_duration(raw: object, textual: bool) -> timedelta:  # noqa: FBT001 - as above
    return parse_duration(_text(raw, 'a duration such as "30s" or "1h"'))


def _read_size(raw: object, textual: bool) -> ByteSize:  # noqa: FBT001 - as above
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
        return ByteSize(raw)
    return parse_size(_text(raw, 'a size such as "4MiB", or a number of bytes'))


def _read_secret(raw: object, textual: bool) -> Secret:  # noqa: FBT001 - as above
    if not isinstance(raw, str):
        # What came isn't shown: a number may well be the secret itself.
        raise InvalidError("expected a text, got another kind of value")
    return Secret(raw)


def _read_address(raw: object, textual: bool) -> ListenAddress:  # noqa: FBT001 - as above
    return ListenAddress.parse(_text(raw, "HOST:PORT"))


def _choice(kind: type[StrEnum], raw: object) -> StrEnum:
    words = [member.value for member in kind]
    text = _text(raw, f"one of {', '.join(words)}")
    if text not in words:
        raise InvalidError(f"expected one of {', '.join(words)}, got {text!r}{nearest(text, words)}")
    return kind(text)


_READERS: Mapping[Any, Callable[[object, bool], object]] = {
    str: _read_text,
    int: _read_whole_number,
    bool: _read_truth,
    timedelta: _read_duration,
    ByteSize: _read_size,
    Secret: _read_secret,
    ListenAddress: _read_address,
}
