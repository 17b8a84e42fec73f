"""One process of this machine at a time, by locks on files that nobody leaves behind (flock(2)).

The kernel lets go of a lock when its holder dies. A holder removes the file before it lets go, so that whoever waited
for it has a lock on a file that isn't there any more, and begins again with a new one.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from roadstead.storage.flock import try_lock

PAUSE_S = 0.02
"""Between two looks at what another process holds."""


def claim(path: Path, mode: int = 0o600) -> int | None:
    """Return the descriptor of the file, locked for us and empty; None where another holds it. Raises OSError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        if not try_lock(descriptor):
            os.close(descriptor)
            return None
        if _is_still_at(descriptor, path):
            if os.fstat(descriptor).st_size == 0:
                os.fchmod(descriptor, mode)
                return descriptor
            # A process that was killed has left it. Its bytes may be in the store under another name, so they stay as
            # they are, and this name alone goes.
            path.unlink()
        os.close(descriptor)


def release(path: Path, descriptor: int) -> None:
    """Remove a file that we have claimed, and let go of it."""
    with suppress(OSError):
        path.unlink()
    os.close(descriptor)


def disown(path: Path, descriptor: int) -> None:
    """Remove a file that we have claimed, and let go of its lock but not of the file."""
    with suppress(OSError):
        path.unlink()
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def is_abandoned(descriptor: int) -> bool:
    """Say whether nobody holds the lock on an open file."""
    if not try_lock(descriptor, fcntl.LOCK_SH):
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


@asynccontextmanager
async def alone(path: Path) -> AsyncGenerator[None, None]:
    """Hold the lock while inside, once whoever has it lets go. Raises OSError."""
    while (descriptor := claim(path)) is None:  # noqa: ASYNC110 -- another process can't set an event of ours
        await asyncio.sleep(PAUSE_S)
    try:
        yield
    finally:
        release(path, descriptor)


def remove_abandoned(directory: Path) -> int:
    """Remove the files that killed processes have left; return how many. Blocking."""
    removed = 0
    for path in directory.iterdir() if directory.is_dir() else ():
        descriptor = claim(path)
        if descriptor is not None:
            release(path, descriptor)
            removed += 1
    return removed


def _is_still_at(descriptor: int, path: Path) -> bool:
    held = os.fstat(descriptor)
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return (held.st_dev, held.st_ino) == (found.st_dev, found.st_ino)
