"""Whose turn it is to write to an SQLite file, and whether anybody has written: one file beside the database.

SQLite's own lock is polled for, and says nothing of what happened before. Programs that know nothing of turns still
meet SQLite's lock; they don't change the count.
"""

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_COUNT: Final = struct.Struct("=Q")


class ChangeCount:
    """A number that the processes of one database share: even and the same for as long as nobody writes.

    It is odd from before a transaction begins until after it ended, and stays so where a writer was killed in between,
    until the next one has had its turn. It is the first eight bytes of the turns' file; whoever has the turn changes
    it, and whoever is told of a commit is told after it was changed.
    """

    def __init__(self, descriptor: int) -> None:
        if os.fstat(descriptor).st_size < _COUNT.size:
            os.pwrite(descriptor, bytes(_COUNT.size), 0)
        self._memory = mmap.mmap(descriptor, _COUNT.size, prot=mmap.PROT_READ)
        self._number = memoryview(self._memory).cast("Q")

    def read(self) -> int:
        """Return the number now; some dozen nanoseconds."""
        return self._number[0]

    def close(self) -> None:
        """Let go of the memory."""
        self._number.release()
        self._memory.close()


class Turns:
    """The turn to write, among processes. The kernel wakes whoever waits, in the order they came."""

    def __init__(self, database: Path) -> None:
        self._descriptor = _open(database)
        self._count = ChangeCount(self._descriptor)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the turn and keep it while inside. Blocks the thread; a process that dies gives its turn up.

        Raises OSError where the file can't be written to.
        """
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            writing = self._count.read() | 1
            self._write(writing)
            try:
                yield
            finally:
                with suppress(OSError):  # it stays odd: everybody reads until the next turn
                    self._write((writing + 1) % (1 << 64))
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _write(self, count: int) -> None:
        os.pwrite(self._descriptor, _COUNT.pack(count), 0)  # to the memory itself a full disk would be a signal

    def close(self) -> None:
        """Let go of the file."""
        self._count.close()
        os.close(self._descriptor)


def open_count(database: Path) -> ChangeCount:
    """Return the count of a database, to be read."""
    descriptor = _open(database)
    try:
        return ChangeCount(descriptor)
    finally:
        os.close(descriptor)  # the mapping stays; flock(2) is let go of by the descriptor that has it alone


def _open(database: Path) -> int:
    path = database.with_name(database.name + ".lock")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
