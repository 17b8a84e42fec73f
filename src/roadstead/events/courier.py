"""Delivers the events of one endpoint: in the order of each repository, at least once, patiently.

An event is tried until the receiver takes it. While it isn't taken it holds back the later ones of its repository,
and no others. After `threshold` failures in a row, whatever of, the endpoint is taken to be down: then one attempt is
made each `backoff`, as distribution does, until one succeeds.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from roadstead.clock import Clock
from roadstead.errors import UnavailableError
from roadstead.events.bundle import portion
from roadstead.events.ports import DeliveryError, Letter, OutboxStore, Sink, Tally

PAGE = 100
"""Letters looked up at once: few enough that what comes meanwhile waits for few."""

LONGEST_HOLD = timedelta(minutes=1)
"""How long an event that is refused again and again is let lie, where the endpoint takes others."""

_LOOK_EVERY_S = 5.0  # for what no wake-up told of
_LAST_WORDS_S = 1.0
_AT_LAST = datetime.max.replace(tzinfo=UTC)  # when nothing is held any longer

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How an endpoint is treated.

    `max_attempts` None: an event is tried for ever. `parallel`: repositories whose events are sent at once; 1 sends
    all events in the order they were written, as distribution does. `pulls_at_once`: of how many pulls that were
    written together one request tells at the most (`bundle.portion`).
    """

    threshold: int = 10
    backoff: timedelta = timedelta(seconds=1)
    max_attempts: int | None = None
    parallel: int = 1
    pulls_at_once: int = 1

    def hold(self, attempts: int) -> timedelta:
        """Return how long an event is let lie that has failed so many times: longer each time past the threshold."""
        over = attempts - self.threshold
        if over < 0:
            return timedelta()
        return self.longest_hold if over > 16 else min(self.backoff * 2**over, self.longest_hold)

    @property
    def longest_hold(self) -> timedelta:
        """Return the longest time that an event is let lie."""
        return max(self.backoff, LONGEST_HOLD)


@dataclass(slots=True)
class _Part:
    """How far one has come with a letter, which may tell of many pulls."""

    letter: Letter
    events: int = 0  # that were taken, or given up
    failures: int = 0  # the letter's before its next event, which is given up for its own alone
    refused: str = ""  # why the last that was given up wasn't taken


