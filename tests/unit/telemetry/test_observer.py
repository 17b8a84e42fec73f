"""What is told of a request when it is over."""

import os
import tracemalloc
from pathlib import Path

from roadstead.http.application import Finished
from roadstead.http.asgi import Request
from roadstead.telemetry.logs import configure_logging
from roadstead.telemetry.metrics import Metrics, RequestMetrics
from roadstead.telemetry.observer import RequestObserver

LONG = 200_000


async def receive() -> dict[str, object]:
    """Nothing comes."""
    return {"type": "http.disconnect"}


def finished(number: int, status: int) -> Finished:
    """A request whose every part is as long as a client may have it."""
    scope = {
        "type": "http",
        "method": f"{number}{'M' * LONG}",
        "path": f"/{number}{'p' * LONG}",
        "query_string": b"",
        "client": ("127.0.0.1", 1),
        "headers": [(b"user-agent", b'%d%s"' % (number, b"u" * LONG))],
    }
    over = Finished(Request(scope, receive), "unknown", status, 0.0)
    over.error, over.reason = "PathTooLongError", "r" * LONG
    return over


def test_what_a_client_makes_up_is_told_in_short_and_not_kept(tmp_path: Path) -> None:
    """A header may have hundreds of thousands of letters, and anybody sends as many requests."""
    descriptor = os.open(tmp_path / "log", os.O_CREAT | os.O_RDWR | os.O_APPEND)
    writer = configure_logging(format="text", level="info", descriptor=descriptor)
    observer = RequestObserver(RequestMetrics(Metrics(tmp_path, "worker-1")), access=True)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(40):
        observer.finished(finished(number, 503 if number % 2 else 405))
    writer.close()
    took = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    os.close(descriptor)

    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 60
    assert max(map(len, lines)) < 2500
    assert all("…" in line for line in lines)
    assert took < 1 << 20
