"""One server for a whole test run: whoever needs it first has it started, when the last one leaves it is stopped.

Tests run in several processes, and a PostgreSQL or a Docker engine for each would cost seconds and memory. So a small
process beside them, the keeper, runs the server:

- Who uses the server holds a shared lock on ``users.lock``; the kernel lets it go when the
  process ends, however it ends.
- The keeper waits for the exclusive lock on that file. It gets it when nobody uses the server, and then stops it.
- ``server.json`` tells where the server is, while it is ready. It is gone before the keeper lets its lock go.

So a test run that is killed leaves no server behind either.
"""

import contextlib
import fcntl
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from roadstead.testing import dockerd, postgres
from roadstead.testing.dockerd import DockerEngine
from roadstead.testing.postgres import PostgresServer
from roadstead.testing.servers import ServerNotReadyError, tail, wait_until

START_TIMEOUT = timedelta(minutes=2)
STOP_TIMEOUT = timedelta(minutes=1)

Server = PostgresServer | DockerEngine
OPENERS: Mapping[str, Callable[[], AbstractContextManager[Server]]] = {
    "postgres": postgres.open_postgres,
    "dockerd": dockerd.open_docker_engine,
}


@contextmanager
def shared_postgres(directory: Path) -> Iterator[PostgresServer]:
    """Give the PostgreSQL server that all processes with the same *directory* share.

    Raises ComponentMissingError, ServerNotReadyError.
    """
    postgres.find("initdb")  # What is missing is told here, where the test sees it, and not in the keeper's log.
    with _Meeting(directory / "postgres").used_server() as facts:
        yield PostgresServer(**facts)


@contextmanager
def shared_docker_engine(directory: Path) -> Iterator[DockerEngine]:
    """Give the Docker engine that runs here, or the one that all processes with the same *directory* share.

    Raises ComponentMissingError, ServerNotReadyError.
    """
    running = dockerd.find_engine()
    if running is not None:
        yield running
        return
    with _Meeting(directory / "dockerd").used_server() as facts:
        yield DockerEngine(**facts)


def wait_stopped(directory: Path) -> bool:
    """Wait until the keepers below *directory* have stopped their servers; say whether they did so in time."""
    meetings = [_Meeting(directory / kind) for kind in OPENERS]
    return wait_until(lambda: all(meeting.server() is None for meeting in meetings), timeout=STOP_TIMEOUT)


@dataclass(frozen=True, slots=True)
class _Meeting:
    """The files by which the users and the keeper of one server meet; *folder* is named for the kind of server."""

    folder: Path

    @contextmanager
    def used_server(self) -> Iterator[Mapping[str, Any]]:
        """Use the server, started if it doesn't run; yield its facts."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as use:
            # One at a time starts it. The use is declared first, so that a new keeper sees it and stays;
            # while an old keeper is stopping its server, declaring waits for the end of that.
            with self._locked("start.lock", fcntl.LOCK_EX):
                use.enter_context(self._locked("users.lock", fcntl.LOCK_SH))
                facts = self.server() or self._start()
            yield facts

    def server(self) -> Mapping[str, Any] | None:
        """Return the facts of the server if one is ready and its keeper lives."""
        try:
            known = json.loads((self.folder / "server.json").read_text())
            os.kill(known["keeper"], 0)
        except (FileNotFoundError, ProcessLookupError):
            return None
        facts: Mapping[str, Any] = known["server"]
        return facts

    def keep(self) -> None:
        """Run the server until nobody uses it: the keeper's whole life."""
        with contextlib.ExitStack() as wait, OPENERS[self.folder.name]() as server:
            self._publish(server)
            wait.enter_context(self._locked("users.lock", fcntl.LOCK_EX))
            # Unwound backwards: the server stops, the facts go, and only then the next user may look for them.
            wait.callback((self.folder / "server.json").unlink)

    def _start(self) -> Mapping[str, Any]:
        """Start a keeper and return its server's facts once they are published."""
        log = self.folder / "keeper.log"
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "roadstead.testing.keeper", str(self.folder)],
            os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},  # also where Roadstead isn't installed
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        wait_until(lambda: self.server() is not None or _has_ended(pid), timeout=START_TIMEOUT)
        if (facts := self.server()) is None:
            raise ServerNotReadyError(self.folder.name, "could not be started", tail(log))
        return facts

    def _publish(self, server: Server) -> None:
        """Tell where the server is; in one step, so that nobody reads half of it."""
        part = self.folder / "server.part"
        part.write_text(json.dumps({"keeper": os.getpid(), "server": asdict(server)}))
        part.replace(self.folder / "server.json")

    @contextmanager
    def _locked(self, name: str, operation: int) -> Iterator[None]:
        """Hold a lock on the file *name*. It belongs to this opening of the file, so a process may hold several."""
        with (self.folder / name).open("a") as file:
            fcntl.flock(file, operation)
            yield


def _has_ended(pid: int) -> bool:
    """Say whether our child *pid* ended."""
    return os.waitpid(pid, os.WNOHANG) != (0, 0)


def main() -> None:
    """Be the keeper of the folder named on the command line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is stopped in order
    _Meeting(Path(sys.argv[1])).keep()


if __name__ == "__main__":
    main()
