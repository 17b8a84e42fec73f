"""How many texts somebody may try that are no secret of ours (container tokens), from one address."""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from roadstead.limits.errors import TooMuchError
from roadstead.limits.ports import Marks
from roadstead.limits.rates import Rate, source

WRONG = Rate(per_second=0.2, burst=60)
"""A node whose pods all name a token that was forgotten asks again and again, and is to be told so; a search of 160
random bits isn't helped by any rate, but it shall cost us little."""

_REMEMBERED = 4096


class GuessesTooManyError(TooMuchError):
    """Too many unknown tokens came from one client."""

    def __init__(self, wait_s: float) -> None:
        super().__init__("too many unknown tokens came from this address", wait_s)


class Guesses:
    """Counts what was wrong, by client; for whoever has used that up nothing new is looked up for a while.

    What this process has seen to be right is still answered then: many may stand behind one address.
    """

    def __init__(self, marks: Marks, *, ticks: Callable[[], float] = monotonic) -> None:
        self._marks = marks
        self._ticks = ticks
        self._right: OrderedDict[str, None] = OrderedDict()

    def check(self, client: str, hashed: str) -> None:
        """Raise GuessesTooManyError if the client has to wait before this is looked up."""
        if hashed in self._right:
            return
        too_far = self._marks.read(_key(client), self._ticks()) - WRONG.most_s + WRONG.step_s
        if too_far > 0:
            raise GuessesTooManyError(too_far)

    def right(self, hashed: str) -> None:
        """Remember that this is a secret of ours: that it was, not that it is."""
        self._right[hashed] = None
        if len(self._right) > _REMEMBERED:
            self._right.popitem(last=False)

    def wrong(self, client: str) -> None:
        """Count what was wrong."""
        self._marks.advance(_key(client), self._ticks(), WRONG.step_s, WRONG.most_s)


class Paced:
    """Lets a client have something done so often, and no more: what makes us ask other servers."""

    def __init__(self, marks: Marks, what: str, rate: Rate, *, ticks: Callable[[], float] = monotonic) -> None:
        self._marks = marks
        self._what = what
        self._rate = rate
        self._ticks = ticks

    def admit(self, client: str) -> None:
        """Count a request; raises TooMuchError."""
        key = f"{self._what} client {source(client)}"
        too_far = self._marks.advance(key, self._ticks(), self._rate.step_s, self._rate.most_s)
        if too_far > 0:
            raise TooMuchError(f"too many requests of this kind came from {client or 'this address'}", too_far)


def _key(client: str) -> str:
    return f"guesses client {source(client)}"
