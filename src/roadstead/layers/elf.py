"""What a program tells of itself before it runs: for which machine it is, and which libraries it needs (elf(5)).

Only 64-bit little-endian files are read, which is what amd64 and arm64 have.
"""

import struct
from dataclasses import dataclass
from typing import Final, Self

from roadstead.layers.errors import PackageInvalidError

MACHINES: Final = {"amd64": 62, "arm64": 183}
"""ELF's number for each architecture that we make layers for: EM_X86_64, EM_AARCH64."""

_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3
_NEEDED, _STRING_TABLE = 1, 5


@dataclass(frozen=True, slots=True)
class Program:
    """A program or library."""

    machine: int
    interpreter: str | None
    """The loader that a dynamic program asks for; None in a static one and in a library."""

    needed: tuple[str, ...]
    """The names of libraries, such as ``libc.so.6``."""

    @classmethod
    def parse(cls, name: str, raw: bytes) -> Self:
        """Read an ELF file. Pure. PackageInvalidError, which names the file *name*, if it isn't one or is damaged."""
        if raw[:6] != b"\x7fELF\x02\x01":
            raise PackageInvalidError(name, "it isn't a 64-bit program")
        try:
            return cls._parse(raw)
        except (struct.error, ValueError) as error:
            raise PackageInvalidError(name, f"its ELF headers are damaged: {error}") from error

    @classmethod
    def _parse(cls, raw: bytes) -> Self:
        (machine,) = struct.unpack_from("<H", raw, 18)
        (table,) = struct.unpack_from("<Q", raw, 32)
        size, count = struct.unpack_from("<HH", raw, 54)
        loaded: list[tuple[int, int, int]] = []  # address, offset, size
        dynamic: tuple[int, int] | None = None
        interpreter = None
        for number in range(count):
            kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", raw, table + number * size)
            if kind == _LOAD:
                loaded.append((address, offset, length))
            elif kind == _DYNAMIC:
                dynamic = offset, length
            elif kind == _INTERPRETER:
                interpreter = raw[offset : offset + length].rstrip(b"\0").decode()
        return cls(machine, interpreter, _needed(raw, loaded, dynamic))


def _needed(raw: bytes, loaded: list[tuple[int, int, int]], dynamic: tuple[int, int] | None) -> tuple[str, ...]:
    if dynamic is None:
        return ()
    start, length = dynamic
    entries = [struct.unpack_from("<QQ", raw, at) for at in range(start, start + length - 15, 16)]
    strings = next((value for tag, value in entries if tag == _STRING_TABLE), None)
    names = [value for tag, value in entries if tag == _NEEDED]
    if not names:
        return ()
    if strings is None:
        raise ValueError("there is no table of strings")
    # The table is told by where it will be in memory; the loaded parts say where that is in the file.
    base = next((at + strings - low for low, at, size in loaded if low <= strings < low + size), None)
    if base is None:
        raise ValueError("the table of strings isn't loaded")
    return tuple(raw[base + name : raw.index(b"\0", base + name)].decode() for name in names)
