"""Pulls on their way to the outbox: kept in memory for a second, since no transaction tells of them.

Whoever pulls doesn't wait for a write. So a worker that is killed loses the last second's, and where more come than
can be written the surplus is dropped, and counted.

Most pulls are like one that came before, and differ in when and from where. So what an event says besides is put
together once for all that are alike, and each pull after that costs a look at a table and a place in a list.
"""

import asyncio
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from heapq import merge
from operator import itemgetter
from typing import TypeAlias

import structlog

from roadstead.errors import UnavailableError
from roadstead.events.bundle import MAX_LIKES, MOST, Bundle, Pulls, size_of
from roadstead.events.event import Event, Source
from roadstead.events.ports import OutboxStore, Tally
from roadstead.events.rules import Interests
from roadstead.oci.reference import RepositoryName

FLUSH_EVERY = timedelta(seconds=1)
MAX_WAITING = 10_000
"""Pulls that a worker keeps: at a hundred bytes each, a megabyte."""

_ROWS_AT_ONCE = 32  # in one transaction: others wait for it
_KINDS = 1024
_KNOWN_BYTES = 4 << 20
"""What kinds come to that are remembered, as text: a few times as much in memory."""

_WAITING_BYTES = 16 << 20
"""What kinds come to that were learnt and whose pulls aren't written."""

_NOWHERE = Source("", "")

_log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Line:
    """The pulls from one repository that the same endpoints are told of, in their order.

    ``kinds`` is what they have in common, and about what an event of it takes, in bytes.
    """

    endpoints: Sequence[str]
    repository: RepositoryName
    kinds: list[tuple[Event, int]] = field(default_factory=list)
    pulls: Pulls = field(default_factory=Pulls)


_Kind: TypeAlias = tuple[_Line, int]
"""What pulls have in common that are alike: the line that they stand in, and the place of it there."""


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
        self._left = limit  # how many more may be noted
        self._kinds: dict[Hashable, _Kind] = {}
        self._known = 0  # bytes that they come to
        self._learnt = 0  # bytes of those that were learnt since the last flush
        self._unwritten = 0  # and before it, with pulls that the database hasn't taken
        self._lines: dict[tuple[Sequence[str], RepositoryName], _Line] = {}
        self._waiting: list[_Line] = []  # those with pulls
        self._bundles: deque[Bundle] = deque()  # their ids are given, and stay
        self._flushing = asyncio.Lock()

    def learn(self, like: Hashable, event: Event) -> None:
        """Take note of what pulls of a likeness have in common: an event without a request's id and address.

        Anybody can make up new likenesses. Where too many wait to be written this one's pull is dropped, and counted.
        """
        endpoints = tuple(self._interests.listeners(event))
        size = size_of(event.as_plain(_NOWHERE)) if endpoints else 0
        if self._learnt + self._unwritten + size > _WAITING_BYTES:
            self._drop(endpoints)
            return
        if len(self._kinds) >= _KINDS or self._known + size > _KNOWN_BYTES:
            self._kinds, self._lines, self._known = {}, {}, 0  # what waits stays in its line
        line = self._lines.setdefault((endpoints, event.repository), _Line(endpoints, event.repository))
        self._kinds[like] = line, len(line.kinds)
        self._known += size
        self._learnt += size
        if endpoints:
            line.kinds.append((event, size))

    def note(self, like: Hashable, micros: int, address: str) -> bool:
        """Keep a pull if anybody wants to hear of it; drop it where too many wait. False: it has to be learnt.

        `micros` is when it was, in microseconds since 1970.
        """
        kind = self._kinds.get(like)
        if kind is None:
            return False
        line, place = kind
        if not line.endpoints:
            return True
        if self._left > 0:
            self._left -= 1
            pulls = line.pulls
            if not pulls.places:
                self._waiting.append(line)
            # Not by a method of theirs: each pull passes here.
            pulls.places.append(place)
            pulls.micros.append(micros)
            pulls.addresses.append(address)
        else:
            self._drop(line.endpoints)
        return True

    def _drop(self, endpoints: Sequence[str]) -> None:
        for endpoint in endpoints:
            self._tally.dropped(endpoint)

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
            waiting, self._waiting = self._waiting, []
            self._unwritten, self._learnt = self._unwritten + self._learnt, 0
            for line in _in_order(waiting):
                self._bundles.extend(_bundles(line, line.pulls.taken()))
            try:
                await self._write()
                self._unwritten = 0
            except UnavailableError as error:
                _log.warning("pulls can't be noted for events", waiting=len(self._bundles), error=str(error))
            finally:
                self._left = self._limit - self._kept()

    def _kept(self) -> int:
        """Return how many pulls there are, in bundles and in lines."""
        return sum(len(bundle.pulls) for bundle in self._bundles) + sum(len(line.pulls) for line in self._waiting)

    async def _write(self) -> None:
        while self._bundles:
            some = [self._bundles[place] for place in range(min(_ROWS_AT_ONCE, len(self._bundles)))]
            await self._outbox.add(some)
            for _ in some:
                self._bundles.popleft()


