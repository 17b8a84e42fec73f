"""Several processes of the operating system take turns on one staged upload."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import pytest

import roadstead
from roadstead.oci.digest import Digest
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.storage.drivers.s3 import S3Driver
from roadstead.storage.ports import Driver, Staged
from roadstead.testing.contracts.driver import KEY, MIB, UPLOAD, collect, sample
from roadstead.testing.seaweedfs import SeaweedFS

Spec = tuple[str, dict[str, str]]


class Worker:
    """A process that stages as it is told."""

    def __init__(self, spec: Spec) -> None:
        kind, options = spec
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("staging_worker.py")), kind, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(roadstead.__file__).parents[1])},
        )

    def ask(self, at: Staged, state: str | None, start: int, end: int, *, checkpoint: bool = True) -> str:
        request = {
            "at": [at.size, at.state],
            "hash": state,
            "start": start,
            "end": end,
            "checkpoint": checkpoint,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@pytest.fixture(params=["filesystem", "s3"])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> Spec:
    """Say how a process opens the test's store."""
    if request.param == "filesystem":
        return "filesystem", {"root": str(tmp_path / "store")}
    server: SeaweedFS = request.getfixturevalue("seaweedfs")
    opened: S3Driver = request.getfixturevalue("open_s3_driver")()
    return "s3", {
        "bucket": "test",
        "prefix": opened._prefix,
        "region": server.region,
        "endpoint": server.endpoint,
        "access_key": server.access_key,
        "secret_key": server.secret_key,
    }


@pytest.fixture
async def driver(spec: Spec, request: pytest.FixtureRequest) -> Any:
    """Open the same store here."""
    kind, options = spec
    driver: Driver
    if kind == "filesystem":
        driver = FilesystemDriver(Path(options["root"]))
    else:
        driver = request.getfixturevalue("open_s3_driver")()
    yield driver
    await driver.close()


@pytest.fixture
def workers(spec: Spec) -> Iterator[list[Worker]]:
    """Start two processes over the same store."""
    with ExitStack() as running:
        yield [running.enter_context(Worker(spec)) for _ in range(2)]


async def test_processes_take_turns(workers: list[Worker], driver: Driver) -> None:
    """Chunks of one upload reach one process and the other; bytes and digest come out as if one had done it all."""
    content = sample(12 * MIB + 5)
    cuts = [0, 100, MIB, 7 * MIB, 7 * MIB + 1, len(content)]
    at, state, digest = Staged(), None, ""

    for number, (start, end) in enumerate(pairwise(cuts)):
        answer = json.loads(workers[number % 2].ask(at, state, start, end))
        at, state, digest = Staged(*answer["at"]), answer["hash"], answer["digest"]
    key = await driver.publish(UPLOAD, at, KEY)

    assert await collect(driver.read(key)) == content
    assert digest == str(Digest.of(content))


async def test_a_killed_process_leaves_what_was_acknowledged(workers: list[Worker], driver: Driver) -> None:
    """A process that is killed in the middle of a chunk takes nothing acknowledged with it, and no lock."""
    content = sample(13 * MIB)
    first = json.loads(workers[0].ask(Staged(), None, 0, 6 * MIB))

    said = workers[0].ask(Staged(*first["at"]), first["hash"], 6 * MIB, 13 * MIB, checkpoint=False)
    workers[0].kill()
    second = json.loads(workers[1].ask(Staged(*first["at"]), first["hash"], 6 * MIB, 13 * MIB))
    key = await driver.publish(UPLOAD, Staged(*second["at"]), KEY)

    assert said == "appended\n"
    assert await collect(driver.read(key)) == content
    assert second["digest"] == str(Digest.of(content))
