"""Limits on clients and users, as settings want them."""

from pathlib import Path

from roadstead.app.plugs import CLOCK
from roadstead.db.engine import Database
from roadstead.http.limits import Counter
from roadstead.limits.providers.shared import SharedMarks, SharedPlaces
from roadstead.limits.rates import Rate
from roadstead.limits.service import Allowed, Limits
from roadstead.settings.model import LimitSettings

_BURST_S = 10


def build_limits(settings: LimitSettings, database: Database, run_directory: Path) -> Counter | None:
    """Return what counts requests; None where nothing is limited that has to be counted."""
    allowed = Allowed(
        client_rate=_rate(settings.client_rate, settings.client_burst),
        user_rate=_rate(settings.user_rate, settings.user_burst),
        client_uploads=settings.client_uploads,
        user_uploads=settings.user_uploads,
        anonymous_pulls=settings.anonymous_pulls,
        user_pulls=settings.user_pulls,
        pull_window=settings.pull_window,
    )
    if allowed == Allowed(pull_window=settings.pull_window):
        return None
    places = SharedPlaces(run_directory / "uploads.limits")
    return Counter(Limits(allowed, shared_marks(run_directory), places, database.pulls, CLOCK))


def shared_marks(run_directory: Path) -> SharedMarks:
    """Return the marks that all processes of this run share."""
    return SharedMarks(run_directory / "marks.limits")


def _rate(per_second: int | None, burst: int | None) -> Rate | None:
    if per_second is None:
        return None
    return Rate(per_second, per_second * _BURST_S if burst is None else burst)
