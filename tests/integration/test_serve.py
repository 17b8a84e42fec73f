"""``roadstead serve`` itself: the start, the words it says, the end."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from roadstead.cli.apart import Apart, PreparationError
from roadstead.errors import InvalidError
from roadstead.testing.servers import wait_until

_PATIENCE_S = 30

Serve = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start the command in a directory of its own; it is ended after the test."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-m", "roadstead", "serve", *arguments],
                cwd=tmp_path,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)},
            )
            assert process.stderr is not None
            stack.callback(process.stderr.close)
            stack.callback(process.wait, _PATIENCE_S)
            stack.callback(process.kill)
            return process

        yield start


def until(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """Read standard error until a line has the pattern; a server that never says it is killed, and the test fails."""
    assert process.stderr is not None
    seen = []
    patience = threading.Timer(_PATIENCE_S, process.kill)
    patience.start()
    try:
        for line in process.stderr:
            seen.append(line)
            if found := re.search(pattern, line):
                return found
    finally:
        patience.cancel()
    raise AssertionError(f"ended without {pattern!r}: {''.join(seen)}")


def get(port: int, path: str) -> tuple[int, str]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_it_says_where_it_is_and_what_to_try(serve: Serve, tmp_path: Path) -> None:
    """With nothing configured it serves, says where, and leaves nothing but the data when it is told to end."""
    process = serve("--listen", "127.0.0.1:0")

    port = int(until(process, r"listens at http://127\.0\.0\.1:(\d+) with 2 workers")[1])
    until(process, rf"docker push localhost:{port}/team/app")
    assert get(port, "/v2/")[0] == 200
    process.send_signal(signal.SIGTERM)

    assert process.wait(_PATIENCE_S) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["roadstead-data"]


def test_it_says_what_it_is_known_as_and_invites_no_push_in_vain(serve: Serve, tmp_path: Path) -> None:
    """A public address isn't where it listens, and read-only takes nothing."""
    config = tmp_path / "roadstead.toml"
    config.write_text('[server]\npublic_url = "https://registry.example"\n[registry]\nread_only = true\n')
    process = serve(str(config), "--listen", "127.0.0.1:0", "--workers", "1")

    until(process, r"listens at http://127\.0\.0\.1:\d+ with 1 workers, and is known as https://registry\.example\n")
    until(process, "it is read-only")
    said = until(process, r"^try:  (.*)\n")
    process.send_signal(signal.SIGTERM)

    assert said[1] == "docker pull registry.example/team/app:1"
    assert process.wait(_PATIENCE_S) == 0


def test_json_lines_only(serve: Serve) -> None:
    """With `--log-format json` every line is an event, the first word and the last included."""
    process = serve("--listen", "127.0.0.1:0", "--log-format", "json", "--workers", "1")
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(json.loads(line))
        if lines[-1]["event"] == "ready":
            assert get(int(lines[-1]["url"].rpartition(":")[2]), "/v2/")[0] == 200
            process.send_signal(signal.SIGINT)

    assert process.wait(_PATIENCE_S) == 0
    assert {"ready", "request", "stopping"} <= {line["event"] for line in lines}


def test_metrics_are_those_of_all_workers(serve: Serve) -> None:
    """Whichever worker answers, every request is in the numbers."""
    process = serve("--listen", "127.0.0.1:0")
    port = int(until(process, r"listens at http://127\.0\.0\.1:(\d+)")[1])
    assert process.stderr is not None
    drain = threading.Thread(target=process.stderr.read)
    drain.start()

    for _ in range(20):
        assert get(port, "/v2/")[0] == 200
    # A request is counted once its answer is out, so the other worker may look a moment before.
    assert wait_until(lambda: 20.0 in _counted(get(port, "/metrics")[1]), timeout=timedelta(seconds=_PATIENCE_S))
    _, numbers = get(port, "/metrics")
    assert {'process="worker-1"', 'process="worker-2"'} <= set(re.findall(r'process="[^"]+"', numbers))
    process.send_signal(signal.SIGTERM)
    process.wait(_PATIENCE_S)
    drain.join()


def test_a_port_in_use_is_told_before_anything_starts(serve: Serve, tmp_path: Path) -> None:
    """One line, status 1, and no data directory."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        process = serve("--listen", f"127.0.0.1:{other.getsockname()[1]}")

        until(process, r"^error: cannot listen at 127\.0\.0\.1:\d+: something else listens there already")
        assert process.wait(_PATIENCE_S) == 1
        assert list(tmp_path.iterdir()) == []


def test_work_apart_gives_its_text() -> None:
    """The text comes back, from another process."""

    async def work() -> str:
        return f"{os.getpid()} ü" + "x" * 100_000

    assert Apart(work).result() != f"{os.getpid()} ü" + "x" * 100_000


def test_work_apart_tells_its_error() -> None:
    """An error of ours arrives with its advice; one that nobody expected as one line."""

    class BrokenError(InvalidError):
        def advice(self) -> str:
            return "Mend it."

    async def refused() -> str:
        raise BrokenError("it is broken")

    async def unexpected() -> str:
        os._exit(3)

    with pytest.raises(PreparationError, match="it is broken") as told:
        Apart(refused).result()
    assert told.value.advice() == "Mend it."
    with pytest.raises(PreparationError, match="status 3"):
        Apart(unexpected).result()


def _counted(numbers: str) -> list[float]:
    """Return how many GETs were answered with 2xx, route by route."""
    found = re.findall(r'^roadstead_http_requests_total\{method="GET",.*status="2xx"\} (\S+)', numbers, re.MULTILINE)
    return [float(count) for count in found]
