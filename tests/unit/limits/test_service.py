"""Who is told what when there is no more for them."""

from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from roadstead.limits.errors import PullsSpentError, RateExceededError, UploadsTooManyError, in_words
from roadstead.limits.ports import PullWindow
from roadstead.limits.providers.shared import SharedMarks, SharedPlaces
from roadstead.limits.rates import Rate
from roadstead.limits.service import Allowed, Limits, PullsLeft
from roadstead.testing.clock import FrozenClock

HOUR = timedelta(hours=1)


class Pulls:
    """A `PullStore` in memory that says how often it was asked to count."""

    def __init__(self) -> None:
        self.windows: dict[str, PullWindow] = {}
        self.counted = 0

    async def find_window(self, subject: str) -> PullWindow | None:
        return self.windows.get(subject)

    async def count_pull(self, subject: str, now: datetime, window: timedelta) -> PullWindow:
        self.counted += 1
        last = self.windows.get(subject)
        is_open = last is not None and last.began_at + window > now
        self.windows[subject] = PullWindow(last.began_at, last.pulls + 1) if last and is_open else PullWindow(now, 1)
        return self.windows[subject]


class Scene:
    def __init__(self, directory: Path, **allowed: object) -> None:
        self.clock, self.pulls, self.now = FrozenClock(), Pulls(), 5000.0
        marks, places = SharedMarks(directory / "marks"), SharedPlaces(directory / "places")
        allowances = Allowed(pull_window=HOUR, **allowed)  # type: ignore[arg-type]  # whatever the test limits
        self.limits = Limits(allowances, marks, places, self.pulls, self.clock, ticks=lambda: self.now)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(
        tmp_path,
        client_rate=Rate(2, 3),
        user_rate=Rate(1, 1),
        client_uploads=2,
        user_uploads=1,
        anonymous_pulls=2,
        user_pulls=3,
    )


def test_what_was_begun_may_go_on(scene: Scene) -> None:
    """Beyond the limit, as far again: it is counted, so nothing else is let begin meanwhile."""
    for _ in range(3):
        scene.limits.admit_client("a")
    for _ in range(3):
        scene.limits.admit_client("a", goes_on=True)
    for goes_on in (True, False):
        with pytest.raises(RateExceededError):
            scene.limits.admit_client("a", goes_on=goes_on)
    scene.now += 0.5
    scene.limits.admit_client("a", goes_on=True)
    with pytest.raises(RateExceededError, match="try again in 2 s"):
        scene.limits.admit_client("a")


def test_a_client_has_its_burst_and_then_its_rate(scene: Scene) -> None:
    """The fourth at once is refused, and told when; another client isn't."""
    for _ in range(3):
        scene.limits.admit_client("a")
    with pytest.raises(RateExceededError, match="client a; try again in 1 s") as caught:
        scene.limits.admit_client("a")
    scene.limits.admit_client("b")
    scene.now += 0.5
    scene.limits.admit_client("a")

    assert caught.value.retry_after_s == 1


def test_a_user_is_one_wherever_they_are(scene: Scene) -> None:
    """Users are told apart by name; who hasn't signed in is no user."""
    scene.limits.admit_user("user:ana")
    scene.limits.admit_user("user:bob")
    for _ in range(5):
        scene.limits.admit_user("")

    with pytest.raises(RateExceededError):
        scene.limits.admit_user("user:ana")


def test_uploads_at_once(scene: Scene) -> None:
    """Of an address and of a user; a refusal takes no place."""
    with ExitStack() as stack:
        stack.enter_context(scene.limits.uploading("a", "user:ana"))
        with pytest.raises(UploadsTooManyError), scene.limits.uploading("a", "user:ana"):
            pass
        stack.enter_context(scene.limits.uploading("a", "user:bob"))
        with pytest.raises(UploadsTooManyError), scene.limits.uploading("a", ""):
            pass
    with scene.limits.uploading("a", "user:ana"):
        pass


async def test_pulls_of_a_window(scene: Scene) -> None:
    """What is left goes down, then there is none until the window is over; asking on costs nothing more."""
    assert await scene.limits.pulls_left("a", "") == PullsLeft(2, 2, 3600)
    assert await scene.limits.count_pull("a", "") == PullsLeft(2, 1, 3600)
    scene.clock.advance(HOUR / 2)
    assert await scene.limits.count_pull("a", "") == PullsLeft(2, 0, 3600)
    for _ in range(3):
        with pytest.raises(PullsSpentError) as caught:
            await scene.limits.count_pull("a", "")
        assert caught.value.retry_after_s == 1800
    assert scene.pulls.counted == 3
    assert await scene.limits.count_pull("a", "user:ana") == PullsLeft(3, 2, 3600)

    scene.clock.advance(HOUR / 2)

    assert await scene.limits.pulls_left("a", "") == PullsLeft(2, 2, 3600)
    assert await scene.limits.count_pull("a", "") == PullsLeft(2, 1, 3600)


async def test_nothing_is_limited_by_default(tmp_path: Path) -> None:
    """Not a thing is counted."""
    scene = Scene(tmp_path)
    for _ in range(100):
        scene.limits.admit_client("a")
        scene.limits.admit_user("user:ana")

    assert await scene.limits.count_pull("a", "") is None
    assert scene.pulls.counted == 0


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1, "1 s"), (119, "119 s"), (120, "2 min"), (3599, "60 min"), (7199, "120 min"), (21600, "6 h"), (21601, "7 h")],
)
def test_waiting_in_words(seconds: int, said: str) -> None:
    """Nobody reads 21600 s; and whoever waits that long doesn't come too early."""
    assert in_words(seconds) == said
