"""Pulls on their way to the outbox: kept in memory for a second, since no transaction tells of them.

Whoever pulls doesn't wait for a write. So a worker that is killed loses the last second's, and where more come than
can be written the surplus is dropped, and counted.

Most pulls are like one that came before, and differ in when and from where. So what an event says besides is put
together once for all that are alike, and each pull after that costs a look at a table and a place in a list.
"""

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

import structlog

from roadstead.errors import UnavailableError
from roadstead.events.bundle import MAX_BYTES, MOST, Bundle, Pull
from roadstead.events.event import Event, Source
from roadstead.events.ports import OutboxStore, Tally
from roadstead.events.rules import Interests
from roadstead.oci.reference import RepositoryName

FLUSH_EVERY = timedelta(seconds=1)
MAX_WAITING = 10_000
"""Pulls that a worker keeps: at a hundred bytes each, a megabyte."""

_ROWS_AT_ONCE = 32  # in one transaction: others wait for it
_KINDS = 1024
_NOWHERE = Source("", "")

_log = structlog.get_logger()

_Line: TypeAlias = tuple[str, RepositoryName]


@dataclass(frozen=True, slots=True, eq=False)
class _Kind:
    """What pulls have in common that are alike; ``size`` is about what an event of it takes, in bytes."""

    event: Event
    lines: Sequence[_Line]  # for whom, and of what
    size: int


_Noted: TypeAlias = tuple[_Kind, datetime, str]


class PullBuffer:
    """The pulls of one worker that aren't written yet."""

    def __init__(
        self,
        interests: Interests,
        outbox: OutboxStore,
        tally: Tally,
        *,
        every: timedelta = FLUSH_EVERY,
        limit: int = MAX_WAITING,
    ) -> None:
        self._interests = interests
        self._outbox = outbox
        self._tally = tally
        self._every_s = every.total_seconds()
        self._limit = limit
        self._kinds: dict[Hashable, _Kind] = {}
        self._waiting: list[_Noted] = []
        self._bundles: deque[Bundle] = deque()  # their ids are given, and stay
        self._bundled = 0  # pulls in them
        self._flushing = asyncio.Lock()

    def learn(self, like: Hashable, event: Event) -> None:
        """Take note of what pulls of a likeness have in common: an event without a request's id and address."""
        listeners = self._interests.listeners(event)
        size = len(json.dumps(event.as_plain(_NOWHERE), ensure_ascii=False)) if listeners else 0
        if len(self._kinds) >= _KINDS:
            self._kinds.clear()
        self._kinds[like] = _Kind(event, [(endpoint, event.repository) for endpoint in listeners], size)

    def note(self, like: Hashable, at: datetime, address: str) -> bool:
        """Keep a pull if anybody wants to hear of it; drop it where too many wait. False: it has to be learnt."""
        kind = self._kinds.get(like)
        if kind is None:
            return False
        if kind.lines:
            if len(self._waiting) + self._bundled < self._limit:
                self._waiting.append((kind, at, address))
            else:
                for endpoint, _ in kind.lines:
                    self._tally.dropped(endpoint)
        return True

    async def run(self) -> None:
        """Write what came, each second, until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.flush()
            except Exception:  # noqa: BLE001 -- the outermost frame of the work: told, and tried again at its time
                _log.exception("pulls can't be noted for events")

    async def flush(self) -> None:
        """Write what waits; what the database doesn't take now is tried again the next time."""
        async with self._flushing:  # two at once would write the same twice
            noted, self._waiting = self._waiting, []
            self._bundled += len(noted)
            self._bundles.extend(_bundles(noted))
            try:
                await self._write()
            except UnavailableError as error:
                _log.warning("pulls can't be noted for events", waiting=len(self._bundles), error=str(error))
            finally:
                self._bundled = sum(len(bundle.pulls) for bundle in self._bundles)

    async def _write(self) -> None:
        while self._bundles:
            some = [self._bundles[place] for place in range(min(_ROWS_AT_ONCE, len(self._bundles)))]
            await self._outbox.add(some)
            for _ in some:
                self._bundles.popleft()


def _bundles(noted: Sequence[_Noted]) -> Iterator[Bundle]:
    """Yield bundles for each endpoint and repository, which has its pulls in their order."""
    by_line: defaultdict[_Line, list[_Noted]] = defaultdict(list)
    for pull in noted:
        for line in pull[0].lines:
            by_line[line].append(pull)
    for line, pulls in by_line.items():
        begin = size = 0
        for place, (kind, _, _) in enumerate(pulls):
            if place > begin and (place - begin == MOST or size + kind.size > MAX_BYTES):
                yield _bundle(line, pulls[begin:place])
                begin, size = place, 0
            size += kind.size
        yield _bundle(line, pulls[begin:])


def _bundle(line: _Line, noted: Sequence[_Noted]) -> Bundle:
    kinds: dict[_Kind, int] = {}
    pulls = [Pull(kinds.setdefault(kind, len(kinds)), at, address) for kind, at, address in noted]
    return Bundle(*line, [kind.event for kind in kinds], pulls)
