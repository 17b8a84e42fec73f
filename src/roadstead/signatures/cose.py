"""COSE_Sign1, as notation's envelopes are (RFC 9052 §4.2; notaryproject signature-envelope-cose.md).

Only what such an envelope needs is read: whole items in a definite length, no key twice in a map, and no tag but the
envelope's own and that of a time. So whoever else reads it reads the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NoReturn, TypeAlias

import cbor2

from roadstead.signatures.errors import SignatureInvalidError

Headers: TypeAlias = Mapping[Any, Any]

ALGORITHM, CRITICAL, CONTENT_TYPE, CHAIN, HASHED = 1, 2, 3, 33, 258
"""Labels of headers: IANA's COSE Header Parameters."""

ALGORITHMS = {-7: "ES256", -35: "ES384", -36: "ES512", -37: "PS256", -38: "PS384", -39: "PS512"}
"""The algorithms that notation's envelopes may name, as JWS names them."""

_TAG = b"\xd2"  # 18, in its one byte
_TIME = 1  # RFC 8949 §3.4.2
_MAX_DEPTH = 8
MAX_ITEMS = 1024
"""Items that are read, of whatever kind: an envelope has some thirty, and each takes its time."""

_BYTES, _TEXT = 2, 3  # RFC 8949 §3.1
_IN_HEAD, _LONGEST = 24, 27  # §3: below, the argument stands in the first byte; above, nothing that is allowed here
_LABELS = (int, str)
# What the library would make something of: nothing of it belongs into an envelope.
_FOREIGN_TAGS = (0, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 100, 256, 258, 260, 261, 1004, 43000, 55799)


@dataclass(frozen=True, slots=True)
class Time:
    """Seconds since 1970."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Sign1:
    """An envelope, taken apart; nothing of it was checked yet."""

    protected: Headers
    unprotected: Headers
    payload: bytes
    signature: bytes
    signed: bytes
    """What the signature is of: the Sig_structure (RFC 9052 §4.4)."""

    @classmethod
    def parse(cls, raw: bytes) -> "Sign1":
        """Read a tagged envelope with its payload in it. Raises SignatureInvalidError."""
        if not raw.startswith(_TAG):
            raise SignatureInvalidError("the envelope isn't a COSE_Sign1 with its tag")
        match _decoded(raw[len(_TAG) :], "the envelope"):
            case [bytes() as head, dict() as unprotected, bytes() as payload, bytes() as signature]:
                protected = _decoded(head, "the protected header")
            case _:
                raise SignatureInvalidError("the envelope isn't of four parts: headers, payload, signature")
        if not isinstance(protected, dict):
            raise SignatureInvalidError("the protected header isn't a map")
        if any(type(label) not in _LABELS for label in (*protected, *unprotected)):
            raise SignatureInvalidError("a header's label is neither a number nor a text")
        if protected.keys() & unprotected.keys():
            raise SignatureInvalidError("a header is both protected and not")  # RFC 9052 §3
        signed = cbor2.dumps(["Signature1", head, b"", payload])
        return cls(protected, unprotected, payload, signature, signed)


def _decoded(raw: bytes, what: str) -> Any:
    """Return the one item that bytes hold."""
    # First: keys that are lists of -1 and -2 all have one hash, and a map of some thousand takes the library minutes.
    if not _has_few_items(raw):
        raise SignatureInvalidError(f"{what} has more than {MAX_ITEMS:,} items")
    stream = BytesIO(raw)
    decoder = cbor2.CBORDecoder(
        stream,
        tag_hook=_refuse,
        semantic_decoders={_TIME: _time, **dict.fromkeys(_FOREIGN_TAGS, _refuse)},
        max_depth=_MAX_DEPTH,
        allow_indefinite=False,
        allow_duplicate_keys=False,
    )
    try:
        found = decoder.decode()
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise SignatureInvalidError(f"{what} isn't CBOR as an envelope has it") from error
    if stream.tell() != len(raw):
        raise SignatureInvalidError(f"more follows behind {what}")
    return found


def _has_few_items(raw: bytes) -> bool:
    """Say whether bytes hold no more items than are read, as far as they are what is read at all."""
    at = 0
    for _ in range(MAX_ITEMS):
        if at >= len(raw):
            return True
        kind, argument = raw[at] >> 5, raw[at] & 0x1F
        at += 1
        if argument > _LONGEST:
            return True  # the library comes as far as this, and refuses it
        if argument >= _IN_HEAD:
            size = 1 << (argument - _IN_HEAD)
            argument = int.from_bytes(raw[at : at + size], "big")
            at += size
        if kind in (_BYTES, _TEXT):
            at += argument
    return at >= len(raw)


def _time(value: Any, _: object) -> Time:
    if type(value) not in (int, float):
        raise ValueError("a time that isn't a number")
    return Time(value)


def _refuse(_: Any, __: object) -> NoReturn:
    raise ValueError("a tag that no envelope has")
