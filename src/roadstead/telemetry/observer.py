"""What is told of every request when it is over: a line in the log, and numbers."""

from typing import TypeVar

import structlog
from msgspec import UNSET

from roadstead.http.application import Finished
from roadstead.http.wave.paths import shown
from roadstead.telemetry.metrics import RequestMetrics
from roadstead.telemetry.request_log import RequestLine, request_log

Brief = TypeVar("Brief", str, str | None)

_LONGEST = 512
"""Characters of a value that are told. Names and paths of the API are shorter; a header may have hundreds of thousands,
and each line would."""

_log = structlog.get_logger()


class RequestObserver:
    """Counts every request, and writes one line for each if `access` says so."""

    def __init__(self, metrics: RequestMetrics, *, access: bool) -> None:
        self._metrics = metrics
        self._write = request_log() if access else None

    def began(self) -> None:
        """Take note of a request that has come in."""
        self._metrics.begin()

    def finished(self, finished: Finished) -> None:
        """Take note of a request that is over."""
        request = finished.request
        duration_s = finished.duration_s
        self._metrics.observe(
            finished.route, request.method, finished.status, duration_s, request.received, finished.sent
        )
        if finished.status >= 500:
            _log.warning(
                "request not served",
                method=_brief(request.method),
                path=_brief(shown(request.path)),
                status=finished.status,
                error=finished.error,
                reason=_brief(finished.reason),
            )
        if self._write is not None:
            self._write(
                RequestLine(
                    _brief(request.method),
                    _brief(shown(request.path)),
                    finished.status,
                    round(duration_s, 6),
                    request.received,
                    finished.sent,
                    request.client,
                    _brief(request.header(b"user-agent")),
                    finished.error or UNSET,
                )
            )

    def failed(self, finished: Finished, error: BaseException) -> None:
        """Take note of an error that nobody expected: somebody has to look at it."""
        method, path = _brief(finished.request.method), _brief(shown(finished.request.path))
        _log.error("request failed", method=method, path=path, exc_info=error)


def _brief(value: Brief) -> Brief:
    """Return a value, cut where it is longer than any that means something."""
    return value if value is None or len(value) <= _LONGEST else f"{value[:_LONGEST]}…"
