"""Pulls that wait to be written."""

import asyncio
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from roadstead.db.engine import Database, open_database
from roadstead.db.moments import to_micros
from roadstead.events import pulls
from roadstead.events.bundle import MAX_LIKES, MOST, Bundle, size_of, unbundled
from roadstead.events.event import Action, Cause, Event, Source, Subject
from roadstead.events.pulls import PullBuffer
from roadstead.events.rules import Interest, Interests
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.registry.errors import StoreBusyError
from roadstead.telemetry.metrics import EventMetrics, Metrics

PULLS = Interests(endpoints=(Interest(endpoint="a", actions=frozenset({Action.PULL})),))


NOW = datetime(2026, 3, 1, tzinfo=UTC)


def pull(method: str = "GET", repository: str = "a", **more: object) -> Event:
    """Return the event of a pull."""
    return Event(
        action=Action.PULL,
        subject=Subject.BLOB,
        repository=RepositoryName(repository),
        at=NOW,
        digest=Digest.of(b""),
        cause=Cause(method=method),
        **more,  # type: ignore[arg-type]
    )


def note(buffer: PullBuffer, event: Event, number: int = 0) -> None:
    """Have a pull noted as handlers do; by its number it is told from others that are alike."""
    like = (event.repository, event.cause.method)
    pulled = (like, to_micros(NOW) + number, f"192.0.2.1:{number}")
    if not buffer.note(*pulled):
        buffer.learn(like, event)
        assert buffer.note(*pulled)


class Taking:
    """An outbox that takes everything, once it isn't busy any longer."""

    def __init__(self, *, busy: int = 0) -> None:
        self.busy = busy
        self.taken: list[Bundle] = []

    async def add(self, bundles: Sequence[Bundle]) -> None:
        """Take bundles."""
        if self.busy:
            self.busy -= 1
            raise StoreBusyError("busy")
        self.taken += bundles

    def addresses(self, repository: str) -> list[str]:
        """Return where the pulls of a repository came from, in the order they were taken."""
        return [
            event["request"]["addr"]
            for bundle in self.taken
            if bundle.repository.value == repository
            for event in unbundled(bundle.id, bundle.as_plain(Source("", "")))
        ]


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
        note(buffer, pull("HEAD"))
    for _ in range(5):
        note(buffer, pull())

    await buffer.flush()

    assert await database.outbox.pending() == {"a": 3}
    assert dropped(numbers) == 'roadstead_events_pulls_dropped_total{endpoint="a"} 2.0'


async def test_what_the_database_does_not_take_is_kept(tmp_path: Path) -> None:
    """Until it does, in order and once."""

    outbox = Taking(busy=2)
    buffer = PullBuffer(PULLS, outbox, EventMetrics(Metrics(tmp_path, "worker-1")))  # type: ignore[arg-type]
    for number in range(450):
        note(buffer, pull(), number)

    for _ in range(3):
        await buffer.flush()

    assert outbox.addresses("a") == [f"192.0.2.1:{number}" for number in range(450)]
    assert Counter(bundle.id for bundle in outbox.taken).most_common(1)[0][1] == 1


async def test_flushes_that_meet_write_nothing_twice(tmp_path: Path) -> None:
    """One goes on where the other has stopped."""

    class Slow(Taking):
        async def add(self, bundles: Sequence[Bundle]) -> None:
            await asyncio.sleep(0)
            await super().add(bundles)

    outbox = Slow()
    buffer = PullBuffer(PULLS, outbox, EventMetrics(Metrics(tmp_path, "worker-1")))  # type: ignore[arg-type]
    for number in range(5000):
        note(buffer, pull(), number)

    await asyncio.gather(buffer.flush(), buffer.flush())

    assert outbox.addresses("a") == [f"192.0.2.1:{number}" for number in range(5000)]


async def test_what_waits_for_the_database_takes_places(tmp_path: Path) -> None:
    """So a database that is down for long makes no buffer grow."""
    outbox = Taking(busy=3)
    numbers = Metrics(tmp_path, "worker-1")
    buffer = PullBuffer(PULLS, outbox, EventMetrics(numbers), limit=10)  # type: ignore[arg-type]
    for number in range(30):
        note(buffer, pull(), number)
        if number % 8 == 7:
            await buffer.flush()
    await buffer.flush()

    assert len(outbox.addresses("a")) + float(dropped(numbers).rpartition(" ")[2]) == 30
    assert len(outbox.addresses("a")) == 10


async def test_pulls_are_told_together_by_repository_and_in_order(tmp_path: Path) -> None:
    """As many as a bundle holds, and fewer where kinds are large; of each repository in the order they came."""
    outbox = Taking()
    buffer = PullBuffer(PULLS, outbox, EventMetrics(Metrics(tmp_path, "worker-1")))  # type: ignore[arg-type]
    large = {"references": [{"digest": "x" * 100} for _ in range(100)]}
    count = 2 * MOST + 72
    for number in range(count):
        note(buffer, pull(), number)
        note(buffer, pull(f"M{number % 50}", repository="b", **large), number)

    await buffer.flush()

    everyone = [f"192.0.2.1:{number}" for number in range(count)]
    assert outbox.addresses("a") == outbox.addresses("b") == everyone
    lengths = {name: [len(bundle.pulls) for bundle in outbox.taken if bundle.repository.value == name] for name in "ab"}
    assert lengths["a"] == [MOST, MOST, 72]
    assert max(lengths["b"]) == MAX_LIKES // size_of(pull("M10", repository="b", **large).as_plain(Source("", "")))


