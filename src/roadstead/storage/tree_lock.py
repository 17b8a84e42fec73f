"""A file in the tree that says which installation writes there: two with databases of their own would ruin it.

Every process of ours holds the lock together with the others of its installation; the kernel lets go of it when the
process ends, however it does. Whoever finds it free writes its own name into it.

Distribution knows nothing of it.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roadstead.errors import ConflictError
from roadstead.storage.flock import try_lock

_ATTEMPTS = 50
_PAUSE_S = 0.02  # between attempts, where another process is just writing its name


class TreeInUseError(ConflictError):
    """Another installation, with a database of its own, writes into the tree."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"another Roadstead with another database writes into this tree ({path} is locked)")
        self.path = path

    def advice(self) -> str:
        """Say how the two can be told apart or made one."""
        return "Stop it, or give both the same database.url, or this one a storage.path of its own."


@contextmanager
def hold_tree(path: Path, installation: str) -> Iterator[None]:
    """Hold the lock for an installation while inside; raises TreeInUseError. Blocks for a second at the most."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _join(descriptor, path, installation.encode())
        yield
    finally:
        os.close(descriptor)


def _join(descriptor: int, path: Path, name: bytes) -> None:
    for _ in range(_ATTEMPTS):
        if try_lock(descriptor, fcntl.LOCK_SH):
            if os.pread(descriptor, len(name) + 1, 0) == name:
                return
            # Only who is alone may put another name there. The kernel lets go of the one lock for the other.
            if try_lock(descriptor, fcntl.LOCK_EX):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, name, 0)
                os.fsync(descriptor)
                continue
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        time.sleep(_PAUSE_S)
    raise TreeInUseError(path)
