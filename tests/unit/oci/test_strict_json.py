"""JSON that every parser reads alike, and none is exhausted by."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.oci.strict_json import JsonInvalidError, compact, kind, parse_object

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(texts, values, max_size=4), st.sampled_from([None, 2]), st.booleans())
def test_what_json_writes_is_read(document: dict[str, Any], indent: int | None, ascii_only: bool) -> None:
    """However it is spaced and escaped; written compactly it reads back the same, in the same order."""
    raw = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode()

    assert parse_object(raw) == document
    assert compact(parse_object(compact(document))) == compact(document)


@given(st.binary(max_size=60) | st.text('{}[]":,\\u0d8aeE1.-tfn \ufeff', max_size=60).map(str.encode))
def test_whatever_comes_one_error_at_the_most(raw: bytes) -> None:
    """No input raises anything but JsonInvalidError."""
    with suppress(JsonInvalidError):
        assert isinstance(parse_object(raw), dict)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "expecting value"),
        (b"{", "property name"),
        (b"[]", "expected an object, found an array"),
        (b"null", "found null"),
        (b'"x"', "found a string"),
        (b"1.5", "found a number"),
        (b"true", "found a boolean"),
        (b"{} {}", "extra data"),
        (b"{}\x00", "extra data"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a":"\xff"}', "byte 6 isn't UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "isn't UTF-8"),
        ("{}".encode("utf-16"), "isn't UTF-8"),
        (b'{"a":"\n"}', "control character"),
        (b'{"a":1,"b":2,"a":1}', "'a' is there twice"),
        (b'{"x":{"a":1,"\\u0061":2}}', "'a' is there twice"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "-Infinity"),
        (b'{"a":1e999}', "out of range"),
        (b'{"a":' + b"9" * 5000 + b"}", "5000 digits"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"\\uDFFF":1}', "surrogate"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "deeper than 64"),
        (b'{"a":' + b"[" * 2_000_000, "deeper than 64"),
        (b'{"a":"' + b'\\"' * 500_000 + b"[" * 100, "unterminated string"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_what_parsers_differ_about_is_refused(raw: bytes, reason: str) -> None:
    """And what would exhaust them, before it does."""
    with pytest.raises(JsonInvalidError) as caught:
        parse_object(raw)

    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":"\\ud83d\\ude00"}',
        b'{"a":' * 64 + b"1" + b"}" * 64,
        b'{"a":"' + b"[{" * 1000 + b'"}',
        b'{"a":"\\\\","b":[' + b"[]," * 100 + b"1]}",
        b' \r\n\t{"a":1.5e3} ',
    ],
    ids=lambda value: repr(value[:24]),
)
def test_what_is_unusual_but_sound_is_read(raw: bytes) -> None:
    """Whole pairs, brackets in strings, 64 levels."""
    assert parse_object(raw) == json.loads(raw)


def test_a_member_twice_among_very_many_is_found_fast() -> None:
    """Looking for it takes time in proportion, not squared: four megabytes are allowed to come."""
    raw = b"{" + b",".join(b'"%d":1' % number for number in range(60_000)) + b',"59999":2}'

    with pytest.raises(JsonInvalidError, match="'59999' is there twice"):
        parse_object(raw)


def test_compact_refuses_what_json_has_no_word_for() -> None:
    """NaN can't be written any more than read."""
    with pytest.raises(ValueError, match="Out of range"):
        compact({"a": float("nan")})


@pytest.mark.parametrize(("value", "word"), [(None, "null"), (True, "a boolean"), (1, "a number"), ({}, "an object")])
def test_kinds_are_called_as_json_calls_them(value: object, word: str) -> None:
    """In messages."""
    assert kind(value) == word
