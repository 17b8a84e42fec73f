"""Refused access on its way to the audit log: summed up, so that a flood of it can't fill a disk.

Refusals alike (who, from where, to do what, where, why) within a few seconds are one line with a count. A worker
writes no more than so many lines in a time; what is beyond that is told by one line with its number.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic

import structlog

from roadstead.acts import Act, ActKind, ActStore, Outcome
from roadstead.clock import Clock
from roadstead.errors import UnavailableError

FLUSH_EVERY = timedelta(seconds=5)
BURST = 200
"""Lines that a worker writes at once."""

REFILL_S = 6.0
"""After so long it may write one more: 14,400 a day at the most, some 3 MB."""

MAX_WAITING = 1000
"""Different refusals that a worker keeps apart until they are written."""

_EVERYBODY = "several"
_BEYOND = "refused beyond the number that is written one by one"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Refused:
    """What makes refusals alike."""

    by: str
    client: str
    kind: ActKind
    target: str
    reason: str


@dataclass(slots=True)
class _Tally:
    at: datetime
    count: int = 0


class Refusals:
    """The refusals of one worker that aren't written yet."""

    def __init__(
        self,
        acts: ActStore,
        clock: Clock,
        *,
        burst: int = BURST,
        refill_s: float = REFILL_S,
        ticks: Callable[[], float] = monotonic,
    ) -> None:
        self._acts = acts
        self._clock = clock
        self._burst = burst
        self._refill_s = refill_s
        self._ticks = ticks
        self._level = float(burst)  # lines that may be written now
        self._seen = ticks()
        self._waiting: dict[Refused, _Tally] = {}
        self._beyond: _Tally | None = None

    def note(self, refused: Refused) -> None:
        """Count a refusal; it waits for nothing."""
        tally = self._waiting.get(refused)
        if tally is None:
            if len(self._waiting) >= MAX_WAITING:
                self._pass_over(1)
                return
            tally = self._waiting[refused] = _Tally(self._clock.now())
        tally.count += 1

    async def run(self) -> None:
        """Write what came, every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_EVERY.total_seconds())
            try:
                await self.flush()
            except Exception:  # noqa: BLE001 -- the outermost frame of the work: told, and tried again at its time
                _log.exception("refused access can't be written to the audit log")

    async def flush(self) -> None:
        """Write what waits, as far as lines are left; what the database doesn't take is only counted then."""
        lines = self._lines()
        if not lines:
            return
        try:
            await self._acts.record(lines)
        except UnavailableError as error:
            self._pass_over(sum(line.count for line in lines))
            _log.warning("refused access can't be written to the audit log", error=str(error))
        else:
            self._level -= len(lines)

    def _lines(self) -> list[Act]:
        """Take the lines that may be written now; the last of them tells of those that may not."""
        now = self._ticks()
        self._level = min(float(self._burst), self._level + (now - self._seen) / self._refill_s)
        self._seen = now
        left = int(self._level)
        waiting, self._waiting = self._waiting, {}
        room = left if self._beyond is None and len(waiting) <= left else max(0, left - 1)
        lines = []
        for position, (refused, tally) in enumerate(waiting.items()):
            if position < room:
                lines.append(_line(refused, tally))
            else:
                self._pass_over(tally.count)
        if self._beyond is not None and left > 0:
            beyond, self._beyond = self._beyond, None
            lines.append(_line(Refused(_EVERYBODY, "", ActKind.ACCESS, "", _BEYOND), beyond))
        return lines

    def _pass_over(self, count: int) -> None:
        if self._beyond is None:
            self._beyond = _Tally(self._clock.now())
        self._beyond.count += count


def _line(refused: Refused, tally: _Tally) -> Act:
    return Act(
        at=tally.at,
        by=refused.by,
        client=refused.client,
        kind=refused.kind,
        target=refused.target,
        outcome=Outcome.DENIED,
        reason=refused.reason,
        count=tally.count,
    )
