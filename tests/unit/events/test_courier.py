"""Pulls that are told together, on their way to a receiver that doesn't take all of them."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.db.engine import Database, open_database
from roadstead.db.moments import to_micros
from roadstead.events.bundle import MAX_BYTES, Bundle, Pulls, portion
from roadstead.events.courier import Courier, Manners
from roadstead.events.event import BLOB_TYPE, Action, Cause, Event, Source, Subject
from roadstead.events.ports import DeliveryError, LetterState
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.telemetry.metrics import EventMetrics, Metrics
from roadstead.testing.clock import FrozenClock

NOW = datetime(2026, 3, 1, tzinfo=UTC)
APP = RepositoryName("team/app")
LIKE = Event(
    action=Action.PULL,
    subject=Subject.BLOB,
    repository=APP,
    at=NOW,
    digest=Digest.of(b""),
    media_type=BLOB_TYPE,
    cause=Cause(method="GET"),
)


class Refusing:
    """A sink that notes what it is asked to take, and refuses the requests with these numbers."""

    def __init__(self, *refused: int) -> None:
        self.refused = refused
        self.requests: list[list[str]] = []
        self.asked = asyncio.Event()

    async def deliver(self, events: Sequence[tuple[Subject, Mapping[str, Any]]]) -> str:
        """Note the events' addresses, which tell them apart."""
        self.requests.append([event["request"]["addr"] for _, event in events])
        self.asked.set()
        if len(self.requests) in self.refused:
            raise DeliveryError("the receiver answered 503", "503")
        return "200 OK"

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A database with five pulls that are told together."""
    opened = await open_database(f"sqlite:///{tmp_path}/roadstead.db", migrate=True, source=Source("here:5000", "i"))
    pulls = Pulls([0] * 5, [to_micros(NOW) + number for number in range(5)], [str(number) for number in range(5)])
    await opened.outbox.add([Bundle("a", APP, [LIKE], pulls)])
    yield opened
    await opened.close()


@pytest.mark.parametrize(
    ("at_once", "expected"),
    [
        (64, [["0", "1", "2", "3", "4"]]),
        (2, [["0", "1"], ["2", "3"], ["4"]]),
        (1, [["0"], ["1"], ["2"], ["3"], ["4"]]),
    ],
)
async def test_a_request_tells_of_as_many_as_the_receiver_takes(
    database: Database, tmp_path: Path, at_once: int, expected: list[list[str]]
) -> None:
    """In their order; counted one by one, and gone when all were taken."""
    sink, numbers = Refusing(), Metrics(tmp_path, "background")
    courier = Courier(
        "a", sink, database.outbox, FrozenClock(NOW), EventMetrics(numbers), Manners(pulls_at_once=at_once)
    )

    assert await courier.deliver_due() == 1
    assert await courier.deliver_due() == 0

    assert sink.requests == expected
    assert await database.outbox.pending() == {}
    said = numbers.render().decode()
    for kind in ("Events", "Successes"):
        assert f'registry_notifications_events_total{{endpoint="a",type="{kind}"}} 5.0' in said


async def test_requests_with_large_events_tell_of_fewer(database: Database, tmp_path: Path) -> None:
    """As many as come to 64 KiB, or a single one: receivers refuse what is larger than they were told to take."""
    likes = [
        LIKE if size is None else replace(LIKE, references=[{"digest": "é" * size}]) for size in (None, 15_000, 50_000)
    ]
    pulls = Pulls([0, 1, 1, 1, 0, 2, 2, 0], [to_micros(NOW)] * 8, [str(number) for number in range(10, 18)])
    await database.outbox.add([Bundle("b", APP, likes, pulls)])
    sink = Refusing()
    metrics = EventMetrics(Metrics(tmp_path, "background"))

    await Courier("b", sink, database.outbox, FrozenClock(NOW), metrics, Manners(pulls_at_once=64)).deliver_due()

    assert sink.requests == [["10", "11", "12"], ["13", "14"], ["15"], ["16"], ["17"]]


@given(
    st.lists(st.integers(1, 2 * MAX_BYTES), min_size=1, max_size=100),
    st.integers(1, 80),
)
def test_portions_hold_everything_once(sizes: list[int], most: int) -> None:
    """Each goes on where the last one ended, with one event at the least and no more than may be."""
    begin = 0
    while begin < len(sizes):
        end = portion(sizes, begin, most)
        assert begin < end <= begin + most
        assert end == begin + 1 or sum(sizes[begin:end]) <= MAX_BYTES
        assert end == len(sizes) or end == begin + most or sum(sizes[begin : end + 1]) > MAX_BYTES
        begin = end


async def test_what_was_taken_of_a_bundle_does_not_come_again(database: Database, tmp_path: Path) -> None:
    """The rest does, from where the receiver stopped."""
    sink = Refusing(2, 3)
    metrics = EventMetrics(Metrics(tmp_path, "background"))
    courier = Courier("a", sink, database.outbox, FrozenClock(NOW), metrics, Manners(pulls_at_once=2))

    for _ in range(4):
        await courier.deliver_due()

    assert sink.requests == [["0", "1"], ["2", "3"], ["2", "3"], ["2", "3"], ["4"]]
    assert await database.outbox.pending() == {}


async def test_failures_of_one_pull_are_not_counted_for_the_next(database: Database, tmp_path: Path) -> None:
    """A receiver that refuses each once takes all of them, though an event is given up at its second failure."""
    sink = Refusing(1, 3, 5, 7, 9)
    metrics = EventMetrics(Metrics(tmp_path, "background"))
    courier = Courier("a", sink, database.outbox, FrozenClock(NOW), metrics, Manners(max_attempts=2))

    for _ in range(6):
        await courier.deliver_due()

    assert sink.requests == [[str(number // 2)] for number in range(10)]
    assert await database.outbox.letters(endpoint=None, state=None, before=None, limit=9) == []


@pytest.mark.parametrize("threshold", [10, 1], ids=["up", "down"])
async def test_a_pull_that_is_given_up_takes_no_others_with_it(
    database: Database, tmp_path: Path, threshold: int
) -> None:
    """The rest of its bundle is told; what is given up is found among the dead, and can be sent again."""
    sink, numbers = Refusing(2, 3), Metrics(tmp_path, "background")
    manners = Manners(max_attempts=2, threshold=threshold, backoff=timedelta())
    courier = Courier("a", sink, database.outbox, FrozenClock(NOW), EventMetrics(numbers), manners)

    for _ in range(4):
        await courier.deliver_due()

    assert sink.requests == [["0"], ["1"], ["1"], ["2"], ["3"], ["4"]]
    [dead] = await database.outbox.letters(endpoint="a", state=LetterState.DEAD, before=None, limit=9)
    assert dead.error == "the receiver answered 503"
    assert 'roadstead_events_given_up_total{endpoint="a"} 1.0' in numbers.render().decode()


class Standing(Refusing):
    """A sink that stands still at the second request, until that is given up."""

    def __init__(self) -> None:
        super().__init__()
        self.stands = asyncio.Event()

    async def deliver(self, events: Sequence[tuple[Subject, Mapping[str, Any]]]) -> str:
        """Take it, or stand still."""
        if len(self.requests) == 1 and not self.stands.is_set():
            self.stands.set()
            await asyncio.Event().wait()
        return await super().deliver(events)


async def test_what_was_begun_is_told_to_its_end_before_a_stop(database: Database, tmp_path: Path) -> None:
    """Whoever delivers next doesn't know how far this one has come, and would begin anew."""
    sink, metrics = Standing(), EventMetrics(Metrics(tmp_path, "background"))
    courier = Courier("a", sink, database.outbox, FrozenClock(NOW), metrics, Manners(pulls_at_once=2))

    running = asyncio.ensure_future(courier.run())
    await sink.stands.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert sink.requests == [["0", "1"], ["2", "3"], ["4"]]
    assert await database.outbox.pending() == {}


async def test_a_clock_that_is_set_back_holds_nothing_for_as_long(database: Database, tmp_path: Path) -> None:
    """What was held by the time before is due at once, and not after as long as the clock ran ahead."""
    metrics = EventMetrics(Metrics(tmp_path, "test"))
    [letter] = await database.outbox.due("a", now=NOW, limit=10)
    await database.outbox.hold(letter.position, error="refused", until=NOW + timedelta(days=1))
    sink = Refusing()
    courier = Courier("a", sink, database.outbox, FrozenClock(NOW), metrics, Manners(pulls_at_once=64))

    running = asyncio.ensure_future(courier.run())
    await asyncio.wait_for(sink.asked.wait(), 20)
    running.cancel()
    await asyncio.wait([running])

    assert sink.requests == [["0", "1", "2", "3", "4"]]
