"""Everything that can go wrong, as one tree; only ``http/errors.py`` and ``cli/`` turn it into answers.

    RoadsteadError
    ├── NotFoundError       what was named isn't there, or may not be seen
    ├── InvalidError        what was sent can't be accepted as it is
    ├── ConflictError       what was asked doesn't fit what is there now
    ├── DeniedError         the caller may not, or the service is set not to
    └── UnavailableError    something we need isn't answering; the same call may work later

Each room defines its own errors under these families. An error keeps its facts as attributes, prints as one
line that says what was wrong and with what, and may say in ``advice()`` what a person could try next.
Whoever sent a request is told ``told()``: the same, unless the line is about what only the operator knows.
"""

from typing import ClassVar


class RoadsteadError(Exception):
    """The root: every error that Roadstead raises on purpose."""

    in_short: ClassVar[str | None] = None
    """What clients are told in place of the line, where that may name paths, addresses or accounts of the service."""

    def advice(self) -> str | None:
        """Return what a person could try next, as a sentence, or None."""
        return None

    def told(self) -> str:
        """Return what a client is told of it; the log has the whole line."""
        return str(self) if self.in_short is None else f"{self.in_short}; the server's log says more"


class NotFoundError(RoadsteadError):
    """What was named isn't there, or the caller may not see it."""


class InvalidError(RoadsteadError):
    """What was sent can't be accepted as it is."""


class ConflictError(RoadsteadError):
    """What was asked doesn't fit the present state."""


class DeniedError(RoadsteadError):
    """The caller may not do this, or the service is set not to do it."""


class UnavailableError(RoadsteadError):
    """A thing we need doesn't answer; the same call may work later.

    ``retry_after_s`` is what the caller is told to wait, in seconds.
    """

    retry_after_s: int = 1
