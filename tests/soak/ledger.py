"""What clients were told, and so what a registry has to show after whatever happens to it.

A fact (a tag, a blob or a manifest in a repository) is changed by one client at a time. While a change is under way
the fact may be what it was or what it becomes; once it was acknowledged it is what it became.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Fact(NamedTuple):
    """Something a registry tells: ``("tag", "team/app", "1.0")``. Its value is a digest, or None: it isn't there."""

    kind: str  # blob, manifest, tag
    repository: str
    name: str


Value = str | None


@dataclass(slots=True)
class _Change:
    value: Value
    began_at: float
    acknowledged_at: float | None = None


@dataclass(slots=True)
class Upload:
    """One upload session as its client knows it."""

    repository: str
    location: str
    data: bytes  # all that is to be sent
    sent: list[tuple[float, int]] = field(default_factory=list)  # (when a request began, size if all of it comes)
    acknowledged: list[tuple[float, int]] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)  # when a commit or a cancellation began

    @property
    def upload_id(self) -> str:
        """Return the id, as the location has it."""
        return self.location.partition("?")[0].rpartition("/")[2]

    def bounds(self, at: float) -> tuple[int, int]:
        """Return the least and the most that may be stored at that moment."""
        least = max((size for when, size in self.acknowledged if when <= at), default=0)
        return least, max((size for when, size in self.sent if when <= at), default=0)

    def may_have_ended(self, at: float) -> bool:
        """Say whether the session needn't be there any more."""
        return any(when <= at for when in self.ended)


class Intent:
    """A change under way."""

    def __init__(self, changes: list[_Change]) -> None:
        self._changes = changes

    def acknowledge(self) -> None:
        """Note that the client was told: it is done."""
        now = time.time()
        for change in self._changes:
            change.acknowledged_at = now


class Ledger:
    """All facts that clients have changed, with their history."""

    def __init__(self) -> None:
        self._history: dict[Fact, list[_Change]] = {}
        self.uploads: list[Upload] = []

    def begin(self, changes: Mapping[Fact, Value]) -> Intent:
        """Note that a request is about to be sent that changes all of these, or none."""
        now = time.time()
        noted = []
        for fact, value in changes.items():
            change = _Change(value, now)
            self._history.setdefault(fact, []).append(change)
            noted.append(change)
        return Intent(noted)

    def note(self, fact: Fact, value: Value, began_at: float, acknowledged_at: float) -> None:
        """Note a change that somebody else asked for."""
        self._history.setdefault(fact, []).append(_Change(value, began_at, acknowledged_at))

    def facts(self) -> list[Fact]:
        """Return every fact that was ever changed."""
        return list(self._history)

    def allowed(self, fact: Fact, at: float) -> frozenset[Value]:
        """Return what the fact may be at that moment."""
        values: set[Value] = {None}
        for change in self._history.get(fact, ()):
            if change.began_at > at:
                break
            if change.acknowledged_at is not None and change.acknowledged_at <= at:
                values = {change.value}
            else:
                values.add(change.value)
        return frozenset(values)

    def as_of(self, at: float) -> "Ledger":
        """Return a copy that knows only what had begun by then, to be gone on with from there."""
        copy = Ledger()
        for fact, history in self._history.items():
            begun = [change for change in history if change.began_at <= at]
            if begun:
                copy._history[fact] = begun
        copy.uploads = [upload for upload in self.uploads if any(when <= at for when, _ in upload.sent)]
        return copy

    def settle(self, fact: Fact, value: Value) -> None:
        """Note what a fact turned out to be after a crash: from now on it is that."""
        change = _Change(value, time.time())
        change.acknowledged_at = change.began_at
        self._history.setdefault(fact, []).append(change)