@pytest.mark.parametrize("heads", [True, False], ids=["heard", "unheard"])
async def test_new_likenesses_without_end_take_little(tmp_path: Path, *, heads: bool) -> None:
    """Whoever pulls may make them up: those that wait are bounded by their bytes, also while the database is down."""
    outbox, numbers = Taking(busy=2), Metrics(tmp_path, "worker-1")
    wanted = Interests(endpoints=(Interest(endpoint="a", actions=frozenset({Action.PULL}), heads=heads),))
    buffer = PullBuffer(wanted, outbox, EventMetrics(numbers))  # type: ignore[arg-type]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(3000):
        large = {"references": [{"digest": f"{number:05}" + "x" * 20_000}]}
        buffer.learn(number, pull("HEAD", **large))
        buffer.note(number, number, "192.0.2.1:1")
        if number % 1000 == 999:
            await buffer.flush()
    took = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()

    written = sum(len(bundle.pulls) for bundle in outbox.taken)
    assert took - sum(len(like.references[0]["digest"]) for bundle in outbox.taken for like in bundle.likes) < 12 << 20
    if heads:
        assert 700 < written < 900
        assert written + float(dropped(numbers).rpartition(" ")[2]) == 3000
    else:
        assert written == 0


async def test_each_pull_is_told_as_what_it_was(tmp_path: Path) -> None:
    """Of a repository with pulls of several kinds, in any order, some of them in none of the bundles."""
    outbox = Taking()
    heads = Interests(endpoints=(Interest(endpoint="a", actions=frozenset({Action.PULL}), heads=True),))
    buffer = PullBuffer(heads, outbox, EventMetrics(Metrics(tmp_path, "worker-1")))  # type: ignore[arg-type]
    for methods in (["GET", "HEAD", "OTHER"], ["HEAD", "GET", "OTHER"], ["OTHER", "GET"], ["HEAD"] * 3):
        outbox.taken.clear()
        for number, method in enumerate(methods):
            note(buffer, pull(method), number)
        await buffer.flush()
        told = [
            (event["request"]["method"], event["request"]["addr"])
            for bundle in outbox.taken
            for event in unbundled(bundle.id, bundle.as_plain(Source("", "")))
        ]
        assert told == [(method, f"192.0.2.1:{number}") for number, method in enumerate(methods)]


async def test_they_are_written_each_second(database: Database, tmp_path: Path) -> None:
    """By a loop, which goes on after what nobody foresaw."""
    buffer = PullBuffer(
        PULLS, database.outbox, EventMetrics(Metrics(tmp_path, "worker-1")), every=timedelta(milliseconds=10)
    )
    running = asyncio.ensure_future(buffer.run())
    try:
        note(buffer, pull())
        async with asyncio.timeout(10):
            async with database.outbox.commits() as commits:
                while not await database.outbox.pending():
                    await commits.wait(1)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("kinds", [1024, 1], ids=["known", "forgotten at each"])
async def test_endpoints_that_want_different_pulls_hear_them_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kinds: int
) -> None:
    """Of each repository, whatever others hear of it, and whatever is learnt anew meanwhile."""
    monkeypatch.setattr(pulls, "_KINDS", kinds)
    outbox, of_pulls = Taking(), frozenset({Action.PULL})
    both = Interests(
        endpoints=(
            Interest(endpoint="all", actions=of_pulls, heads=True),
            Interest(endpoint="gets", actions=of_pulls),
        )
    )
    buffer = PullBuffer(both, outbox, EventMetrics(Metrics(tmp_path, "worker-1")))  # type: ignore[arg-type]
    for number in range(MOST + 72):
        note(buffer, pull("HEAD" if number % 3 else "GET"), number)
        note(buffer, pull(repository="b"), number)

    await buffer.flush()
    await buffer.flush()

    def told(endpoint: str, repository: str) -> list[tuple[str, str]]:
        return [
            (event["request"]["method"], event["request"]["addr"])
            for bundle in outbox.taken
            if (bundle.endpoint, bundle.repository.value) == (endpoint, repository)
            for event in unbundled(bundle.id, bundle.as_plain(Source("", "")))
        ]

    everyone = [("HEAD" if number % 3 else "GET", f"192.0.2.1:{number}") for number in range(MOST + 72)]
    gets = [("GET", f"192.0.2.1:{number}") for number in range(MOST + 72)]
    assert told("all", "a") == everyone
    assert told("gets", "a") == [one for one in everyone if one[0] == "GET"]
    assert told("all", "b") == told("gets", "b") == gets
    assert max(len(bundle.pulls) for bundle in outbox.taken) == MOST
