"""A lock on a file that one process of a machine holds with its children; the kernel lets go when all are gone."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from roadstead.errors import ConflictError
from roadstead.storage.flock import try_lock

_PAUSE_S = 0.05


class FileLockedError(ConflictError):
    """Another process holds the lock."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"another process holds {path}")
        self.path = path


@contextmanager
def hold_file(path: Path, *, patience: timedelta = timedelta(0)) -> Iterator[None]:
    """Hold the lock while inside; children forked meanwhile hold it too, for as long as they live.

    Raises FileLockedError when somebody else holds it for longer than `patience`. Blocking.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + patience.total_seconds()
    try:
        while not try_lock(descriptor):
            if time.monotonic() >= deadline:
                raise FileLockedError(path)
            time.sleep(_PAUSE_S)
        yield
    finally:
        os.close(descriptor)
