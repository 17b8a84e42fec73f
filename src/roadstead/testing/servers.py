"""Server processes for tests: started on a free port, waited for with a bound, always stopped, by pid."""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Self

from roadstead.errors import UnavailableError

PROBE_INTERVAL_S = 0.05
LOG_TAIL_BYTES = 4096


class ServerNotReadyError(UnavailableError):
    """A server process ended, or didn't answer in time; carries the end of its log."""

    def __init__(self, name: str, reason: str, log_tail: str) -> None:
        super().__init__(f"{name} {reason}; the end of its log:\n{log_tail or '(it wrote nothing)'}")
        self.name = name
        self.reason = reason
        self.log_tail = log_tail


def accepts_connections(port: int) -> bool:
    """Say whether something listens on *port* of 127.0.0.1."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], bool], *, timeout: timedelta) -> bool:
    """Ask *condition* until it holds or *timeout* is over; return what it said last."""
    deadline = time.monotonic() + timeout.total_seconds()
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(PROBE_INTERVAL_S)
    return holds


class Process:
    """One server process: its output goes to a file, its end is certain.

    It is stopped by ``stop()``, by leaving the ``with`` block, when Python exits, and by the kernel when we are killed
    (``setpriv --pdeathsig``, where util-linux has it). It runs in a session of its own, so that Ctrl-C reaches the
    tests first and they stop it in order. *user* needs root.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = Path(command[0]).name
        self.log = log
        self._command = [*launcher(user, stop_signal), *map(str, command)]
        self._environment = dict(os.environ if environment is None else environment)
        self._directory = directory
        self._stop_signal = stop_signal
        self._popen: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id; the process was started."""
        if self._popen is None:
            raise ServerNotReadyError(self.name, "was not started", "")
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether the process was started and hasn't ended."""
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> None:
        """Start the process; it isn't ready yet, see `wait_ready`."""
        with self._open_log() as output:
            self._popen = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._directory,
                start_new_session=True,
            )
        atexit.register(self.stop)

    def wait_ready(self, probe: Callable[[], bool], *, timeout: timedelta = timedelta(seconds=30)) -> None:
        """Return once *probe* says yes.

        Stops the process and raises ServerNotReadyError when it ends before that, or at *timeout*.
        """
        wait_until(lambda: not self.running or probe(), timeout=timeout)
        if self.running and probe():
            return
        code = self._popen.poll() if self._popen is not None else None
        reason = (
            f"ended with status {code}" if code is not None else f"didn't answer within {timeout.total_seconds():g} s"
        )
        self.stop()
        raise ServerNotReadyError(self.name, reason, self.log_tail())

    def stop(self, *, grace: timedelta = timedelta(seconds=20)) -> None:
        """Ask the process to end, kill it after *grace*, and wait until it is gone. Does nothing the second time."""
        if self._popen is None:
            return
        if self._popen.poll() is None:
            self._popen.send_signal(self._stop_signal)
            try:
                self._popen.wait(grace.total_seconds())
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()
        atexit.unregister(self.stop)

    def log_tail(self) -> str:
        """Return the end of what the process wrote."""
        return tail(self.log)

    def _open_log(self) -> BinaryIO:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        return self.log.open("ab")


def tail(log: Path, *, size: int = LOG_TAIL_BYTES) -> str:
    """Return the last *size* bytes of a log as text; nothing if there is no such file."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - size))
        return file.read().decode(errors="replace").strip()


def launcher(user: str | None = None, stop_signal: signal.Signals = signal.SIGTERM) -> list[str]:
    """Return the words before a command that change the user and tie its life to ours.

    A program does this and no ``preexec_fn``, because code between fork and exec may deadlock when threads run.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return ["runuser", "-u", user, "--"] if user is not None else []
    as_user = ["--reuid", user, "--regid", user, "--init-groups"] if user is not None else []
    return [setpriv, *as_user, "--pdeathsig", stop_signal.name.removeprefix("SIG"), "--"]
