"""Binary values in documents, read strictly: one text stands for one value."""

import base64
import binascii
from typing import Any

from roadstead.oci.strict_json import JsonInvalidError, JsonObject, kind, parse_object
from roadstead.signatures.errors import SignatureInvalidError


def document(raw: bytes, what: str) -> JsonObject:
    """Return the JSON object that bytes hold. Raises SignatureInvalidError."""
    try:
        return parse_object(raw)
    except JsonInvalidError as error:
        raise SignatureInvalidError(f"{what} is {error}") from error


def member(parent: JsonObject, name: str, wanted: type, what: str) -> Any:
    """Return a member that has to be there and of this type. Raises SignatureInvalidError."""
    value = parent.get(name)
    if type(value) is not wanted:
        raise SignatureInvalidError(f"{what} has {kind(value)} as {name}")
    return value


def base64_bytes(text: object, what: str) -> bytes:
    """Return what base64 stands for (RFC 4648 §4, padded). Raises SignatureInvalidError."""
    if not isinstance(text, str):
        raise SignatureInvalidError(f"{what} is {kind(text)}, not base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SignatureInvalidError(f"{what} is not base64") from error


def base64url_bytes(text: object, what: str) -> bytes:
    """Return what base64url without padding stands for (RFC 7515 §2). Raises SignatureInvalidError."""
    if not isinstance(text, str) or not text.isascii() or set(text) & set("+/="):
        raise SignatureInvalidError(f"{what} is not base64url")
    return base64_bytes(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), what)


def base64_text(data: bytes) -> str:
    """Return bytes as base64, padded."""
    return base64.b64encode(data).decode()
