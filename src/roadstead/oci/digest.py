"""Content addresses (image-spec descriptor.md, Digests) and the hashing that makes and checks them.

DigestInvalidError          text that isn't a digest
└── DigestUnsupportedError  a well-formed digest under an algorithm that isn't registered
DigestMismatchError         bytes that aren't what their digest says
"""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from roadstead.errors import InvalidError

# Each class is disjoint from the one that follows it, so matching is linear; ASCII only, and `fullmatch`, because
# `$` would let a line feed pass into keys and headers.
_ALGORITHM = re.compile(r"[a-z0-9]++(?:[+._-][a-z0-9]++)*+")
_ENCODED = re.compile(r"[a-zA-Z0-9=_-]++")
_HEX = re.compile(r"[0-9a-f]++")

MAX_LENGTH = 256
"""Characters looked at before anything else is; the longest registered digest has 135."""


class Algorithm(StrEnum):
    """The registered algorithms (image-spec descriptor.md, Registered Algorithms)."""

    SHA256 = "sha256"
    SHA512 = "sha512"

    @property
    def hex_length(self) -> int:
        """The number of hexadecimal digits in a digest's encoded part."""
        return _HEX_LENGTHS[self]


_HEX_LENGTHS = {Algorithm.SHA256: 64, Algorithm.SHA512: 128}
_ALGORITHMS = {algorithm.value: algorithm for algorithm in Algorithm}


class DigestInvalidError(InvalidError):
    """A text isn't a digest (distribution-spec code-4)."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"{text[:80]!r} isn't a digest: {reason}")
        self.text = text
        self.reason = reason

    def advice(self) -> str:
        """Show what a digest looks like."""
        return "Write it as sha256: and 64 lower-case hexadecimal digits."


class DigestUnsupportedError(DigestInvalidError):
    """A digest is well formed, but its algorithm isn't one we can check (distribution-spec code-4)."""

    def __init__(self, text: str, algorithm: str) -> None:
        super().__init__(text, f"the algorithm {algorithm!r} isn't supported, sha256 and sha512 are")
        self.algorithm = algorithm


class DigestMismatchError(InvalidError):
    """Bytes have another digest than the one they were announced under (distribution-spec code-4)."""

    def __init__(self, expected: "Digest", actual: "Digest") -> None:
        super().__init__(f"the content is {actual}, not {expected}")
        self.expected = expected
        self.actual = actual


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """Content address ``algorithm:encoded`` (image-spec descriptor.md, Digests)."""

    algorithm: Algorithm
    encoded: str
    """Lower-case hexadecimal digits, as many as the algorithm makes."""

    def __post_init__(self) -> None:
        if len(self.encoded) != _HEX_LENGTHS[self.algorithm] or _HEX.fullmatch(self.encoded) is None:
            expected = f"expected {_HEX_LENGTHS[self.algorithm]} lower-case hexadecimal digits after the colon"
            raise DigestInvalidError(str(self), expected)

    def __hash__(self) -> int:
        return hash(self.encoded)  # what is equal has the same; the algorithm tells no two apart that digits don't

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``sha256:<64 hex>`` or ``sha512:<128 hex>``; raise DigestInvalidError for anything else."""
        if len(text) > MAX_LENGTH:
            raise DigestInvalidError(text, f"longer than {MAX_LENGTH} characters")
        name, colon, encoded = text.partition(":")
        if not colon:
            raise DigestInvalidError(text, "expected algorithm:encoded, there is no colon")
        algorithm = _ALGORITHMS.get(name)
        if algorithm is not None:
            return cls(algorithm, encoded)
        if _ALGORITHM.fullmatch(name) is None or _ENCODED.fullmatch(encoded) is None:
            raise DigestInvalidError(text, "expected algorithm:encoded")
        raise DigestUnsupportedError(text, name)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, algorithm: Algorithm = Algorithm.SHA256) -> Self:
        """Return the digest of *data*, all of which is in memory."""
        return cls(algorithm, hashlib.new(algorithm.value, data).hexdigest())

    def __str__(self) -> str:
        return self.algorithm + ":" + self.encoded  # asking for the member's value costs more than all the rest


class Hasher:
    """Digests bytes while they pass, and counts them.

    ``update`` lets other threads run while it works on a large piece; call it in a thread then.
    """

    __slots__ = ("_hash", "algorithm", "size")

    def __init__(self, algorithm: Algorithm = Algorithm.SHA256) -> None:
        self.algorithm = algorithm
        self.size = 0
        self._hash = hashlib.new(algorithm.value)

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Add the next bytes; a memoryview of any item size counts in bytes."""
        self._hash.update(data)
        self.size += data.nbytes if isinstance(data, memoryview) else len(data)

    def digest(self) -> Digest:
        """Return the digest of everything so far; more may follow."""
        return Digest(self.algorithm, self._hash.hexdigest())

    def copy(self) -> "Hasher":
        """Return a hasher that goes on from here by itself."""
        twin = Hasher(self.algorithm)
        twin._hash = self._hash.copy()
        twin.size = self.size
        return twin

    def verify(self, expected: Digest) -> None:
        """Raise DigestMismatchError unless what passed is what *expected* names (under its own algorithm)."""
        actual = self.digest()
        if actual != expected:
            raise DigestMismatchError(expected, actual)
