"""Settings that are tables of free names."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.settings.findings import SettingsInvalidError
from roadstead.settings.load import load_unchecked
from roadstead.settings.plain import as_plain, from_plain
from roadstead.settings.tables import HeaderInvalidError, Headers, LogFields

_NAMES = st.from_regex(r"\Ax-[a-z]{1,8}\Z")
_VALUES = st.lists(st.from_regex(r"\A[ -~]{0,10}\Z"), min_size=1, max_size=3)


@given(st.dictionaries(_NAMES, _VALUES))
def test_headers_come_back(table: dict[str, list[str]]) -> None:
    """`as_table` is the inverse of `parse`."""
    assert Headers.parse(table).as_table() == table


@given(st.dictionaries(st.from_regex(r"\A[a-d]{1,4}\Z"), st.text() | st.integers() | st.booleans()))
def test_fields_come_back(table: dict[str, object]) -> None:
    """So it is with fields of log lines."""
    assert LogFields.parse(table).as_table() == table


@pytest.mark.parametrize(
    "table",
    [
        {"X": "nosniff"},
        {"X": [1]},
        {"X y": ["a"]},
        {"": ["a"]},
        {"X": ["a\r\nSet-Cookie: b"]},
        {"X": ["\u20ac"]},
        {"Content-Length": ["0"]},
        {"location": ["/"]},
    ],
)
def test_what_no_answer_can_carry_is_refused(table: dict[str, object]) -> None:
    """Line ends, odd names, and what each answer says of itself."""
    with pytest.raises(HeaderInvalidError):
        Headers.parse(table)


def test_tables_travel(tmp_path: Path) -> None:
    """They are read from TOML and from JSON in the environment, follow references, and reach the other processes."""
    path = tmp_path / "r.toml"
    path.write_text('[server]\nheaders = { X-Site = ["${env:SITE}", "b"] }\n')
    environment = {"SITE": "here", "ROADSTEAD_LOG_FIELDS": '{"service": "registry", "shard": 3}'}

    settings = load_unchecked(path, environment=environment).settings

    assert settings.server.headers == Headers((("X-Site", "here"), ("X-Site", "b")))
    assert settings.log.fields == LogFields((("service", "registry"), ("shard", 3)))
    assert from_plain(json.loads(json.dumps(as_plain(settings)))) == settings


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("ROADSTEAD_SERVER_HEADERS", "X: y"),
        ("ROADSTEAD_SERVER_HEADERS", '["x"]'),
        ("ROADSTEAD_LOG_FIELDS", '{"level": "x"}'),
        ("ROADSTEAD_LOG_FIELDS", '{"x": {}}'),
    ],
)
def test_tables_that_cannot_be_read(variable: str, text: str) -> None:
    """A finding names the key and where it was said."""
    with pytest.raises(SettingsInvalidError, match=variable):
        load_unchecked(None, environment={variable: text})
