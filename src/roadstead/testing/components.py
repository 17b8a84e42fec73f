"""Programs that tests need and Python can't bring along: found, or named together with the command that installs them.

The starters in this package raise `ComponentMissingError`, which knows nothing of pytest, so that they work in any
process. ``tests/conftest.py`` decides what a missing component means for a test: with ``CI=true`` it fails, on a
person's machine it is skipped; both name the command, and so does the summary at the end of the run.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from roadstead.errors import UnavailableError


class ComponentMissingError(UnavailableError):
    """A program that a test needs isn't installed here."""

    def __init__(self, program: str, install: str) -> None:
        super().__init__(f"{program} is missing; install it with: {install}")
        self.program = program
        self.install = install

    def advice(self) -> str:
        """Return the command that installs the program."""
        return self.install


def require(program: str, *, install: str, directories: Sequence[Path] = ()) -> Path:
    """Return the path of *program*: from *directories*, in their order, then from ``PATH``, then from the sbin folders.

    The sbin folders are looked into because a Debian user's ``PATH`` leaves them out, and servers live there.
    Raises ComponentMissingError, which carries *install*, the command that would help.
    """
    for directory in directories:
        candidate = directory / program
        if os.access(candidate, os.X_OK):
            return candidate
    found = shutil.which(program) or shutil.which(program, path="/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        raise ComponentMissingError(program, install)
    return Path(found)


def must_be_present() -> bool:
    """Say whether a missing component is a failure here: in continuous integration (``CI=true``) it is."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}
