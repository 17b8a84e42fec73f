"""Kills servers with SIGKILL, at chosen system calls or at any moment, and looks at what is left."""

import asyncio
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from tests.soak.audit import contradictions, read_registry, resume, served
from tests.soak.ledger import Ledger
from tests.soak.power_cuts import integrity
from tests.soak.traffic import Traffic

from roadstead.db.engine import open_database
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.testing.client import ConnectionBrokenError
from roadstead.testing.components import require
from roadstead.testing.powercut.trace import INSTALL
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import wait_until

READY_WITHIN_S = 20.0
"""A start after a crash is a start: nothing is repaired first. Generous, because tests share their machine."""

POINTS = (
    (re.compile(r"fsync\(.*/roadstead/tmp/"), "flush of a small blob's data"),
    (re.compile(r"fdatasync\(.*/roadstead/uploads/."), "flush of a staged blob's data"),
    (re.compile(r"fsync\(.*/roadstead/uploads>"), "flush of the folder of uploads"),
    (re.compile(r"mkdir\(.*/blobs/"), "making of a blob's folder"),
    (re.compile(r"rename\("), "rename of a blob"),
    (re.compile(r"fsync\(.*/blobs/"), "flush of a blob's folder"),
    (re.compile(r"pwrite64\(.*/roadstead/(tmp|uploads)/"), "write of a blob's data"),
    (re.compile(r"pwrite64\(.*\.db-wal>"), "write of the database's log"),
    (re.compile(r"fdatasync\(.*\.db-wal>"), "flush of the database's log"),
    (re.compile(r"fdatasync\(.*/data>"), "flush of the database's folder"),
    (re.compile(r"(sendto|writev)\(.*TCP"), "answer"),
)
"""What a killed call was about: (how strace writes it, its name)."""


class KillAt:
    """Kills a worker as it enters its N-th system call of one name (counted by thread): the call doesn't happen.

    It is done from outside, by strace(1): the server knows nothing of it and pays nothing for it.
    """

    def __init__(self, pids: Sequence[int], call: str, when: int, trace: Path) -> None:
        self._pids = pids
        self._trace = trace
        strace = require("strace", install=INSTALL)
        command = [str(strace), "-f", "-yy", "-s", "16", "-e", f"trace={call}", "-e", "signal=none", "-o", str(trace)]
        command += ["-e", f"inject={call}:signal=KILL:when={when}", *(f"--attach={pid}" for pid in pids)]
        self._strace = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert wait_until(self._is_attached, timeout=timedelta(seconds=20)), "strace doesn't attach"

    def close(self) -> None:
        """Let the processes go that are left, and the dead one's parent hear of its end."""
        self._strace.kill()  # asked to end it would wait for the dead
        self._strace.wait()

    @property
    def point(self) -> str:
        """Return the name of what was about to happen when a process was killed; empty where none was."""
        entered: list[str] = []
        unfinished: dict[str, str] = {}
        for line in self._trace.read_text(errors="replace").splitlines():
            thread = line.partition(" ")[0]
            if line.endswith("<unfinished ...>"):
                unfinished[thread] = line
            elif line.endswith("= ?"):  # it has no result: it didn't happen
                entered.append(unfinished.get(thread, line) if " resumed>" in line else line)
        for line in entered:
            for pattern, name in POINTS:
                if pattern.search(line):
                    return name
        return entered[0] if entered else ""

    def _is_attached(self) -> bool:
        return all("TracerPid:\t0" not in status for pid in self._pids for status in _statuses(pid))


def _statuses(pid: int) -> Iterator[str]:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            yield (thread / "status").read_text()


class CrashingServer:
    """A server that is started again on the same directory after every crash, with all its clients were told."""

    def __init__(self, directory: Path, *, config: str = "", files: bool = True) -> None:
        self._directory = directory
        self._config = config
        self._is_local = files
        self.ledger = Ledger()
        self.slowest_start_s = 0.0
        self._rounds = 0
        self.server = self._started()

    def traffic(self, *, largest: int = 500_000) -> Traffic:
        """Return a client that has repositories of its own."""
        self._rounds += 1
        return Traffic(self.server.host, self.ledger, f"client-{self._rounds}", self._rounds, largest=largest)

    async def crash(self) -> list[str]:
        """Kill what runs, read what is left, start again, and return what is wrong."""
        self.server.kill()
        at = time.time()
        problems = await self._left(at) if self._is_local else []
        self.server = self._started()
        return problems + self.look(at)

    def look(self, at: float) -> list[str]:
        """Ask the running server for everything, and let uploads go on."""
        client = self.server.client()
        problems = served(client, self.ledger, at) + resume(client, self.ledger, at)
        client.close()
        return problems

    def stop(self) -> None:
        """End in order."""
        self.server.stop()

    def _started(self) -> RoadsteadServer:
        began = time.monotonic()
        server = RoadsteadServer(self._directory, config=self._config).start()
        self.slowest_start_s = max(self.slowest_start_s, time.monotonic() - began)
        assert self.slowest_start_s < READY_WITHIN_S
        return server

    async def _left(self, at: float) -> list[str]:
        data = self._directory / "data"
        driver = FilesystemDriver(data)
        database = await open_database(f"sqlite:///{data / 'roadstead.db'}", migrate=False)
        try:
            found = await read_registry(database, driver)
            report = await database.access.write(integrity)
            found.problems += [] if report == ["ok"] else [f"the database's integrity check: {report}"]
            return contradictions(found, self.ledger, at)
        finally:
            await database.close()
            await driver.close()


def kill_at(server: CrashingServer, trace: Path, call: str, when: int, script: Callable[[Traffic], None]) -> str:
    """Run a client's script into the N-th such call, and return the point's name (empty: the script got through)."""
    with closing(KillAt(server.server.workers, call, when, trace)) as killer, closing(server.traffic()) as traffic:
        with suppress(ConnectionBrokenError):
            script(traffic)
            return ""
        assert wait_until(lambda: killer.point != "", timeout=timedelta(seconds=10))
        return killer.point


@contextmanager
def clients(server: CrashingServer, count: int) -> Iterator[None]:
    """Let several clients do everything at once until the block is left."""
    over = threading.Event()
    with _all_closed([server.traffic() for _ in range(count)]) as all_traffic:
        failures: list[Exception] = []
        threads = [threading.Thread(target=_run, args=(traffic, over, failures)) for traffic in all_traffic]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join(60)
        assert not failures, failures


@contextmanager
def _all_closed(all_traffic: list[Traffic]) -> Iterator[list[Traffic]]:
    try:
        yield all_traffic
    finally:
        for traffic in all_traffic:
            traffic.close()


def _run(traffic: Traffic, over: threading.Event, failures: list[Exception]) -> None:
    try:
        traffic.run(over)
    except Exception as error:  # noqa: BLE001 -- raised where the threads are waited for
        failures.append(error)


async def kill_at_random(server: CrashingServer, choice: random.Random, *, count: int, longest_s: float) -> list[str]:
    """Kill everything, or one worker, at some moment while clients do everything; return what is wrong."""
    victim = choice.choice(server.server.workers) if choice.random() < 0.3 else 0
    with clients(server, count):
        await asyncio.sleep(choice.uniform(0.05, longest_s))
        if not victim:
            server.server.kill()
        else:
            os.kill(victim, signal.SIGKILL)
            await asyncio.sleep(0.2)
    if victim:
        return server.look(time.time())
    return await server.crash()
