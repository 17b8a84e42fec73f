"""A PostgreSQL server in a temporary directory, with a database for every test that asks."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from roadstead.testing.components import require
from roadstead.testing.ports import free_port
from roadstead.testing.servers import Process, ServerNotReadyError, launcher

INSTALL = "apt-get install postgresql"
SUPERUSER = "roadstead"
# The server refuses to run as root; Debian's package brings this account.
SYSTEM_USER = "postgres"

# Tests throw the data away, so a lost write costs nothing; what is measured must not run with these.
_FORGETFUL = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running server: ``trust`` authentication, on 127.0.0.1 and on a Unix socket in *sockets*."""

    port: int
    sockets: str  # a directory
    user: str = SUPERUSER

    def create_database(self, prefix: str = "test") -> str:
        """Create an empty database and return its address, ``postgresql://user@127.0.0.1:port/name``."""
        name = f"{prefix}_{secrets.token_hex(6)}"
        self._administer("createdb", name)
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/{name}"

    def drop_database(self, url: str) -> None:
        """Drop a database that `create_database` made, and end its connections."""
        self._administer("dropdb", "--force", url.rpartition("/")[2])

    def is_ready(self) -> bool:
        """Say whether the server answers queries."""
        probe: list[str | Path] = [find("pg_isready"), "--quiet", *self._where(), "--dbname", "postgres"]
        return subprocess.run(probe, check=False, stdin=subprocess.DEVNULL).returncode == 0

    def _administer(self, program: str, *arguments: str) -> None:
        command: list[str | Path] = [
            find(program),
            *self._where(),
            "--no-password",
            "--maintenance-db",
            "postgres",
            *arguments,
        ]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60)

    def _where(self) -> list[str]:
        return ["--host", self.sockets, "--port", str(self.port), "--username", self.user]


@contextmanager
def open_postgres(*, durable: bool = False) -> Iterator[PostgresServer]:
    """Run a server of its own until the block is left.

    Writes aren't forced to disk unless *durable*. As root it runs under the account ``postgres``.
    Raises ComponentMissingError, ServerNotReadyError.
    """
    initdb, postgres = find("initdb"), find("postgres")
    user = SYSTEM_USER if os.geteuid() == 0 else None
    home = Path(tempfile.mkdtemp(prefix="roadstead-postgres-"))
    data, sockets = home / "data", home / "sockets"
    sockets.mkdir()
    try:
        if user is not None:
            shutil.chown(home, user)
            shutil.chown(sockets, user)
        _initialise(initdb, data, user)
        server = PostgresServer(free_port(), str(sockets))
        options = [f"unix_socket_directories={sockets}", "listen_addresses=127.0.0.1", "max_connections=300"]
        options += () if durable else _FORGETFUL
        settings = [word for option in options for word in ("-c", option)]
        command: list[str | Path] = [postgres, "-D", data, "-p", str(server.port), *settings]
        # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for clients that a failed test left connected.
        with Process(command, log=home / "log", directory=home, user=user, stop_signal=signal.SIGINT) as process:
            process.wait_ready(server.is_ready)
            yield server
    finally:
        shutil.rmtree(home)


def find(program: str) -> Path:
    """Return the path of one of PostgreSQL's programs, the newest where several versions are installed."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    return require(program, install=INSTALL, directories=versions)


def _version(directory: Path) -> int:
    number = re.match(r"\d+", directory.parent.name)
    return int(number[0]) if number else 0


def _initialise(initdb: Path, data: Path, user: str | None) -> None:
    """Make the data directory: UTF-8 and the C collation, so that names sort by code point everywhere."""
    options = ["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", f"--username={SUPERUSER}"]
    command = [*launcher(user), str(initdb), *options, "-D", str(data)]
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=data.parent, timeout=120
    )
    if done.returncode != 0:
        raise ServerNotReadyError("initdb", f"ended with status {done.returncode}", f"{done.stdout}{done.stderr}")
