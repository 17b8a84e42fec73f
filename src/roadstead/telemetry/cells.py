"""Numbers that many processes count and any of them can read: a file of cells for each process, mapped into memory.

Counting is an addition in the process's own file, without a lock or a system call; whoever is asked for the numbers
reads every file. A process that takes the place of one that died goes on counting in its file, so no total goes back.

    file    = header, record…
    header  = u64: bytes used · u64: the process's id · 16 bytes free
    record  = u32: bytes of the key · u32: number of cells · key, filled up to 8 bytes · cells (float64)

Everything lies on 8 bytes, so that a reader never sees half a number.
"""

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SIZE: Final = 1 << 20  # sparse: pages that nobody counts in take no memory
_HEADER: Final = struct.Struct("<QQ16x")
_RECORD: Final = struct.Struct("<II")
_WORD: Final = 8
_SUFFIX: Final = ".cells"
_MAX_WIDTH: Final = 64


@dataclass(frozen=True, slots=True)
class ProcessCells:
    """What one process counted: its name and id, and the cells by key."""

    name: str
    pid: int
    cells: dict[str, tuple[float, ...]]


class CellFile:
    """The cells of this process. Not for several threads at once."""

    def __init__(self, directory: Path, name: str) -> None:
        """Open the file of the process called `name` (``worker-1``), or go on with the one that is there."""
        descriptor = os.open(directory / f"{name}{_SUFFIX}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, _SIZE)
            self._memory = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)
        self._used: int = max(_HEADER.unpack_from(self._memory)[0], _HEADER.size)
        _HEADER.pack_into(self._memory, 0, self._used, os.getpid())
        self._places = {key: (start // _WORD, width) for key, start, width in _records(self._memory, self._used)}
        self.cells: memoryview[float] = memoryview(self._memory).cast("d")
        """Every cell, by position: ``cells[place(…)] += 1``."""

    def place(self, key: str, width: int) -> int:
        """Return the position of the first of `width` cells that belong to `key`; zeroes when they are new.

        When the file is full, the position of cells that nobody reads: counting must not end a request.
        """
        known = self._places.get(key)
        if known is not None and known[1] == width:
            return known[0]
        encoded = key.encode()
        start = self._used + _RECORD.size + _rounded(len(encoded))
        end = start + width * _WORD
        if end > _SIZE - _MAX_WIDTH * _WORD or width > _MAX_WIDTH:
            return (_SIZE // _WORD) - _MAX_WIDTH
        _RECORD.pack_into(self._memory, self._used, len(encoded), width)
        self._memory[self._used + _RECORD.size : self._used + _RECORD.size + len(encoded)] = encoded
        self._used = end
        # Last, so that a reader never follows a record that isn't whole.
        _HEADER.pack_into(self._memory, 0, self._used, os.getpid())
        self._places[key] = (start // _WORD, width)
        return start // _WORD


def read_cells(directory: Path) -> Iterator[ProcessCells]:
    """Return what each process counted, by name; processes that died included."""
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        content = path.read_bytes()
        if len(content) < _HEADER.size:
            continue  # Made this moment, and still empty.
        used, pid = _HEADER.unpack_from(content)
        cells = {key: struct.unpack_from(f"<{width}d", content, start) for key, start, width in _records(content, used)}
        yield ProcessCells(path.name.removesuffix(_SUFFIX), pid, cells)


def _records(content: bytes | mmap.mmap, used: int) -> Iterator[tuple[str, int, int]]:
    """Return key, first byte and number of cells of each record."""
    at = _HEADER.size
    while at < used:
        length, width = _RECORD.unpack_from(content, at)
        key = bytes(content[at + _RECORD.size : at + _RECORD.size + length]).decode()
        start = at + _RECORD.size + _rounded(length)
        yield key, start, width
        at = start + width * _WORD


def _rounded(length: int) -> int:
    return -(-length // _WORD) * _WORD
