"""What the delivery of events needs: where they are kept, and where they go."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from roadstead.acts import Asked
from roadstead.errors import InvalidError, NotFoundError, UnavailableError
from roadstead.events.bundle import Bundle, sizes, subject_of, unbundled
from roadstead.events.event import Action, Subject


class LetterState(StrEnum):
    """Where an event stands with one endpoint."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"  # given up after as many attempts as the endpoint allows


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """Events on their way to one endpoint: one, or pulls of one repository together.

    ``position`` rises with every letter, of all endpoints together. The other fields are those of the first event.
    ``more`` is how many others there are; ``pulls`` has what they are made of when they are told, as
    `Bundle.as_plain` gives it: of a page of letters that is a fiftieth.
    """

    position: int
    endpoint: str
    event_id: str
    repository: str
    subject: Subject
    action: Action
    event: Mapping[str, Any]  # as `Event.as_plain` gives it
    state: LetterState
    attempts: int
    error: str
    created_at: datetime
    held_until: datetime | None = None
    settled_at: datetime | None = None
    more: int = 0
    pulls: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def events(self) -> Sequence[tuple[Subject, Mapping[str, Any]]]:
        """Return all events, each with what it is about."""
        if self.pulls is None:
            return [(self.subject, self.event)]
        return [(subject_of(event), event) for event in unbundled(self.event_id, self.pulls)]

    @property
    def sizes(self) -> Sequence[int]:
        """Return about how many bytes each event takes; of one alone it doesn't matter."""
        return [0] if self.pulls is None else sizes(self.pulls)


class OutboxStore(Protocol):
    """Events that were written in the transaction of what they tell of, a letter for each endpoint that wants one.

    What is undelivered is found by its state alone: a transaction that commits late may have a position lower than
    one that was delivered already.
    """

    async def add(self, bundles: Sequence[Bundle]) -> None:
        """Write letters for pulls, of which no transaction tells: one for each bundle."""
        ...

    async def due(self, endpoint: str, *, now: datetime, limit: int) -> Sequence[Letter]:
        """Return pending letters by position; none of a repository whose letter is held until later."""
        ...

    async def next_due(self, endpoint: str) -> datetime | None:
        """Return when the first held letter is due; None where none is held."""
        ...

    async def settle(self, positions: Sequence[int], *, now: datetime) -> None:
        """Mark letters as delivered; those of pulls are removed at once, there are many and nobody asks again."""
        ...

    async def hold(self, position: int, *, error: str, until: datetime) -> None:
        """Count a failed attempt, and hold the letter and its repository's later ones."""
        ...

    async def bury(self, position: int, *, error: str, now: datetime) -> None:
        """Count a failed attempt and give the letter up; its repository's later ones go on."""
        ...

    async def release(self, endpoint: str, *, now: datetime) -> None:
        """Hold nothing of this endpoint any longer."""
        ...

    async def pending(self) -> Mapping[str, int]:
        """Return how many events wait, by endpoint."""
        ...

    async def letters(
        self, *, endpoint: str | None, state: LetterState | None, before: int | None, limit: int
    ) -> Sequence[Letter]:
        """Return letters, the latest first, those with a position lower than `before`."""
        ...

    async def replay(
        self,
        *,
        endpoint: str | None = None,
        event_id: str | None = None,
        state: LetterState | None = None,
        since: datetime | None = None,
        asked: Asked | None = None,
    ) -> int:
        """Make settled letters pending again, with no attempt counted; return how many. They keep their positions.

        Where somebody `asked` for it, the audit log tells of it in the same transaction, unless none was settled.
        """
        ...

    async def purge(self, *, settled_before: datetime, endpoints: Sequence[str]) -> int:
        """Remove letters settled before, and those as old of endpoints that there are no longer; return how many."""
        ...

    def commits(self) -> AbstractAsyncContextManager["Commits"]:
        """Watch for commits of any process, from now on."""
        ...


class Commits(Protocol):
    """Wakes whoever waits for a commit. It may wake for nothing, and late, so it is never all one relies on."""

    async def wait(self, timeout_s: float) -> None:
        """Return when something was committed since the last call, or when the time is over."""
        ...


class Sink(Protocol):
    """Where the events of one endpoint go."""

    async def deliver(self, events: Sequence[tuple[Subject, Mapping[str, Any]]]) -> str:
        """Hand events over in one request; return the receiver's answer in a few words (``200 OK``).

        Raises DeliveryError where the receiver doesn't take them or doesn't answer in time. Safe to cancel: they are
        then delivered again.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Tally(Protocol):
    """Somebody who counts."""

    def taken_up(self, endpoint: str, events: int) -> None:
        """Count events that are tried for the first time."""
        ...

    def delivered(self, endpoint: str, answer: str, events: int) -> None:
        """Count events that were delivered with one request."""
        ...

    def failed(self, endpoint: str, answer: str | None) -> None:
        """Count an attempt that failed: refused with that answer, or not answered at all."""
        ...

    def buried(self, endpoint: str) -> None:
        """Count an event that was given up."""
        ...

    def pending(self, endpoint: str, count: int) -> None:
        """Tell how many events wait now."""
        ...

    def dropped(self, endpoint: str) -> None:
        """Count a pull that the endpoint doesn't hear of: there were too many at once."""
        ...


class DeliveryError(UnavailableError):
    """An endpoint didn't take an event. ``answer`` is what it said (``503 Service Unavailable``), if anything."""

    def __init__(self, reason: str, answer: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answer = answer


class EndpointUnknownError(NotFoundError):
    """No endpoint has this name, and no event was kept for one."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"there is no endpoint called {name!r}")
        self.known = tuple(known)

    def advice(self) -> str:
        """Name those that there are."""
        return f"The settings have {', '.join(self.known)}." if self.known else "The settings have no endpoints."


class ReplayTooWideError(InvalidError):
    """A replay that doesn't say of what: everything that is kept would be sent once more."""

    def __init__(self) -> None:
        super().__init__("everything that is kept would be sent once more: say which events")

    def advice(self) -> str:
        """Name the options."""
        return "Give --id, --state dead, or --since TIME."
