"""A real nginx for tests, with a configuration of the test's own, on loopback."""

import os
from pathlib import Path
from typing import Self

from roadstead.testing.components import require
from roadstead.testing.servers import Process, accepts_connections

INSTALL = "apt-get install nginx-light"


class Nginx:
    """One nginx that listens on `port`; `http` is what stands in its ``http`` block and listens there."""

    def __init__(self, directory: Path, port: int, http: str) -> None:
        program = require("nginx", install=INSTALL)
        directory.mkdir(parents=True, exist_ok=True)
        self.port = port
        self.host = f"127.0.0.1:{port}"
        self._error_log = directory / "error.log"
        path = directory / "nginx.conf"
        path.write_text(_main(directory) + f"http {{\n{_paths(directory)}\n{http}\n}}\n")
        command: list[str | Path] = [program, "-e", self._error_log, "-c", path, "-g", "daemon off;"]
        self._process = Process(command, log=directory / "log", directory=directory)

    @property
    def pid(self) -> int:
        """Return the first process's id."""
        return self._process.pid

    @property
    def errors(self) -> str:
        """Return what it has written to its error log."""
        return self._error_log.read_text() if self._error_log.exists() else ""

    def start(self) -> Self:
        """Start it and wait until it listens."""
        self._process.start()
        self._process.wait_ready(lambda: accepts_connections(self.port))
        return self

    def stop(self) -> None:
        """Stop it."""
        self._process.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _main(directory: Path) -> str:
    # As root its workers would become nobody, who may not read what we write.
    user = "user root;\n" if os.geteuid() == 0 else ""
    return f"{user}worker_processes 2;\npid {directory}/pid;\nevents {{}}\n"


def _paths(directory: Path) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"  {kind}_temp_path {directory}/{kind};\n" for kind in kinds)
    return f"  access_log {directory}/access.log;\n{temporary}"
