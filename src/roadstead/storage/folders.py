"""Folders whose names last: made, and flushed with everything that leads to them."""

import errno
import os
from typing import Final

FOLDER_MODE: Final = 0o700


def make_folder(path: str) -> None:
    """Make a folder and the missing ones above it, and make their names durable, up to the root of the file system.

    Also of those that are there: whoever made them may have been killed before he flushed them. Idempotent; blocks.
    """
    os.makedirs(path, FOLDER_MODE, exist_ok=True)  # noqa: PTH103 -- paths are strings in the driver
    folder = os.path.abspath(path)  # noqa: PTH100
    while (above := os.path.dirname(folder)) != folder:  # noqa: PTH120
        try:
            flush_folder(above)
        except PermissionError:
            # What we may not even list we haven't written to.
            return
        folder = above


def flush_folder(path: str) -> None:
    """Make the folder's entries durable; a folder that was pruned meanwhile has none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # Some network file systems can't flush folders, and say so like this.
            raise
    finally:
        os.close(descriptor)