def _in_order(waiting: Sequence[_Line]) -> Iterator[_Line]:
    """Yield lines so that each endpoint is told of a repository's pulls in the order they came.

    Where endpoints want different ones of its pulls, or what is known of them was forgotten meanwhile, a repository has
    several lines: they are put together for each endpoint.
    """
    by_repository: dict[RepositoryName, list[_Line]] = {}
    for line in waiting:
        by_repository.setdefault(line.repository, []).append(line)
    for repository, lines in by_repository.items():
        if len(lines) == 1:
            yield lines[0]
            continue
        for endpoint in dict.fromkeys(endpoint for line in lines for endpoint in line.endpoints):
            yield _merged(endpoint, repository, [line for line in lines if endpoint in line.endpoints])
        for line in lines:
            line.pulls.taken()


def _merged(endpoint: str, repository: RepositoryName, lines: Sequence[_Line]) -> _Line:
    """Return one line of several, for one endpoint."""
    merged = _Line((endpoint,), repository)
    columns = []
    for line in lines:
        before = len(merged.kinds)
        merged.kinds += line.kinds
        pulls = line.pulls
        columns.append(zip([before + place for place in pulls.places], pulls.micros, pulls.addresses, strict=True))
    for place, micros, address in merge(*columns, key=itemgetter(1)):  # of one moment: the line's that began earlier
        merged.pulls.add(place, micros, address)
    return merged


def _bundles(line: _Line, pulls: Pulls) -> Iterator[Bundle]:
    """Yield bundles for each endpoint, with the pulls in their order."""
    for some in _parts(line, pulls):
        places = sorted(set(some.places))
        likes = [line.kinds[place][0] for place in places]
        if len(places) < len(line.kinds):  # not all kinds are here
            numbers = {place: number for number, place in enumerate(places)}
            some = replace(some, places=[numbers[place] for place in some.places])
        for endpoint in line.endpoints:
            yield Bundle(endpoint, line.repository, likes, some)


def _parts(line: _Line, pulls: Pulls) -> Iterator[Pulls]:
    """Yield as many pulls as a bundle holds; fewer where what they don't have in common is large."""
    if sum(size for _, size in line.kinds) <= MAX_LIKES:
        for begin in range(0, len(pulls), MOST):
            yield pulls.part(begin, begin + MOST)
        return
    begin = taken = 0
    seen: set[int] = set()
    for at, place in enumerate(pulls.places):
        size = line.kinds[place][1]
        more = 0 if place in seen else size
        if at > begin and (at - begin == MOST or taken + more > MAX_LIKES):
            yield pulls.part(begin, at)
            begin, taken, more = at, 0, size
            seen.clear()
        seen.add(place)
        taken += more
    yield pulls.part(begin, len(pulls))
