"""What is told of every request when it is over: a line in the log, and numbers."""

import structlog
from msgspec import UNSET

from roadstead.http.application import Finished
from roadstead.http.wave.paths import shown
from roadstead.telemetry.metrics import RequestMetrics
from roadstead.telemetry.request_log import RequestLine, request_log

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
                method=request.method,
                path=shown(request.path),
                status=finished.status,
                error=finished.error,
                reason=finished.reason,
            )
        if self._write is not None:
            self._write(
                RequestLine(
                    request.method,
                    shown(request.path),
                    finished.status,
                    round(duration_s, 6),
                    request.received,
                    finished.sent,
                    request.client,
                    request.header(b"user-agent"),
                    finished.error or UNSET,
                )
            )

    def failed(self, finished: Finished, error: BaseException) -> None:
        """Take note of an error that nobody expected: somebody has to look at it."""
        _log.error("request failed", method=finished.request.method, path=shown(finished.request.path), exc_info=error)
