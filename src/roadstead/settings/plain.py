"""Settings as plain data and back: how they travel to other processes, and how they are shown."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from roadstead.secret import Secret
from roadstead.settings.address import ListenAddress
from roadstead.settings.convert import TABLES, Source, convert, field_types
from roadstead.settings.database_url import without_password
from roadstead.settings.load import build
from roadstead.settings.model import Settings
from roadstead.settings.quantity import ByteSize, format_duration, format_size
from roadstead.settings.tables import Headers, LogFields, SentHeaders

_ALREADY_RESOLVED = Source(None, Path("/"), None)


def as_plain(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return texts, numbers, lists and tables, secrets revealed: only for processes of our own."""
    return _sections(settings, masked=False)


def as_shown(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the same for people's eyes: secrets are ``***``, also the password in the database's URL."""
    return _sections(settings, masked=True)


def from_plain(plain: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Return the settings that `as_plain` took apart; nothing is resolved again."""
    return build(
        {
            f"{section}.{name}": convert(kind, plain[section][name], f"{section}.{name}", _ALREADY_RESOLVED)
            for section, table in field_types(Settings).items()
            for name, kind in field_types(table).items()
        }
    )


def _sections(settings: Settings, *, masked: bool) -> dict[str, dict[str, Any]]:
    sections: dict[str, dict[str, Any]] = {}
    for section, table in field_types(Settings).items():
        value = getattr(settings, section)
        sections[section] = {
            name: _plain(getattr(value, name), kind, masked=masked) for name, kind in field_types(table).items()
        }
    if masked:
        sections["database"]["url"] = without_password(settings.database_url)
    return sections


def _plain(value: object, kind: Any, *, masked: bool) -> Any:
    if isinstance(value, Secret):
        return str(value) if masked else value.reveal()
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, Path) and masked and ".." in value.parts:
        return str(value.resolve())  # where it leads, which people need not work out
    if isinstance(value, ListenAddress | Path):
        return str(value)
    if isinstance(value, Headers | LogFields):
        return value.as_table()
    if isinstance(value, SentHeaders):
        return value.as_table(masked=masked)
    if isinstance(value, tuple):
        return [_plain(item, None, masked=masked) for item in value]
    if isinstance(value, TABLES):
        table: Any = type(value)
        return {name: _plain(getattr(value, name), each, masked=masked) for name, each in field_types(table).items()}
    if kind is ByteSize and isinstance(value, int):
        return format_size(value)
    return value
