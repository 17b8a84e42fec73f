"""Whose turn it is to write to an SQLite file, and whether anybody has written: two files beside the database.

SQLite's own lock is polled for, and says nothing of what happened before. Programs that know nothing of turns still
meet SQLite's lock; they don't change the count.
"""

import fcntl
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, time_ns
from typing import Final

from roadstead.db.errors import StoreFailedError

UNKNOWN: Final = 1
"""What is read where there is no count; odd, so nobody remembers anything by it."""

LOOKED_AT_S: Final = 0.02
"""How long the file is taken to be as long as it was."""

_SIZE: Final = 8


class ChangeCount:
    """A number that the processes of one database share: even and the same for as long as nobody writes.

    It is odd from before a transaction begins until after it ended, and stays so where a writer was killed in between,
    until the next one has had its turn. It doesn't tell of what nobody remembers (`Access.write_cold`). It is all that
    is in its file; whoever has the turn changes it, and whoever is told of a commit is told after it was changed.

    It is mapped, as SQLite maps the index of its log (``-shm``) beside it, with the same consequence: to look at a file
    that somebody cuts short is a signal that ends the process, and the supervisor starts another. What was cut short
    `LOOKED_AT_S` before, while nobody looked, is noticed (docs/decisions/0039-seen-rows.md).
    """

    def __init__(self, database: Path) -> None:
        """Raises StoreFailedError where the file can't be opened."""
        self._descriptor = _open(database, ".changes")
        self._memory: memoryview | None = None
        self._looked_at_until = 0.0

    def read(self) -> int:
        """Return the number now, without asking the kernel for it; an odd one where there is none."""
        now = monotonic()
        if now >= self._looked_at_until:
            self._look(now)
        return UNKNOWN if self._memory is None else self._memory[0]

    def ask(self) -> int:
        """Return what `read` does, asking the kernel: so whoever writes never meets a file that was cut short."""
        found = os.pread(self._descriptor, _SIZE, 0)
        return int.from_bytes(found, sys.byteorder) if len(found) == _SIZE else UNKNOWN

    def write(self, number: int) -> None:
        """Let everybody see another number. Raises OSError where the file can't be written to."""
        os.pwrite(self._descriptor, number.to_bytes(_SIZE, sys.byteorder), 0)

    def _look(self, now: float) -> None:
        """Map the file where there is a number in it, and don't where there isn't (any more)."""
        self._looked_at_until = now + LOOKED_AT_S
        if self._descriptor < 0 or os.fstat(self._descriptor).st_size < _SIZE:
            self._memory = None  # with the last view of it the mapping goes
        elif self._memory is None:
            # A file system that maps nothing, or a file that was cut short just now: everybody reads.
            with suppress(OSError, ValueError):
                self._memory = memoryview(mmap.mmap(self._descriptor, _SIZE, prot=mmap.PROT_READ)).cast("Q")

    def close(self) -> None:
        """Let go of the file; from then on there is no number."""
        descriptor, self._descriptor = self._descriptor, -1
        self._memory = None
        os.close(descriptor)


class Turns:
    """The turn to write, among processes. The kernel wakes whoever waits, in the order they came.

    Whoever changes what others remember (`ChangeCount`) writes inside of `noted`, too.
    """

    def __init__(self, database: Path) -> None:
        """Raises StoreFailedError where a file can't be opened: it is somebody else's, or the disk is read-only."""
        self._descriptor = _open(database, ".lock")
        try:
            self._count = ChangeCount(database)
        except StoreFailedError:
            os.close(self._descriptor)
            raise

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the turn and keep it while inside. Blocks the thread; a process that dies gives its turn up."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    @property
    def left_open(self) -> bool:
        """Tell whoever has the turn whether the last one that was noted has no end: its writer was killed."""
        return bool(self._count.ask() & 1)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Have everybody forget what they remember; while inside nobody remembers anything. For whoever has the turn.

        Raises OSError where the count can't be read or written.
        """
        writing = self._begun()
        self._count.write(writing)
        try:
            yield
        finally:
            with suppress(OSError):  # it stays odd: everybody reads until the next turn
                self._count.write((writing + 1) % (1 << 64))

    def _begun(self) -> int:
        """Return the odd number of what is noted now."""
        count = self._count.ask()
        # Where there is none a new one begins, at one that there never was: somebody may remember rows by the last.
        return (time_ns() if count == UNKNOWN else count) | 1

    def close(self) -> None:
        """Let go of the files."""
        self._count.close()
        os.close(self._descriptor)


def _open(database: Path, ending: str) -> int:
    path = database.with_name(database.name + ending)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreFailedError(f"the turn to write can't be had: {path}: {error.strerror}") from error
