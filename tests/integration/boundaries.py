"""The boundaries between a process's steps, and a process that stands still at one of them.

A step is a call that others can see the effect of: one that changes or flushes a file, takes a lock, or says a
statement to the database. `install` puts itself before each of them in a process (a server's, by a `sitecustomize` on
its path) and stops the whole process, by SIGSTOP, before the N-th since it was told to. What it has to know and what it
finds lies in a file that the processes share.
"""

import asyncio
import fcntl
import importlib.util
import mmap
import os
import re
import signal
import sqlite3
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PLAN_VARIABLE = "BOUNDARIES_PLAN"
"""The variable of the environment that names the shared file."""

SITECUSTOMIZE = "from tests.integration.boundaries import install\n\ninstall()\n"
"""What Python runs at the start of a process that is to be stopped."""

_MOST_WATCHED = 8
_LAYOUT = struct.Struct(f"<iii{_MOST_WATCHED}i100s")  # stop at, reached, who stands still, who is watched, where
_PATH_CALLS = ("rename", "mkdir", "unlink", "rmdir")
_DESCRIPTOR_CALLS = ("fsync", "fdatasync", "pwrite", "ftruncate")
_ROOMS = ("/docker/registry/v2/blobs", "/roadstead/uploads", "/roadstead/tmp")
_STATEMENT = re.compile(r"\s*(?:(UPDATE)\s+(\w+)|(\w+)(?:.*?\b(?:FROM|INTO)\s+(\w+))?)", re.DOTALL)


