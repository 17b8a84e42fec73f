"""Small requests by the thousand, from ``wrk``, and HEAD from ``ab`` (``wrk`` would wait for a body)."""

import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contents import MANIFEST_TYPE
from benchmarks.wire import UnexpectedAnswerError
from roadstead.testing.components import require

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class Load:
    """What a load generator saw."""

    count: int
    rate: float  # requests a second
    p50_s: float
    p99_s: float


def wrk(
    port: int, targets: Sequence[str], *, clients: int, seconds: int, scratch: Path, authorization: str | None = None
) -> Load:
    """GET the targets by turns, each client on one kept-alive connection, as fast as they are answered."""
    program = require("wrk", install="apt-get install wrk")
    script = scratch / "requests.lua"
    script.write_text(_script(targets))
    command = [program, "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "30s", "--latency", "-s", script]
    if authorization is not None:
        command += ["-H", f"Authorization: {authorization}"]
    command += ["-H", f"Accept: {MANIFEST_TYPE}", f"http://127.0.0.1:{port}"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise UnexpectedAnswerError(output)
    return Load(
        int(_found(r"(\d+) requests in", output)),
        float(_found(r"Requests/sec:\s+([\d.]+)", output)),
        _seconds(_found(r"^\s+50%\s+(\S+)$", output)),
        _seconds(_found(r"^\s+99%\s+(\S+)$", output)),
    )


def ab_head(port: int, target: str, *, clients: int, seconds: int) -> Load:
    """Ask HEAD of one target, like `wrk`."""
    program = require("ab", install="apt-get install apache2-utils")
    command = [program, "-i", "-k", "-q", "-l", f"-c{clients}", f"-t{seconds}", "-n", "10000000"]
    command += ["-H", f"Accept: {MANIFEST_TYPE}", f"http://127.0.0.1:{port}{target}"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in output or not re.search(r"Failed requests:\s+0", output):
        raise UnexpectedAnswerError(output)
    return Load(
        int(_found(r"Complete requests:\s+(\d+)", output)),
        float(_found(r"Requests per second:\s+([\d.]+)", output)),
        int(_found(r"^\s+50%\s+(\d+)$", output)) / 1000,
        int(_found(r"^\s+99%\s+(\d+)$", output)) / 1000,
    )


def _script(targets: Sequence[str]) -> str:
    """Return wrk's program: the requests are put together once, then taken by turns."""
    listed = ", ".join(f'"{target}"' for target in targets)
    return (
        "local paths, requests, at = {" + listed + "}, {}, 0\n"
        "init = function(args) for i, path in ipairs(paths) do requests[i] = wrk.format('GET', path) end end\n"
        "request = function() at = at % #requests + 1 return requests[at] end\n"
    )


def _found(pattern: str, output: str) -> str:
    found = re.search(pattern, output, re.MULTILINE)
    if found is None:
        raise UnexpectedAnswerError(output)
    return found[1]


def _seconds(text: str) -> float:
    number = re.match(r"[\d.]+", text)
    with suppress(KeyError):
        if number is not None:
            return float(number[0]) * _UNITS[text[number.end() :]]
    raise UnexpectedAnswerError(text)
