"""``roadstead gc`` as a process beside a server, and the rate of pushes while it runs."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contents import Image, Road, make_image, push_images

from roadstead.testing.server import RoadsteadServer

AT_ONCE = 8
REPOSITORY = "pushed/app"
_ROUND = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a pass did: blobs condemned and removed, seconds, the most memory that it had, in bytes."""

    condemned: int
    removed: int
    seconds: float
    memory: int


class Pass:
    """One pass of the command, begun at once."""

    def __init__(self, data: Path) -> None:
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.measured", "gc", "--data", data, "--json"],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._outcome = ThreadPoolExecutor(1).submit(self._finish)

    @property
    def is_over(self) -> bool:
        """Return whether it has ended."""
        return self._outcome.done()

    def wait(self) -> Outcome:
        """Return what it did, once it has ended."""
        return self._outcome.result()

    def _finish(self) -> Outcome:
        told, errors = self._process.communicate()
        seconds = time.monotonic() - self._began
        assert self._process.returncode == 0, errors
        tally = json.loads(told)
        return Outcome(tally["condemned"], tally["blobs"], seconds, int(errors.split()[-1]) << 10)


def push_rate(server: RoadsteadServer, pushed: list[Image], seconds: float, beside: Pass | None = None) -> float:
    """Push new images, each to the tag of its number in `pushed`; return images a second.

    It goes on for so long, or until the pass that it is `beside` is over if that is sooner.
    """
    began, first = time.monotonic(), len(pushed)
    while True:
        images = [make_image([8192, 8192]) for _ in range(_ROUND)]
        push_images(server.port, REPOSITORY, images, at_once=AT_ONCE, tag=f"{len(pushed)}", road=Road.PUT)
        pushed += images
        took = time.monotonic() - began
        if took > seconds or (beside is not None and beside.is_over):
            return (len(pushed) - first) / took
