"""Stops processes with SIGSTOP at chosen system calls, and lets them go on when others have done what they wanted."""

import os
import re
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from tests.soak.crashes import POINTS

from roadstead.testing.components import require
from roadstead.testing.powercut.trace import INSTALL
from roadstead.testing.servers import wait_until

_STOPPED = re.compile(r"^(\d+) +--- stopped by SIGSTOP ---$", re.MULTILINE)

MORE_POINTS = (
    (re.compile(r"unlink(at)?\(.*/blobs/"), "removal of a blob's bytes"),
    (re.compile(r"rmdir\(.*/blobs/|unlinkat\(.*AT_REMOVEDIR"), "removal of a blob's folder"),
    (re.compile(r"unlink(at)?\(.*/(tmp|uploads)/"), "removal of a staged blob"),
    (re.compile(r"ftruncate\(|fsync\(.*/uploads/"), "staging"),
)


class Pauses:
    """Stops a process as it leaves its N-th system call of one name, counted by thread since it is watched.

    The call itself is done, though the process doesn't know it yet: to stop before a call is to stop after the one
    before it. It is done from outside, by strace(1). What is watched is running already (`pids`) or is begun with
    `command`.
    """

    def __init__(
        self, call: str, when: int, trace: Path, *, pids: Sequence[int] = (), command: Sequence[str] = (),
        environment: dict[str, str] | None = None, directory: Path | None = None,
    ) -> None:  # fmt: skip
        self._trace = trace
        self._pids = pids
        self._seen = 0
        trace.write_text("")
        strace = require("strace", install=INSTALL)
        words = [str(strace), "-f", "-yy", "-s", "16", "-e", f"trace={call}", "-e", "signal=STOP", "-o", str(trace)]
        words += ["-e", f"inject={call}:signal=STOP:when={when}", *(f"--attach={pid}" for pid in pids), *command]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(
            words, stdin=quiet, stdout=quiet, stderr=quiet, env=environment, cwd=directory
        )  # fmt: skip
        assert wait_until(self._is_attached, timeout=timedelta(seconds=20)), "strace doesn't attach"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Watch no longer; who stands still goes on."""
        if self._pids:
            self.process.terminate()
            self.process.wait(20)
            for pid in self._pids:
                os.kill(pid, signal.SIGCONT)
        elif self.process.poll() is None:
            self.go_on()
            self.process.wait(60)

    def stopped(self) -> bool:
        """Say whether a process stands still, with all its threads."""
        return any(_stands_still(thread) for thread in self._stops()[self._seen :])

    def go_on(self) -> None:
        """Let all that stand still go on: each of several processes may have come to its N-th call meanwhile."""
        stops = self._stops()
        for thread in {thread for thread in stops[self._seen :] if _stands_still(thread)}:
            with suppress(ProcessLookupError):
                os.kill(thread, signal.SIGCONT)
        self._seen = len(stops)

    def point(self, database_url: str = "") -> str:
        """Return the name of the first call after which a process stood still; empty where none did."""
        found = _STOPPED.search(text := self._trace.read_text(errors="replace"))
        if found is None:
            return ""
        lines = [line for line in text[: found.start()].splitlines() if line.startswith(found[1] + " ")]
        call = next((line for line in reversed(lines) if " --- " not in line), "")
        if " resumed>" in call:
            call = next((line for line in reversed(lines) if "<unfinished" in line), call)
        port = urlsplit(database_url).port
        if port and f":{port}]" in call:
            return "word to PostgreSQL" if re.search(r" (write|sendto|writev)\(", call) else "word from PostgreSQL"
        for pattern, name in (*POINTS, *MORE_POINTS):
            if pattern.search(call):
                return name
        return "other " + call.partition(" ")[2].strip().partition("(")[0]

    def _stops(self) -> list[int]:
        return [int(thread) for thread in _STOPPED.findall(self._trace.read_text(errors="replace"))]

    def _is_attached(self) -> bool:
        if not self._pids:
            return True
        tasks = [path for pid in self._pids for path in Path(f"/proc/{pid}/task").iterdir()]
        return all("TracerPid:\t0" not in (path / "status").read_text() for path in tasks)


def _stands_still(thread: int) -> bool:
    """Say whether all threads of the thread's process are stopped."""
    try:
        return all(_state(path) in "tT" for path in Path(f"/proc/{thread}/task").iterdir())
    except OSError:  # it has ended, which somebody else asked of it
        return False


def _state(task: Path) -> str:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "t"  # it has ended
