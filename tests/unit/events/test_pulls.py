"""Pulls that wait to be written."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from roadstead.db.engine import Database, open_database
from roadstead.events.event import Action, Cause, Event, Subject
from roadstead.events.pulls import PullBuffer
from roadstead.events.rules import Interest, Interests
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.registry.errors import StoreBusyError
from roadstead.telemetry.metrics import EventMetrics, Metrics

PULLS = Interests(endpoints=(Interest(endpoint="a", actions=frozenset({Action.PULL})),))


def pull(method: str = "GET") -> Event:
    """Return the event of a pull."""
    return Event(
        action=Action.PULL,
        subject=Subject.BLOB,
        repository=RepositoryName("a"),
        at=datetime(2026, 3, 1, tzinfo=UTC),
        digest=Digest.of(b""),
        cause=Cause(method=method),
    )


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A database that tells of pulls."""
    opened = await open_database(f"sqlite:///{tmp_path}/roadstead.db", migrate=True, interests=PULLS)
    yield opened
    await opened.close()


def dropped(numbers: Metrics) -> str:
    """Return the line of the metric."""
    lines = numbers.render().decode().splitlines()
    return next(line for line in lines if line.startswith("roadstead_events_pulls_dropped_total{"))


async def test_what_is_too_much_is_dropped_and_counted(database: Database, tmp_path: Path) -> None:
    """The first are kept; what nobody wants to hear takes no place."""
    numbers = Metrics(tmp_path, "worker-1")
    buffer = PullBuffer(PULLS, database.outbox, EventMetrics(numbers), limit=3)
    for _ in range(10):
        buffer.note(pull("HEAD"))
    for _ in range(5):
        buffer.note(pull())

    await buffer.flush()

    assert await database.outbox.pending() == {"a": 3}
    assert dropped(numbers) == 'roadstead_events_pulls_dropped_total{endpoint="a"} 2.0'


async def test_what_the_database_does_not_take_is_kept(tmp_path: Path) -> None:
    """Until it does, in order and once."""

    class Busy:
        def __init__(self) -> None:
            self.taken: list[str] = []
            self.busy = 2

        async def add(self, events: Sequence[Event]) -> Sequence[str]:
            if self.busy:
                self.busy -= 1
                raise StoreBusyError("busy")
            self.taken += [event.id for event in events]
            return []

    outbox = Busy()
    buffer = PullBuffer(PULLS, outbox, EventMetrics(Metrics(tmp_path, "worker-1")))  # type: ignore[arg-type]
    events = [pull() for _ in range(450)]
    for event in events:
        buffer.note(event)

    for _ in range(3):
        await buffer.flush()

    assert outbox.taken == [event.id for event in events]
    assert Counter(outbox.taken).most_common(1)[0][1] == 1


async def test_they_are_written_each_second(database: Database, tmp_path: Path) -> None:
    """By a loop, which goes on after what nobody foresaw."""
    buffer = PullBuffer(
        PULLS, database.outbox, EventMetrics(Metrics(tmp_path, "worker-1")), every=timedelta(milliseconds=10)
    )
    running = asyncio.ensure_future(buffer.run())
    try:
        buffer.note(pull())
        async with asyncio.timeout(10):
            async with database.outbox.commits() as commits:
                while not await database.outbox.pending():
                    await commits.wait(1)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
