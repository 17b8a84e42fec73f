"""Records a server's disk while clients use it, and looks at every disk that a power cut could have left."""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Connection
from tests.soak.audit import Found, contradictions, read_registry
from tests.soak.ledger import Fact, Ledger
from tests.soak.traffic import Traffic

from roadstead.db.engine import open_database
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.testing.powercut.disk import Disk, State
from roadstead.testing.powercut.trace import Call, read_trace, recorder, wait_written
from roadstead.testing.server import RoadsteadServer

DATA = "srv/registry/data"
"""Where the data directory is to be made: none of the folders above it is there, and their names have to last too."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What a server did with its disk, and what its clients were told meanwhile."""

    root: Path  # paths in `calls` lie below
    calls: Sequence[Call]
    ledger: Ledger
    ready_at: float  # from then on clients were answered


@dataclass(frozen=True, slots=True)
class Cut:
    """A disk that a power cut can have left, and when that was."""

    state: State
    after: int  # calls that had ended
    at: float
    ready: bool  # the server had been ready before


def record(directory: Path, *, seed: int, rounds: int = 1, largest: int = 1 << 20) -> Recording:
    """Run a server over a fixed set of requests, as often as asked, and stop it."""
    root, trace = directory / "disk", directory / "trace"
    root.mkdir()
    ledger = Ledger()
    config = f'[storage]\npath = "{root / DATA}"\n'
    server = RoadsteadServer(directory, config=config, command=recorder(trace))
    with server:
        ready_at = time.time()
        traffic = Traffic(server.host, ledger, "recorded", seed, largest=largest)
        for _ in range(rounds):
            traffic.script()
        traffic.close()
    wait_written(trace, server.pid)
    calls = read_trace(trace, root)
    trace.unlink()
    return Recording(root, calls, ledger, ready_at)


def record_collection(directory: Path) -> Recording:
    """Run collection over blobs that come and go, under a clock that is moved by hand."""
    root, trace = directory / "disk", directory / "trace"
    root.mkdir()
    command = [*recorder(trace), sys.executable, "-m", "tests.soak.collecting", str(root / DATA)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        told = [json.loads(line) for line in process.stdout or ()]
    assert process.returncode == 0
    wait_written(trace, process.pid)
    ledger = Ledger()
    for digest, value, began_at, acknowledged_at in told:
        ledger.note(Fact("blob", "collected/app", digest), value, began_at, acknowledged_at)
    return Recording(root, read_trace(trace, root), ledger, ready_at=told[0][2])


def cuts(
    recording: Recording,
    choice: random.Random,
    *,
    mixtures: int,
    share: float = 1,
    left_out: Callable[[Call], bool] = lambda _: False,
) -> Iterator[Cut]:
    """Yield the disks that power cuts can have left: at every call, or at a random share of them.

    What is promised is looked at more often. Calls that are `left_out` are as if the server had forgotten them.
    """
    disk = Disk(recording.root)
    done = [replace(call, name="nothing") if left_out(call) else call for call in recording.calls]
    for number, call in enumerate(done):
        if number:
            cut_at = call.began_at
            ready = cut_at > recording.ready_at
            if choice.random() < share:
                for state in disk.states(choice, mixtures):
                    yield Cut(state, number, cut_at, ready)
            elif done[number - 1].name == "flush" and choice.random() < 4 * share:
                yield Cut(disk.promised(), number, cut_at, ready)
        disk.apply(call)
    for state in disk.states(choice, max(mixtures, 4)):
        yield Cut(state, len(done), time.time(), ready=True)


def first_start(recording: Recording, choice: random.Random, *, mixtures: int, share: float = 1) -> Iterator[Cut]:
    """Yield disks that power cuts can have left while the server started for the first time."""
    start = [call for call in recording.calls if call.began_at <= recording.ready_at]
    # Hundreds of folders are made one by one; what is interesting is the database.
    begin = next(number for number, call in enumerate(start) if call.path.endswith(".db"))
    yield from (
        cut
        for cut in cuts(replace(recording, calls=start), choice, mixtures=mixtures, share=share)
        if begin < cut.after < len(start)
    )


async def look_at(cut: Cut, recording: Recording, place: Path) -> list[str]:
    """Start from this disk with the real database and the real driver; return what is wrong."""
    cut.state.write_to(place)
    try:
        found = await _read(place / DATA)
        if not cut.ready:
            return found.problems
        return contradictions(found, recording.ledger, cut.at)
    finally:
        shutil.rmtree(place)


async def _read(data: Path) -> Found:
    driver = FilesystemDriver(data)
    try:
        database = await open_database(f"sqlite:///{data / 'roadstead.db'}", migrate=True)
        try:
            found = await read_registry(database, driver)
            report = await database.access.write(integrity)
            if report != ["ok"]:
                found.problems.append(f"the database's integrity check: {report}")
            return found
        finally:
            await database.close()
    finally:
        await driver.close()


def integrity(connection: Connection) -> list[str]:
    """Return what SQLite says of its file: ``["ok"]``."""
    return [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check")]


@contextmanager
def memory_folder() -> Iterator[Path]:
    """Return a folder that is kept in memory, where there is one: thousands of disks are laid out and flushed in it."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="roadstead-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def told(cut: Cut, problems: Sequence[str]) -> str:
    """Return what is wrong with a cut, for a person."""
    return f"power cut after call {cut.after}, {cut.state.label}: {'; '.join(problems[:5])}"
