"""Digests while bytes pass, that another process can go on with.

An upload comes in several requests, perhaps to several workers; reading it again for its digest would double the
work. So the running state is exported at each durable offset and kept beside it. A state is sealed with what it is
for (format, algorithm, byte order, number of bytes) and with a check sum; one that doesn't fit is refused, and
whoever has bytes but no state reads the bytes again. docs/decisions/0003-hash-state.md tells why it is done this way.
"""

import hashlib
import sys
import zlib
from typing import Final, Protocol

from roadstead.errors import InvalidError
from roadstead.oci.digest import Algorithm, Digest, DigestMismatchError
from roadstead.storage import libcrypto
from roadstead.storage.ports import Bytes

_FORMAT: Final = b"RSH1"  # Another layout gets another number, so that workers of two releases never mix them up.
_BYTE_ORDERS: Final = {"little": b"<", "big": b">"}


class HashStateInvalidError(InvalidError):
    """An exported state isn't for this digest at this offset, or can't be used here: read the bytes again."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the digest can't go on from the state that was kept: {reason}")
        self.reason = reason


class _Running(Protocol):
    def update(self, data: Bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class ResumableHasher:
    """A running digest whose state can be taken out, where the system's libcrypto allows it.

    ``ResumableHasher(algorithm)`` begins; ``ResumableHasher(algorithm, state, size=size)`` goes on from a state that
    was exported after exactly ``size`` bytes, or raises ``HashStateInvalidError``. Fits wherever
    ``roadstead.oci.digest.Hasher`` does. Not for two threads at the same time.
    """

    def __init__(self, algorithm: Algorithm = Algorithm.SHA256, state: bytes | None = None, *, size: int = 0) -> None:
        self._algorithm = algorithm
        self._layout = libcrypto.LAYOUTS[algorithm.value]
        self._library = libcrypto.load()
        self._size = size
        self._running: _Running
        if state is not None:
            if self._library is None:
                raise HashStateInvalidError("there is no libcrypto here that can take it")
            self._running = libcrypto.Sha2(self._library, self._layout, self._unsealed(state))
        elif size:
            raise HashStateInvalidError(f"{size} bytes have passed and no state was kept")
        elif self._library is not None:
            self._running = libcrypto.Sha2(self._library, self._layout)
        else:
            self._running = hashlib.new(algorithm.value)

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of the digest."""
        return self._algorithm

    @property
    def size(self) -> int:
        """The number of bytes taken so far, those before the state included."""
        return self._size

    def update(self, data: Bytes) -> None:
        """Take the next bytes; the GIL is free meanwhile."""
        self._running.update(data)
        self._size += memoryview(data).nbytes

    def digest(self) -> Digest:
        """Return the digest of what was taken so far; more may follow."""
        return Digest(self._algorithm, self._running.digest().hex())

    def verify(self, expected: Digest) -> None:
        """Raise ``DigestMismatchError`` unless what was taken so far has the digest."""
        actual = self.digest()
        if actual != expected:
            raise DigestMismatchError(expected, actual)

    def export_state(self) -> bytes | None:
        """Return the state for another ``ResumableHasher``, about 140 or 250 bytes; None where there can't be one."""
        if not isinstance(self._running, libcrypto.Sha2):
            return None
        sealed = self._header() + self._running.context()
        return sealed + zlib.crc32(sealed).to_bytes(4, "big")

    def _header(self) -> bytes:
        name = self._algorithm.value.encode().ljust(8)
        return _FORMAT + name + _BYTE_ORDERS[sys.byteorder] + self._size.to_bytes(8, "big")

    def _unsealed(self, state: bytes) -> bytes:
        """Return the context in the state, once everything about it was checked."""
        header = self._header()
        sealed, check = state[:-4], state[-4:]
        if zlib.crc32(sealed).to_bytes(4, "big") != check:
            raise HashStateInvalidError("it is damaged")
        if not sealed.startswith(header):
            raise HashStateInvalidError(
                f"it isn't one of {self._algorithm.value} after {self._size} bytes on a {sys.byteorder}-endian machine"
            )
        context = sealed[len(header) :]
        if not libcrypto.context_fits(self._layout, context, self._size):
            raise HashStateInvalidError("its inner length doesn't fit")
        return context
