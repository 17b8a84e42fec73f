"""The audit log: who did what to the installation, when and from where, and who was kept from it.

What an act changes and its line are one transaction. Lines are never changed; they go when they are old
(docs/how-to/audit.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

MAX_TEXT = 512
"""Characters of a line's texts that are kept: whoever asks can't make a line longer."""


class ActKind(StrEnum):
    """What is written down."""

    USER_ADD = "user.add"
    USER_CHANGE = "user.change"
    USER_REMOVE = "user.remove"
    USER_DISABLE = "user.disable"
    USER_ENABLE = "user.enable"
    KEY_CREATE = "key.create"
    KEY_REVOKE = "key.revoke"
    TAG_RESTORE = "tag.restore"
    TAG_DELETE = "tag.delete"
    MANIFEST_DELETE = "manifest.delete"
    BLOB_DELETE = "blob.delete"
    EVENTS_REPLAY = "events.replay"
    GC_RUN = "gc.run"
    IMPORT_RUN = "import.run"
    IMPORT_FINISH = "import.finish"
    VERIFY_REPAIR = "verify.repair"
    SERVER_START = "server.start"
    SIGN_IN = "sign-in"
    SIGN_OUT = "sign-out"
    ACCESS = "access"


class Outcome(StrEnum):
    """How it went."""

    DONE = "done"
    FAILED = "failed"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks for an act, and when: ``user:ana`` from an address, or ``shell:root`` at the machine itself."""

    by: str
    at: datetime
    client: str = ""

    def act(self, kind: ActKind, target: str, *, outcome: Outcome = Outcome.DONE, reason: str = "") -> "Act":
        """Return the line that tells of it."""
        return Act(at=self.at, by=self.by, client=self.client, kind=kind, target=target, outcome=outcome, reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One line of the audit log. ``count`` is more than one where a line stands for several refusals alike."""

    at: datetime
    by: str
    client: str
    kind: ActKind
    target: str
    outcome: Outcome = Outcome.DONE
    reason: str = ""
    count: int = 1


@dataclass(slots=True)
class Told:
    """What a line says of how an act went, once that is known."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """An act as it was written down; positions rise as lines are written, which may be seconds after their moments."""

    position: int
    act: Act


class ActStore(Protocol):
    """Where the lines are. Acts that change facts are written by the store of those facts, in its transaction."""

    async def record(self, acts: Sequence[Act]) -> None:
        """Write lines for what no transaction of another store tells of."""
        ...

    async def lines(
        self,
        *,
        since: datetime | None = None,
        by: str | None = None,
        kind: ActKind | None = None,
        before: int | None = None,
        limit: int,
    ) -> Sequence[Line]:
        """Return up to `limit` lines, the latest first by their moments, then positions; those behind `before`.

        `before` is the position of a line; behind one that was purged there is nothing.
        """
        ...

    async def purge(self, *, before: datetime) -> int:
        """Remove lines of acts earlier than that; return how many."""
        ...


def printable(text: str) -> str:
    """Return a text as a line may hold it: what isn't printable as ``?``, and no longer than `MAX_TEXT`. Pure."""
    text = text[:MAX_TEXT]
    return text if text.isprintable() else "".join(mark if mark.isprintable() else "?" for mark in text)
