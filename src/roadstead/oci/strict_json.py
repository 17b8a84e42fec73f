"""JSON objects as every reader must understand them (RFC 8259, made strict as I-JSON, RFC 7493).

Two parsers that read one document in two ways are how a scanner approves what an engine doesn't run. So a document is
refused where parsers differ: two members of one name, NaN, a byte order mark, bytes that aren't UTF-8, halves of
surrogate pairs. It is also refused where it could exhaust a parser: deep nesting, endless numbers.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from math import isinf
from typing import Any, TypeAlias

from roadstead.errors import InvalidError

JsonObject: TypeAlias = dict[str, Any]

MAX_DEPTH = 64
"""Levels of nesting accepted. Manifests have five or so; Python's parser recurses, and would fail near a thousand."""

_MAX_DIGITS = 20  # 2^63 has 19; int() takes quadratic time over digits.

# A string always matches from its first quote, closed or not: then no position is looked at twice.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class JsonInvalidError(InvalidError):
    """Bytes aren't a JSON object that every parser reads alike; ``reason`` says what is wrong."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a strict JSON object: {reason}")
        self.reason = reason


def parse_object(raw: bytes, *, max_depth: int = MAX_DEPTH) -> JsonObject:
    """Return the object that *raw* holds, members in their order; raise JsonInvalidError otherwise. Pure."""
    if raw.startswith(_BYTE_ORDER_MARK):
        raise JsonInvalidError("it begins with a byte order mark")
    _check_depth(raw, max_depth)
    try:
        document = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise JsonInvalidError(f"byte {error.start} isn't UTF-8") from error
    except json.JSONDecodeError as error:
        raise JsonInvalidError(f"{error.msg.lower().removesuffix(' at')} at character {error.pos}") from error
    if not isinstance(document, dict):
        raise JsonInvalidError(f"expected an object, found {kind(document)}")
    if _SURROGATE_ESCAPE.search(raw) is not None:
        _check_surrogates(document)
    return document


def compact(document: Mapping[str, Any]) -> bytes:
    """Return *document* as JSON without insignificant white space, members in their order, as UTF-8. Deterministic."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def kind(value: object) -> str:
    """Return what JSON calls *value*, for messages: ``a string``, ``an object``…"""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list():
            return "an array"
        case _:
            return "an object"


def _check_depth(raw: bytes, max_depth: int) -> None:
    """Refuse deep nesting before the parser recurses into it."""
    if raw.count(b"{") + raw.count(b"[") <= max_depth:
        return
    depth = 0
    for byte in _STRING.sub(b"", raw).translate(None, _NOT_BRACKETS):
        depth += 1 if byte in b"[{" else -1
        if depth > max_depth:
            raise JsonInvalidError(f"nested deeper than {max_depth} levels")


def _check_surrogates(document: JsonObject) -> None:
    """Refuse half a surrogate pair: it has no UTF-8 form, so no store or answer could carry it."""
    try:
        compact(document)
    except UnicodeEncodeError as error:
        raise JsonInvalidError("half of a surrogate pair in a string") from error


def _unique(members: list[tuple[str, Any]]) -> JsonObject:
    found = dict(members)
    if len(found) != len(members):
        [(twice, _)] = Counter(name for name, _ in members).most_common(1)
        raise JsonInvalidError(f"the member {twice[:80]!r} is there twice")
    return found


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise JsonInvalidError(f"a number of {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if isinf(value):
        raise JsonInvalidError(f"the number {text[:40]} is out of range")
    return value


def _constant(text: str) -> float:
    raise JsonInvalidError(f"{text} isn't JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_float, parse_constant=_constant, strict=True
)
