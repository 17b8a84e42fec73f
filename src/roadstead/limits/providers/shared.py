"""Marks and places that the processes of one machine share: a file of this run, mapped into memory.

    file  = 16 bytes: the key of the hash · 48 bytes free · slot…
    slot  = u64: hash of the key (0: free) · 8 bytes: a mark (float64), or who is there (u32 process, u16 when it was
            started, u16 how many)

A key has one of `_WAYS` slots. Where all are others', a mark takes the place of the one that is least ahead, so whoever
has used up the most is forgotten last; a place isn't taken then, and isn't counted. The hash has a key of its own so
that nobody can choose whose slots they get. A lock on the file (flock(2)) is held for the few microseconds of a change;
the kernel lets it go when a process dies.
"""

import fcntl
import hashlib
import mmap
import os
import secrets
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from roadstead.limits.ports import Marks, Places
from roadstead.limits.rates import advanced

_HEADER: Final = 64
_KEY: Final = 16
_WAYS: Final = 8
_SETS: Final = 8192
_SLOT: Final = 16
_REMEMBERED: Final = 4096
_SIZE: Final = _HEADER + _SETS * _WAYS * _SLOT  # 1 MiB, sparse
_TAG: Final = struct.Struct("<Q")
_MARK: Final = struct.Struct("<Qd")
_MARKS: Final = struct.Struct("<" + "Qd" * _WAYS)
_PLACE: Final = struct.Struct("<IHH")
_MOST_PLACES: Final = 0xFFFF

_Process: TypeAlias = tuple[int, int]


class _Table:
    """The file, and where a key's slots are in it."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._descriptor, _SIZE)
        self.memory = mmap.mmap(self._descriptor, _SIZE)
        with self.locked():
            if self.memory[:_KEY] == bytes(_KEY):
                self.memory[:_KEY] = secrets.token_bytes(_KEY)
        self._key = self.memory[:_KEY]
        # Where a key's slots are follows from the key, and a client sends many requests.
        self.slots = lru_cache(maxsize=_REMEMBERED)(self._slots)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be alone with the file."""
        self.lock()
        try:
            yield
        finally:
            self.unlock()

    def lock(self) -> None:
        """Wait until nobody else is at the file."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def unlock(self) -> None:
        """Let others at it."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _slots(self, key: str) -> tuple[int, range]:
        """Return the hash of a key, never 0, and where its slots begin."""
        digest = hashlib.blake2b(key.encode(), key=self._key, digest_size=16).digest()
        first = _HEADER + int.from_bytes(digest[:8], "little") % _SETS * _WAYS * _SLOT
        return int.from_bytes(digest[8:], "little") or 1, range(first, first + _WAYS * _SLOT, _SLOT)

    def tag(self, at: int) -> int:
        """Return the hash that stands in a slot."""
        found: int = _TAG.unpack_from(self.memory, at)[0]
        return found


class SharedMarks:
    """`Marks` in a file, or in the same one opened by another process."""

    def __init__(self, path: Path) -> None:
        self._table = _Table(path)

    def read(self, key: str, now: float) -> float:
        """Return how far ahead a key is."""
        tag, slots = self._table.slots(key)
        with self._table.locked():
            found = _MARKS.unpack_from(self._table.memory, slots.start)
        tags = found[::2]
        return max(0.0, found[1 + 2 * tags.index(tag)] - now) if tag in tags else 0.0

    def advance(self, key: str, now: float, by: float, most: float) -> float:
        """Move a key on."""
        table = self._table
        tag, slots = table.slots(key)
        table.lock()  # not by `with`: each request passes here
        try:
            found = _MARKS.unpack_from(table.memory, slots.start)
            tags, marks = found[::2], found[1::2]
            known = tag in tags
            at = tags.index(tag) if known else marks.index(min(marks))
            mark, too_far = advanced(marks[at] if known else now, now, by, most)
            if too_far == 0:
                _MARK.pack_into(table.memory, slots[at], tag, mark)
        finally:
            table.unlock()
        return too_far


class SharedPlaces:
    """`Places` in a file, or in the same one opened by another process."""

    def __init__(self, path: Path) -> None:
        self._table = _Table(path)
        self._process = _process(os.getpid()) or (os.getpid(), 0)

    def enter(self, key: str, most: int) -> bool:
        """Take a place."""
        tag, slots = self._table.slots(key)
        with self._table.locked():
            held = {at: self._place(at) for at in slots if self._table.tag(at) == tag}
            if sum(count for _, count in held.values()) >= most:
                self._free_dead(slots)
                held = {at: self._place(at) for at in slots if self._table.tag(at) == tag}
                if sum(count for _, count in held.values()) >= most:
                    return False
            mine = next((at for at, (process, _) in held.items() if process == self._process), None)
            if mine is None:
                mine = self._free_slot(slots)
            if mine is not None:
                self._put(mine, tag, min(held.get(mine, (self._process, 0))[1] + 1, _MOST_PLACES))
            return True

    def leave(self, key: str) -> None:
        """Give a place back."""
        tag, slots = self._table.slots(key)
        with self._table.locked():
            for at in slots:
                process, count = self._place(at)
                if self._table.tag(at) == tag and process == self._process:
                    self._put(at, tag if count > 1 else 0, count - 1)

    def _free_slot(self, slots: range) -> int | None:
        for again in (False, True):
            if again:
                self._free_dead(slots)
            for at in slots:
                if self._table.tag(at) == 0:
                    return at
        return None

    def _free_dead(self, slots: range) -> None:
        for at in slots:
            if self._table.tag(at):
                process, _ = self._place(at)
                if _process(process[0]) != process:
                    self._put(at, 0, 0)

    def _place(self, at: int) -> tuple[_Process, int]:
        pid, started, count = _PLACE.unpack_from(self._table.memory, at + _TAG.size)
        return (pid, started), count

    def _put(self, at: int, tag: int, count: int) -> None:
        # The hash last: a process that dies in between leaves a slot that is free.
        _TAG.pack_into(self._table.memory, at, 0)
        _PLACE.pack_into(self._table.memory, at + _TAG.size, *self._process, count)
        _TAG.pack_into(self._table.memory, at, tag)


def _process(pid: int) -> _Process | None:
    """Return who lives under a process id; None for nobody, or for somebody who is dead and not waited for.

    With when it was started (proc(5), field 22 of stat, in hundredths of a second): ids come again.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else (pid, int(fields[19]) & 0xFFFF)


if TYPE_CHECKING:
    _: type[Marks] = SharedMarks
    __: type[Places] = SharedPlaces