class Plan:
    """Where to stop, and who stands where; shared by all processes that have the same file."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_LAYOUT.size))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _LAYOUT.size)
        self._lock = threading.Lock()

    # Whoever tests

    def arm(self, at: int, pids: Sequence[int]) -> None:
        """Let whichever of these processes comes to the boundary with this number, from 1, stop there."""
        self._write(at, 0, 0, [*pids, *[0] * (_MOST_WATCHED - len(pids))], "")

    def disarm(self) -> None:
        """Let nobody stop any more, and whoever stands still go on."""
        _, reached, stopped, watched, name = self._read()
        self._write(0, reached, 0, watched, name)
        if stopped:
            with suppress(ProcessLookupError):
                os.kill(stopped, signal.SIGCONT)

    @property
    def reached(self) -> int:
        """Return how many boundaries were come to."""
        return int(self._read()[1])

    @property
    def stopped(self) -> int:
        """Return the process id of who stands still, all threads of it; 0: nobody."""
        stopped = int(self._read()[2])
        return stopped if stopped and _stands_still(stopped) else 0

    @property
    def name(self) -> str:
        """Return what would have come next where somebody stood still; empty where nobody did."""
        return str(self._read()[4])

    # Whoever is tested

    def reach(self, name: str) -> None:
        """Stop here if this is the boundary to stop at."""
        if not self.is_watched():
            return
        with self._lock:
            at, reached, stopped, watched, before = self._read()
            reached += 1
            here = reached == at
            self._write(at, reached, os.getpid() if here else stopped, watched, name if here else before)
        if here:  # to this thread: it goes no further, while a signal to the process might be another's to take
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    def is_watched(self) -> bool:
        """Say whether this process counts at the moment."""
        at, _, _, watched, _ = self._read()
        return at > 0 and os.getpid() in watched

    def _read(self) -> tuple[int, int, int, Sequence[int], str]:
        at, reached, stopped, *watched, name = _LAYOUT.unpack(self._shared[:])
        return at, reached, stopped, watched, name.rstrip(b"\0").decode()

    def _write(self, at: int, reached: int, stopped: int, watched: Sequence[int], name: str) -> None:
        self._shared[:] = _LAYOUT.pack(at, reached, stopped, *watched, name.encode()[:100])


def install() -> None:
    """Stand before every step of this process, if the environment names a plan."""
    path = os.environ.get(PLAN_VARIABLE)
    if path is None:
        return
    plan = Plan(Path(path))
    _before_files(plan)
    _before_sqlite(plan)
    if importlib.util.find_spec("asyncpg") is not None:
        _before_postgres(plan)


def _before_files(plan: Plan) -> None:
    for call in _PATH_CALLS:
        setattr(os, call, _before_file(plan, call, getattr(os, call), str))
    for call in _DESCRIPTOR_CALLS:
        setattr(os, call, _before_file(plan, call, getattr(os, call), _path_of))
    take = fcntl.flock

    def flock(descriptor: Any, operation: int) -> None:
        if plan.is_watched() and operation & fcntl.LOCK_EX:
            plan.reach(f"lock of {Path(_path_of(descriptor)).suffix or 'upload'}")
        take(descriptor, operation)

    fcntl.flock = flock


def _before_file(
    plan: Plan, call: str, function: Callable[..., Any], path_of: Callable[[Any], str]
) -> Callable[..., Any]:
    def stepped(first: Any, *arguments: Any, **options: Any) -> Any:
        if plan.is_watched():
            path = path_of(first)
            room = next((room for room in _ROOMS if room in path), None)
            if room is not None:
                plan.reach(f"{call} in {room.rpartition('/')[2]}")
        return function(first, *arguments, **options)

    return stepped


def _path_of(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def _before_sqlite(plan: Plan) -> None:
    class Cursor(sqlite3.Cursor):
        def execute(self, sql: str, *arguments: Any) -> Any:
            plan.reach(_statement(sql))
            return super().execute(sql, *arguments)

        def executemany(self, sql: str, *arguments: Any) -> Any:
            plan.reach(_statement(sql))
            return super().executemany(sql, *arguments)

    class Connection(sqlite3.Connection):
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

        def execute(self, sql: str, *arguments: Any) -> Any:
            plan.reach(_statement(sql))
            done = super().execute(sql, *arguments)
            if sql == "COMMIT":
                plan.reach("word of COMMIT")
            return done

        def executemany(self, sql: str, *arguments: Any) -> Any:
            plan.reach(_statement(sql))
            return super().executemany(sql, *arguments)

    connect = sqlite3.connect

    def connect_stepped(*arguments: Any, **options: Any) -> Any:
        return connect(*arguments, **{"factory": Connection, **options})

    sqlite3.connect = connect_stepped


def _before_postgres(plan: Plan) -> None:
    # Here, for processes that need no PostgreSQL: it takes a while.
    from asyncpg.connection import Connection
    from asyncpg.prepared_stmt import PreparedStatement

    def stepped(method: Callable[..., Any], sql_of: Callable[..., str]) -> Callable[..., Any]:
        async def run(self: Any, *arguments: Any, **options: Any) -> Any:
            sql = sql_of(self, *arguments)
            plan.reach(_statement(sql))
            done = await method(self, *arguments, **options)
            if sql.startswith("COMMIT"):
                plan.reach("word of COMMIT")
            return done

        return run

    for name in ("execute", "executemany", "fetch", "fetchrow"):
        setattr(Connection, name, stepped(getattr(Connection, name), lambda _, sql, *__: str(sql)))
    PreparedStatement.fetch = stepped(PreparedStatement.fetch, lambda self, *_: str(self.get_query()))


def _statement(sql: str) -> str:
    """Return a statement's verb and its first table."""
    found = _STATEMENT.match(sql)
    return " ".join(word for word in found.groups() if word) if found else "statement"


def _stands_still(pid: int) -> bool:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)
    except OSError:  # a thread has ended meanwhile
        return False


async def stopped_or_done(plan: Plan, work: "asyncio.Future[Any]") -> bool:
    """Wait until somebody stands still (true), or the work is over."""
    while not work.done():
        if plan.stopped:
            return True
        await asyncio.wait({work}, timeout=0.001)
    return False
