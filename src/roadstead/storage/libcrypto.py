"""SHA-2 of the system's libcrypto, with a state that can be taken out: plain memory, where hashlib has none.

``SHA256_CTX`` and ``SHA512_CTX`` are public structures of ``<openssl/sha.h>`` whose layout is the same in OpenSSL 1.0
to 3.x, LibreSSL, BoringSSL and AWS-LC. ``ctypes`` lets go of the GIL around every call. Whether all this holds here
is tried before the first use (``load``); where it doesn't, there is simply no ``Sha2``.
"""

import ctypes
import ctypes.util
import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from roadstead.storage.ports import Bytes

_GUARD: Final = 64  # Bytes behind the context that must stay as they are: a larger structure shows itself there.
_LIBRARY: Final = re.compile(r"/libcrypto[^/]*\.so[^/]*$")


@dataclass(frozen=True, slots=True)
class Layout:
    """The structure of one algorithm's context: words, length in bits (two words), block, filling, digest length."""

    name: str  # as hashlib and the functions' names have it: sha256, SHA256_Update
    word_size: int
    digest_size: int

    @property
    def block_size(self) -> int:
        """The size of the block that the algorithm works on."""
        return 16 * self.word_size

    @property
    def length_offset(self) -> int:
        """Where the length in bits lies: low word, high word."""
        return 8 * self.word_size

    @property
    def filling_offset(self) -> int:
        """Where the number of bytes lies that wait in the block for it to fill."""
        return 10 * self.word_size + self.block_size

    @property
    def context_size(self) -> int:
        """The size of the whole structure."""
        return self.filling_offset + 8


LAYOUTS: Final = {layout.name: layout for layout in (Layout("sha256", 4, 32), Layout("sha512", 8, 64))}


class _Buffer(ctypes.Structure):
    """``Py_buffer``: how CPython shows an object's memory, read-only or not, without copying it."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int)
_get_buffer.restype = ctypes.c_int
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.POINTER(_Buffer),)
_release_buffer.restype = None


class Sha2:
    """One running digest; not for two threads at the same time."""

    def __init__(self, library: ctypes.CDLL, layout: Layout, context: bytes | None = None) -> None:
        upper = layout.name.upper()
        self._update: Any = library[f"{upper}_Update"]
        self._finish: Any = library[f"{upper}_Final"]
        self._layout = layout
        self._context = ctypes.create_string_buffer(layout.context_size + _GUARD)
        if context is None:
            if library[f"{upper}_Init"](self._context) != 1:
                raise OSError(f"libcrypto refuses {upper}_Init")
        else:
            ctypes.memmove(self._context, context, layout.context_size)

    def update(self, data: Bytes) -> None:
        """Take the next bytes, without the GIL."""
        buffer = _Buffer()
        _get_buffer(data, ctypes.byref(buffer), 0)  # ctypes raises what CPython raises, a BufferError for one.
        try:
            length = buffer.len
            accepted = self._update(self._context, ctypes.c_void_p(buffer.buf), ctypes.c_size_t(length))
        finally:
            _release_buffer(ctypes.byref(buffer))
        if accepted != 1:
            raise OSError("libcrypto refuses to go on with a digest")

    def digest(self) -> bytes:
        """Return the digest of what was taken so far; more may follow."""
        context = ctypes.create_string_buffer(self._context.raw, len(self._context))
        digest = ctypes.create_string_buffer(self._layout.digest_size)
        if self._finish(digest, context) != 1:
            raise OSError("libcrypto refuses to finish a digest")
        return digest.raw

    def context(self) -> bytes:
        """Return the context's memory, for another ``Sha2`` on a machine of the same byte order."""
        return self._context.raw[: self._layout.context_size]

    def guard(self) -> bytes:
        """Return the bytes behind the context: zeros, if the structure is as we think."""
        return self._context.raw[self._layout.context_size :]


@cache
def load() -> ctypes.CDLL | None:
    """Return a libcrypto whose contexts were seen to behave, or None."""
    for name in _candidates():
        try:
            library = ctypes.CDLL(name)
            if all(_behaves(library, layout) for layout in LAYOUTS.values()):
                return library
        except (OSError, AttributeError):  # It can't be loaded, or has no such functions.
            continue
    return None


def _candidates() -> Iterator[str]:
    """Yield the libcrypto that this process has loaded already, then the one that the linker knows."""
    try:
        maps = Path("/proc/self/maps").read_text(errors="surrogateescape")
    except OSError:  # Not Linux.
        maps = ""
    yield from dict.fromkeys(
        line.split(maxsplit=5)[5] for line in maps.splitlines() if _LIBRARY.search(line) is not None
    )
    if (name := ctypes.util.find_library("crypto")) is not None:
        yield name


def _behaves(library: ctypes.CDLL, layout: Layout) -> bool:
    """Try a digest with its state taken out in the middle, at a block's end and inside one, against hashlib."""
    sample = bytes(range(256)) * 5
    expected = hashlib.new(layout.name, sample).digest()
    for position in (0, 1, layout.block_size, 3 * layout.block_size + 7, len(sample)):
        first = Sha2(library, layout)
        first.update(memoryview(sample)[:position])
        second = Sha2(library, layout, first.context())
        second.update(bytearray(sample[position:]))
        if not (second.digest() == second.digest() == expected and context_fits(layout, first.context(), position)):
            return False
        if any(first.guard()) or any(second.guard()):
            return False
    return True


def context_fits(layout: Layout, context: bytes, size: int) -> bool:
    """Tell whether a context of that layout can be the one after ``size`` bytes.

    Its length in bits (two words), its filling and its digest length follow from the size; wrong ones would make
    libcrypto read or write beyond its block.
    """
    high, low = divmod(8 * size, 256**layout.word_size)
    length = _native(low, layout.word_size) + _native(high, layout.word_size)
    filling = _native(size % layout.block_size, 4) + _native(layout.digest_size, 4)
    return (
        len(context) == layout.context_size
        and context[layout.length_offset :].startswith(length)
        and context[layout.filling_offset :] == filling
    )


def _native(number: int, size: int) -> bytes:
    return number.to_bytes(size, sys.byteorder)
