"""Limits on what one client or one user may ask for, seen to request by request."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic

from roadstead.clock import Clock
from roadstead.limits.errors import PullsSpentError, RateExceededError, UploadsTooManyError
from roadstead.limits.ports import Marks, Places, PullStore, PullWindow
from roadstead.limits.rates import Rate

_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What is allowed; None is without limit. A user is somebody who has signed in, a client an address."""

    client_rate: Rate | None = None
    user_rate: Rate | None = None
    client_uploads: int | None = None
    user_uploads: int | None = None
    anonymous_pulls: int | None = None
    user_pulls: int | None = None
    pull_window: timedelta = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class PullsLeft:
    """How much of a window is left to somebody."""

    most: int
    left: int
    window_s: int


class Limits:
    """Sees to what is allowed. ``client`` is an address, ``user`` the name of somebody signed in, empty for others."""

    def __init__(
        self,
        allowed: Allowed,
        marks: Marks,
        places: Places,
        pulls: PullStore,
        clock: Clock,
        *,
        ticks: Callable[[], float] = monotonic,
    ) -> None:
        self._allowed = allowed
        self._marks = marks
        self._places = places
        self._pulls = pulls
        self._clock = clock
        self._ticks = ticks
        self._spent: OrderedDict[str, datetime] = OrderedDict()  # whose pulls are made, until when

    def admit_client(self, client: str, *, goes_on: bool = False) -> None:
        """Count a request of an address, before anybody asks who it is; raises RateExceededError.

        One that `goes_on` with what was begun may go as far again beyond the limit.
        """
        if self._allowed.client_rate is not None:
            self._take(self._allowed.client_rate, f"client {client}", goes_on=goes_on)

    def admit_user(self, user: str, *, goes_on: bool = False) -> None:
        """Count a request of somebody who has signed in, like `admit_client`; raises RateExceededError."""
        if self._allowed.user_rate is not None and user:
            self._take(self._allowed.user_rate, user, goes_on=goes_on)

    def _take(self, rate: Rate, who: str, *, goes_on: bool) -> None:
        most_s = rate.most_s * (2 if goes_on else 1)
        too_far = self._marks.advance(f"rate {who}", self._ticks(), rate.step_s, most_s)
        if too_far > 0:
            raise RateExceededError(who, too_far)

    @contextmanager
    def uploading(self, client: str, user: str) -> Iterator[None]:
        """Let a blob come in as long as the block runs; raises UploadsTooManyError."""
        taken: list[str] = []
        try:
            for who, most in ((f"client {client}", self._allowed.client_uploads), (user, self._allowed.user_uploads)):
                if most is None or not who:
                    continue
                if not self._places.enter(who, most):
                    raise UploadsTooManyError(who, most)
                taken.append(who)
            yield
        finally:
            for who in taken:
                self._places.leave(who)

    async def count_pull(self, client: str, user: str) -> PullsLeft | None:
        """Count a pull; None where it isn't limited. Raises PullsSpentError."""
        most, who = self._pulls_of(client, user)
        if most is None:
            return None
        now = self._clock.now()
        until = self._spent.get(who)
        if until is not None and until > now:
            raise self._refusal(who, most, until, now)
        window = await self._pulls.count_pull(who, now, self._allowed.pull_window)
        if window.pulls > most:
            until = window.began_at + self._allowed.pull_window
            self._remember(who, until)
            raise self._refusal(who, most, until, now)
        return self._left(most, window, now)

    async def pulls_left(self, client: str, user: str) -> PullsLeft | None:
        """Return what is left of a window without taking of it; None where pulls aren't limited."""
        most, who = self._pulls_of(client, user)
        if most is None:
            return None
        return self._left(most, await self._pulls.find_window(who), self._clock.now())

    def _pulls_of(self, client: str, user: str) -> tuple[int | None, str]:
        return (self._allowed.user_pulls, user) if user else (self._allowed.anonymous_pulls, f"client {client}")

    def _left(self, most: int, window: PullWindow | None, now: datetime) -> PullsLeft:
        is_open = window is not None and window.began_at + self._allowed.pull_window > now
        made = window.pulls if window is not None and is_open else 0
        return PullsLeft(most, max(0, most - made), self._window_s)

    def _refusal(self, who: str, most: int, until: datetime, now: datetime) -> PullsSpentError:
        return PullsSpentError(who, most, self._window_s, (until - now).total_seconds())

    def _remember(self, who: str, until: datetime) -> None:
        # Who goes on asking costs no transaction each time.
        self._spent[who] = until
        self._spent.move_to_end(who)
        if len(self._spent) > _REMEMBERED:
            self._spent.popitem(last=False)

    @property
    def _window_s(self) -> int:
        return int(self._allowed.pull_window.total_seconds())
