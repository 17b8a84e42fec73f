"""Roadstead itself as a server for tests: the real command, its workers and its background process, on a free port."""

import compileall
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import closing
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Self

from roadstead.testing.client import Client, ConnectionBrokenError
from roadstead.testing.ports import free_port
from roadstead.testing.processes import children, connection_owner, group_members, listeners
from roadstead.testing.servers import Process, ServerNotReadyError, wait_until

CONNECTION_ATTEMPTS = 200
"""How many connections are opened to reach one worker: the kernel shares them out among all by chance."""

_SOURCE = str(Path(__file__).parents[2])  # the command is the one beside us, whatever else is installed


class RoadsteadServer:
    """One running `roadstead serve`.

    `directory` holds its configuration, log and (unless `config` says otherwise) its data, and may be served again by
    another server later. `config` is what `file` holds: TOML, or distribution's where the name ends in `.yml`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        config: str = "",
        workers: int = 2,
        environment: Mapping[str, str] | None = None,
        command: tuple[str, ...] = (),
        file: str = "roadstead.toml",
    ) -> None:
        _compile_source()
        self.directory = directory
        self.data = directory / "data"
        self.port = free_port()
        self._file = directory / file
        self._clients: list[Client] = []
        self._process = Process(
            [*command, sys.executable, "-m", "roadstead", "serve", self._write(config), *self._flags(workers)],
            log=directory / "roadstead.log",
            environment={**os.environ, "PYTHONPATH": _SOURCE, **(environment or {})},
            directory=directory,
        )

    @property
    def host(self) -> str:
        """Return `127.0.0.1:PORT`, as it stands in front of an image's name."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Return the base URL, without a slash at its end."""
        return f"http://{self.host}"

    @property
    def pid(self) -> int:
        """Return the supervisor's process id."""
        return self._process.pid

    @property
    def log(self) -> str:
        """Return everything the server wrote so far."""
        return (self.directory / "roadstead.log").read_text()

    @property
    def workers(self) -> list[int]:
        """Return the process ids of the workers: the children that listen."""
        listening = listeners(self.port)
        return [pid for pid in children(self.pid) if pid in listening]

    def client_of(self, worker: int) -> Client:
        """Return a client whose kept-alive connection is surely answered by the worker with that process id."""
        for _ in range(CONNECTION_ATTEMPTS):
            client = Client(self.host)
            client.get("/healthz")
            if connection_owner(self.port, client.local_port, [worker]) == worker:
                self._clients.append(client)
                return client
            client.close()
        raise ServerNotReadyError("roadstead", f"gave no connection to the worker {worker}", self._process.log_tail())

    def client(self) -> Client:
        """Return a client with one kept-alive connection of its own, closed when the server is stopped."""
        client = Client(self.host)
        self._clients.append(client)
        return client

    def start(self, *, timeout: timedelta = timedelta(seconds=30)) -> Self:
        """Start it and wait until it is ready."""
        self._process.start()
        self._process.wait_ready(self._is_ready, timeout=timeout)
        return self

    def stop(self) -> None:
        """Ask it to end and wait for that."""
        while self._clients:
            self._clients.pop().close()
        self._process.stop()

    def kill(self) -> None:
        """End all its processes at once, as a crash does: nothing is finished, nothing is told."""
        while self._clients:
            self._clients.pop().close()
        if self._process.running:
            os.killpg(self.pid, signal.SIGKILL)  # it leads a session, and so a group, of its own
        self._process.stop()
        wait_until(lambda: not group_members(self.pid), timeout=timedelta(seconds=10))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _is_ready(self) -> bool:
        with closing(Client(self.host)) as client:
            try:
                return client.get("/readyz").status == 200
            except (OSError, ConnectionBrokenError):
                return False

    def _write(self, config: str) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._file.write_text(config)
        return self._file

    def _flags(self, workers: int) -> list[str]:
        flags = ["--listen", self.host, "--workers", str(workers)]
        has_own_data = self._file.suffix == ".yml" or "[storage]" in self._file.read_text()
        return flags if has_own_data else [*flags, "--data", str(self.data)]


@cache
def _compile_source() -> None:
    """Compile the package as pip does when it installs it.

    Where PYTHONDONTWRITEBYTECODE is set, each process of each server would compile it anew, half a start's time.
    """
    compileall.compile_dir(_SOURCE, quiet=1)
