"""Whose turn it is to write to an SQLite file, and whether anybody has written: one file beside the database.

SQLite's own lock is polled for, and says nothing of what happened before. Programs that know nothing of turns still
meet SQLite's lock; they don't change the count.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time_ns
from typing import Final

from roadstead.db.errors import StoreFailedError

UNKNOWN: Final = 1
"""What is read where there is no count; odd, so nobody remembers anything by it."""

_SIZE: Final = 8
_ORDER: Final = "little"


class ChangeCount:
    """A number that the processes of one database share: even and the same for as long as nobody writes.

    It is odd from before a transaction begins until after it ended, and stays so where a writer was killed in between,
    until the next one has had its turn. It is the first eight bytes of the turns' file; whoever has the turn changes
    it, and whoever is told of a commit is told after it was changed.

    It is read, and not mapped: to look at a mapping of a file that somebody has cut short (``: > roadstead.db.lock``, a
    backup copied over it) is a signal that ends the process.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self) -> int:
        """Return the number now, half a microsecond later; an odd one where there is none."""
        try:
            found = os.pread(self._descriptor, _SIZE, 0)
        except OSError:
            return UNKNOWN
        return int.from_bytes(found, _ORDER) if len(found) == _SIZE else UNKNOWN

    def close(self) -> None:
        """Let go of the file; from then on there is no number."""
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)


class Turns:
    """The turn to write, among processes. The kernel wakes whoever waits, in the order they came."""

    def __init__(self, database: Path) -> None:
        """Raises StoreFailedError where the file can't be opened: it is somebody else's, or the disk is read-only."""
        self._descriptor = _open(database)
        self._count = ChangeCount(self._descriptor)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the turn and keep it while inside. Blocks the thread; a process that dies gives its turn up.

        Raises OSError where the file can't be written to.
        """
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            writing = self._begun()
            self._write(writing)
            try:
                yield
            finally:
                with suppress(OSError):  # it stays odd: everybody reads until the next turn
                    self._write((writing + 1) % (1 << 64))
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _begun(self) -> int:
        """Return the odd number of a turn that begins."""
        count = self._count.read()
        # Where there is none a new one begins, at one that there never was: somebody may remember rows by the last.
        return (time_ns() if count == UNKNOWN else count) | 1

    def _write(self, count: int) -> None:
        os.pwrite(self._descriptor, count.to_bytes(_SIZE, _ORDER), 0)

    def close(self) -> None:
        """Let go of the file."""
        self._count.close()


def open_count(database: Path) -> ChangeCount:
    """Return the count of a database, to be read; raises as `Turns` does."""
    return ChangeCount(_open(database))


def _open(database: Path) -> int:
    path = database.with_name(database.name + ".lock")
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreFailedError(f"the turn to write can't be had: {path}: {error.strerror}") from error
