"""Files that are looked at again and again: have they changed, and have they come to rest?"""

import os
from collections.abc import Sequence
from pathlib import Path

Signature = tuple[tuple[int, int, int] | None, ...]


class WatchedFiles:
    """Notices that files were replaced or written, also through links (Kubernetes swaps a directory's link)."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._taken = self._last = self._signature()

    def changed(self) -> bool:
        """Say whether the files changed since they were last taken up, and not any more since the last look.

        A certificate and its key are written one after the other: what is between the two would not fit.
        """
        before, self._last = self._last, self._signature()
        if self._last != before or self._last == self._taken:
            return False
        self._taken = self._last
        return True

    def _signature(self) -> Signature:
        return tuple(_of(path) for path in self._paths)


def _of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - the target of links, as Path.stat() gives it too
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
