"""Who gets a place to have a layer fetched, and who waits."""

import asyncio
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.augment.turns import RETRY_AFTER_S, Shares, Turns, TurnsTakenError


class Callers:
    """Those who ask: each holds its place until it is told to go."""

    def __init__(self, shares: Shares | None = None) -> None:
        self.turns = Turns(shares)
        self.holding: list[str] = []  # in the order in which places were had
        self._leave: dict[str, list[asyncio.Event]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def ask(self, *names: str) -> None:
        for name in names:
            self._tasks.append(asyncio.ensure_future(self._hold(name)))

    async def _hold(self, name: str) -> None:
        async with self.turns.turn(name):
            leave = asyncio.Event()
            self._leave.setdefault(name, []).append(leave)
            self.holding.append(name)
            await leave.wait()
            self.holding.remove(name)

    async def settled(self) -> Counter[str]:
        """Return who has how many places when nothing more happens by itself."""
        for _ in range(5 * len(self._tasks) + 5):
            await asyncio.sleep(0)
        return Counter(self.holding)

    async def leave(self, name: str) -> Counter[str]:
        self._leave[name].pop(0).set()
        return await self.settled()

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_one_who_asks_gets_half_of_the_places() -> None:
    """Alone, however much they ask for: the others who come find places, each some, until there are none."""
    callers = Callers()
    callers.ask(*["greedy"] * 20)
    assert await callers.settled() == {"greedy": 4}
    callers.ask("ana", "bob", "ana", "ana", "carol", "dave")
    assert await callers.settled() == {"greedy": 4, "ana": 2, "bob": 1, "carol": 1}
    await callers.end()


async def test_a_place_goes_to_who_has_the_fewest() -> None:
    """Whoever has waited longest among those; what one gives back isn't one's own."""
    callers = Callers()
    callers.ask(*["greedy"] * 20, "ana", "ana", "bob", "carol", "dave", "erin")
    assert (await callers.settled())["dave"] == 0
    assert (await callers.leave("greedy")) == {"greedy": 3, "ana": 2, "bob": 1, "carol": 1, "dave": 1}
    assert (await callers.leave("greedy")) == {"greedy": 2, "ana": 2, "bob": 1, "carol": 1, "dave": 1, "erin": 1}
    for name in ("ana", "ana", "bob", "carol", "dave"):
        await callers.leave(name)
    assert await callers.leave("erin") == {"greedy": 4}, "and when all have gone there is half of them again"
    await callers.end()


async def test_who_waits_too_long_or_with_too_many_is_told_when_to_come_back() -> None:
    """Others wait on: it is about one's own alone."""
    callers = Callers(Shares(places=2, waiting=1, patience_s=0.05))
    callers.ask("greedy", "greedy")
    assert await callers.settled() == {"greedy": 1}
    with pytest.raises(TurnsTakenError, match="1 of your layers are being fetched") as many:
        async with callers.turns.turn("greedy"):
            raise AssertionError("there is no place")
    assert many.value.retry_after_s == RETRY_AFTER_S
    async with callers.turns.turn("ana"):
        with pytest.raises(TurnsTakenError):
            async with callers.turns.turn("bob"):
                raise AssertionError("there is no place")
    await callers.end()


async def test_who_goes_away_takes_no_place_along() -> None:
    """While they wait, while they have one, and in the moment in which they are given one."""
    turns = Turns(Shares(places=2))

    async def hold() -> None:
        async with turns.turn("one"):
            await asyncio.Event().wait()

    first, second, third = (asyncio.ensure_future(hold()) for _ in range(3))
    await asyncio.sleep(0)
    second.cancel()  # waits
    first.cancel()  # has the place, which the third is given
    await asyncio.wait([first, second])
    third.cancel()
    await asyncio.wait([third])

    async with asyncio.timeout(1), turns.turn("one"), turns.turn("other"):
        pass


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), max_size=60))
def test_no_place_is_lost_and_none_made_up(steps: Iterable[tuple[str, bool]]) -> None:
    """Whatever comes and goes: never more than there are, none idle that somebody may have, and in the end all free."""

    async def run() -> None:
        callers = Callers(Shares(places=5))
        for name, comes in steps:
            if comes:
                callers.ask(name)
            elif name in callers.holding:
                await callers.leave(name)
            held = await callers.settled()
            assert held.total() <= 5
            waiting = {waiter.who for waiter in callers.turns._waiters}
            assert all(held[one] >= 5 - held.total() for one in waiting), "who waits may have no more"
        await callers.end()
        assert not callers.turns._taken
        assert not callers.turns._waiters

    asyncio.run(run())
