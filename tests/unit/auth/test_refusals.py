"""Refused access on its way to the audit log: alike together, and never more lines than a disk can take."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from roadstead.acts import Act, ActKind, ActStore
from roadstead.auth.refusals import MAX_WAITING, Refusals, Refused
from roadstead.errors import UnavailableError
from roadstead.testing.clock import FrozenClock


class Written:
    """Keeps the lines; says no while it is asked to."""

    def __init__(self) -> None:
        self.acts: list[Act] = []
        self.refuses = False

    async def record(self, acts: Sequence[Act]) -> None:
        if self.refuses:
            raise UnavailableError("busy")
        self.acts += acts

    lines = purge = None


class Ticks:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture
def refusals(written: Written, ticks: Ticks) -> Refusals:
    store: ActStore = written  # type: ignore[assignment]
    clock = FrozenClock(datetime(2026, 3, 1, tzinfo=UTC))
    return Refusals(store, clock, burst=3, refill_s=6.0, ticks=ticks)


def refused(number: int = 0, reason: str = "no policy allows it") -> Refused:
    return Refused(f"user:{number}", "192.0.2.1", ActKind.ACCESS, "pull team/app", reason)


def counts(written: Written) -> list[tuple[str, int]]:
    return [(act.by, act.count) for act in written.acts]


async def test_refusals_alike_are_one_line(refusals: Refusals, written: Written) -> None:
    """With their number; the next few seconds have a line of their own."""
    for _ in range(1000):
        refusals.note(refused())
    refusals.note(refused(1))
    await refusals.flush()
    refusals.note(refused())
    await refusals.flush()
    await refusals.flush()

    assert counts(written) == [("user:0", 1000), ("user:1", 1), ("user:0", 1)]


async def test_each_reason_has_its_line(refusals: Refusals, written: Written) -> None:
    """Who is locked out after wrong passwords has sent no further wrong ones."""
    for reason in ("it is wrong", "it is wrong", "too many of these", "it is wrong"):
        refusals.note(refused(reason=reason))
    await refusals.flush()

    assert [(act.reason, act.count) for act in written.acts] == [("it is wrong", 3), ("too many of these", 1)]


async def test_a_flood_is_told_by_its_number(refusals: Refusals, written: Written, ticks: Ticks) -> None:
    """Beyond the lines that are left there is one for the rest, and every refusal is in one of them."""
    for number in range(10):
        refusals.note(refused(number))
    await refusals.flush()
    assert counts(written) == [("user:0", 1), ("user:1", 1), ("several", 8)]

    for number in range(5):
        refusals.note(refused(number))
    await refusals.flush()
    assert len(written.acts) == 3

    ticks.now += 6.0
    await refusals.flush()
    assert counts(written)[3:] == [("several", 5)]
    ticks.now += 6000.0
    refusals.note(refused(4))
    await refusals.flush()
    assert counts(written)[4:] == [("user:4", 1)]


async def test_memory_is_bounded(refusals: Refusals, written: Written) -> None:
    """However many names are tried between two writes."""
    for number in range(3 * MAX_WAITING):
        refusals.note(refused(number))
    assert len(refusals._waiting) == MAX_WAITING
    await refusals.flush()

    assert sum(act.count for act in written.acts) == 3 * MAX_WAITING


async def test_what_the_database_does_not_take_is_counted(refusals: Refusals, written: Written) -> None:
    """And told when it answers again."""
    written.refuses = True
    refusals.note(refused())
    refusals.note(refused())
    await refusals.flush()
    written.refuses = False
    await refusals.flush()

    assert counts(written) == [("several", 2)]