class Courier:
    """The delivery to one endpoint. One courier of an endpoint at a time keeps the order."""

    def __init__(
        self, endpoint: str, sink: Sink, outbox: OutboxStore, clock: Clock, tally: Tally, manners: Manners
    ) -> None:
        self.endpoint = endpoint
        self._sink = sink
        self._outbox = outbox
        self._clock = clock
        self._tally = tally
        self._manners = manners
        self._woken = asyncio.Event()
        self._delivered: list[int] = []  # told, and not marked yet
        self._parts: dict[int, _Part] = {}  # of letters that are being told of
        self._failures = 0  # in a row

    def wake(self) -> None:
        """Say that there may be something to deliver."""
        self._woken.set()

    async def run(self) -> None:
        """Deliver until cancelled; what was begun by then is told to its end, and what was delivered is marked."""
        try:
            while True:
                self._woken.clear()
                if not await self.deliver_due():
                    await self._wait()
        finally:
            # Cancelled: what isn't marked would be delivered again, which is allowed, and not wanted.
            with suppress(UnavailableError, TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self._mark()
                    await self._finish()
                    await self._mark()

    async def deliver_due(self) -> int:
        """Make an attempt with everything that is due now; return how many letters there were."""
        await self._mark()
        down = self._is_down
        letters = await self._outbox.due(self.endpoint, now=self._clock.now(), limit=1 if down else PAGE)
        if down and not letters:
            # Everything waits by itself: all the same the endpoint is asked at its pace, so that it is soon noticed
            # when it is back. What isn't held goes first, or one event that is refused would hide all others.
            letters = await self._outbox.due(self.endpoint, now=_AT_LAST, limit=1)
        if not letters:
            return 0
        gate = asyncio.Semaphore(self._manners.parallel)
        over = asyncio.Event()
        async with asyncio.TaskGroup() as marking:
            marking.create_task(self._mark_until(over))
            try:
                async with asyncio.TaskGroup() as group:
                    for line in self._lines(letters):
                        group.create_task(self._deliver_line(line, gate, probing=down))
            finally:
                over.set()
        if down and not self._is_down:
            _log.info("events are taken again", endpoint=self.endpoint)
            await self._outbox.release(self.endpoint, now=self._clock.now())
        elif self._is_down:
            await asyncio.sleep(self._manners.backoff.total_seconds())
        return len(letters)

    async def _finish(self) -> None:
        """Tell the rest of letters of which a part is told: where one has come to isn't known after a start."""
        for part in [part for part in self._parts.values() if part.events]:
            if self._is_down:
                return
            await self._deliver(part.letter)

    @property
    def _is_down(self) -> bool:
        return self._failures >= self._manners.threshold

    def _lines(self, letters: Sequence[Letter]) -> Iterable[Sequence[Letter]]:
        """Return what may be delivered side by side: each repository's letters, or all in one line."""
        if self._manners.parallel == 1:
            return [letters]
        by_repository: defaultdict[str, list[Letter]] = defaultdict(list)
        for letter in letters:
            by_repository[letter.repository].append(letter)
        return by_repository.values()

    async def _deliver_line(self, letters: Sequence[Letter], gate: asyncio.Semaphore, *, probing: bool) -> None:
        """Deliver letters in order; of a repository up to the first that isn't taken."""
        held: set[str] = set()
        for letter in letters:
            if letter.repository in held:
                continue
            async with gate:
                if self._is_down and not probing:
                    return
                if not await self._deliver(letter):
                    held.add(letter.repository)

    async def _deliver(self, letter: Letter) -> bool:
        """Make one attempt; False where the repository's later ones have to wait."""
        events = letter.events
        if letter.attempts == 0 and letter.position not in self._parts:
            self._tally.taken_up(self.endpoint, len(events))
        part = self._parts.setdefault(letter.position, _Part(letter))
        sizes = letter.sizes
        while some := events[part.events : portion(sizes, part.events, self._manners.pulls_at_once)]:
            try:
                answer = await self._sink.deliver(some)
            except DeliveryError as error:
                if not await self._failed(letter, part, error, len(some)):
                    return False
            else:
                self._failures = 0
                self._tally.delivered(self.endpoint, answer, len(some))
            part.events += len(some)
            part.failures = letter.attempts
            if self._is_down and part.events < len(events):
                return False  # the others have their turn at the pace of an endpoint that is down
        await self._settled(letter, part)
        return True

    async def _settled(self, letter: Letter, part: _Part) -> None:
        """Take note that all of a letter was taken, or give up what wasn't: whoever replays it sends all of it."""
        if part.refused:
            await self._outbox.bury(letter.position, error=part.refused, now=self._clock.now())
        else:
            self._delivered.append(letter.position)
        del self._parts[letter.position]

    async def _failed(self, letter: Letter, part: _Part, error: DeliveryError, events: int) -> bool:
        """Take note of a failed attempt with some events; True where they are given up."""
        self._failures += 1
        self._tally.failed(self.endpoint, error.answer)
        attempts = letter.attempts - part.failures + 1
        facts = {"endpoint": self.endpoint, "id": letter.event_id, "repository": letter.repository}
        if self._manners.max_attempts is not None and attempts >= self._manners.max_attempts:
            part.refused = error.reason
            for _ in range(events):
                self._tally.buried(self.endpoint)
            _log.error("event given up", **facts, attempts=attempts, error=error.reason)
            return True
        # Said at first and when it begins to last: an endpoint that is down for a night fills no log.
        say = _log.warning if attempts == 1 or self._failures == self._manners.threshold else _log.debug
        say("event not taken", **facts, attempts=attempts, error=error.reason)
        until = self._clock.now() + self._manners.hold(attempts)
        await self._outbox.hold(letter.position, error=error.reason, until=until)
        return False

    async def _mark_until(self, over: asyncio.Event) -> None:
        """Mark what was delivered, as it comes, so that a crash repeats little."""
        while not over.is_set():
            await self._mark()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    await over.wait()
        await self._mark()

    async def _mark(self) -> None:
        delivered, self._delivered = self._delivered, []
        try:
            await self._outbox.settle(delivered, now=self._clock.now())
        except BaseException:
            self._delivered = delivered + self._delivered
            raise

    async def _wait(self) -> None:
        """Wait until there may be something: told, or a held event is due."""
        due = await self._outbox.next_due(self.endpoint)
        left = _LOOK_EVERY_S
        if due is not None:
            now = self._clock.now()
            if due - now > self._manners.longest_hold:  # by a clock that ran ahead, and has been set right
                await self._outbox.release(self.endpoint, now=now)
                return
            left = min(left, max(0.0, (due - now).total_seconds()))
        with suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._woken.wait()
