"""The directory of one run: there while the server runs, and removed by the next one where that was killed.

A lock on the directory itself says that its server lives. The children inherit it, so it is let go of when the last of
them is gone, however that came about (flock(2)).
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

PREFIX = "roadstead-serve-"
_NEW = "roadstead-new-"  # before it is locked; a sweep leaves it alone

_log = structlog.get_logger()


@contextmanager
def run_directory() -> Iterator[Path]:
    """Make a directory for this run and remove it at the end; remove those of runs that were killed."""
    sweep(Path(tempfile.gettempdir()))
    made = Path(tempfile.mkdtemp(prefix=_NEW))
    descriptor = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Only now may a sweep meet it: the lock stays with the directory, whatever its name.
        directory = made.rename(made.with_name(PREFIX + made.name.removeprefix(_NEW)))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    finally:
        os.close(descriptor)


def sweep(parent: Path) -> None:
    """Remove the directories of runs of this user's whose processes are all gone."""
    for path in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if _is_abandoned(path):
                shutil.rmtree(path)
                _log.info("removed what a killed server left behind", path=str(path))


def _is_abandoned(path: Path) -> bool:
    # O_NOFOLLOW: everybody may make links in a folder for temporary files.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
