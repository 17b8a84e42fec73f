"""A bucket and no database that lasts: built at the start, one writer, and whoever comes second is refused."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import pytest
from tests.integration.adoption import ask, import_tree, listings, push

from roadstead.secret import Secret
from roadstead.storage import keys
from roadstead.storage.drivers.s3 import S3Driver
from roadstead.storage.ports import Key, NoteChangedError
from roadstead.storage.writer import (
    ConditionsIgnoredError,
    Right,
    WriterLostError,
    WriterPresentError,
    check_conditions,
    give_back,
    look,
    renew,
    take,
)
from roadstead.testing.client import Client, ConnectionBrokenError
from roadstead.testing.images import make_artifact, make_image, make_index
from roadstead.testing.layouts import layout_files
from roadstead.testing.processes import children
from roadstead.testing.seaweedfs import SeaweedFS
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import ServerNotReadyError, wait_until

LEASE = timedelta(seconds=15)
"""For what waits until it has run out; a server on a busy machine may need seconds between two renewals."""


class Patient(RoadsteadServer):
    """A server that may have to wait for a lease before it starts."""

    def start(self, *, timeout: timedelta = timedelta(minutes=2)) -> Self:
        """Start it and wait until it is ready."""
        return super().start(timeout=timeout)


class Bucket:
    """A bucket of the test's own, and servers over it, each on a machine of its own."""

    def __init__(self, seaweedfs: SeaweedFS, home: Path, lease: timedelta = timedelta(seconds=60)) -> None:
        self.lease = lease
        self.seaweedfs = seaweedfs
        self.name = seaweedfs.create_bucket()
        self.home = home

    def config(self, machine: str, more: str = "") -> str:
        s3 = self.seaweedfs
        return (
            f'[storage]\ndriver = "s3"\nbucket = "{self.name}"\nregion = "{s3.region}"\nendpoint = "{s3.endpoint}"\n'
            f'access_key = "{s3.access_key}"\nsecret_key = "{s3.secret_key}"\npath = "{self.home / machine}"\n'
            f'[database]\nmode = "rebuildable"\nwriter_lease = "{int(self.lease.total_seconds())}s"\n{more}'
        )

    def server(self, machine: str, name: str = "", more: str = "") -> RoadsteadServer:
        return Patient(self.home / f"server-{name or machine}", config=self.config(machine, more))

    def driver(self) -> S3Driver:
        return S3Driver(self.name, **self.access)

    @property
    def access(self) -> dict[str, Any]:
        s3 = self.seaweedfs
        return {
            "region": s3.region,
            "endpoint": s3.endpoint,
            "access_key": s3.access_key,
            "secret_key": Secret(s3.secret_key),
        }

    def command(self, machine: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command with the settings of that machine."""
        path = self.home / f"{machine}.toml"
        path.write_text(self.config(machine))
        return subprocess.run(
            [sys.executable, "-m", "roadstead", *(str(path) if one == "CONFIG" else one for one in arguments)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture
def bucket(seaweedfs: SeaweedFS, tmp_path: Path) -> Bucket:
    return Bucket(seaweedfs, tmp_path)


WANTED = [("team/app", f"manifests/{tag}") for tag in ("v1", "v2", "latest", "gone")] + [("team/multi", "manifests/1")]


def fill(client: Client) -> list[tuple[str, str]]:
    """Push what users push; return what to ask for."""
    first, second = make_image(seed="first", layers=2), make_image(seed="second", size=9 << 20, docker=True)
    push(client, "team/app", first, "v1")
    push(client, "team/app", second, "v2")
    push(client, "team/app", first, "latest")
    push(client, "team/app", second, "latest")
    push(client, "team/app", first, "gone")
    assert client.delete("/v2/team/app/manifests/gone").status == 202
    index = make_index([make_image(seed="a"), make_image(seed="b", platform="linux/arm64")])
    push(client, "team/multi", index, "1")
    push(client, "team/multi", make_artifact(subject=index.descriptor()))
    blobs = [("team/app", f"blobs/{digest}") for image in (first, second) for digest in image.blobs]
    return [*WANTED, *blobs, ("team/multi", f"referrers/{index.digest}")]


def test_after_a_kill_and_without_the_database_all_is_answered_the_same(bucket: Bucket) -> None:
    """What was acknowledged is in the bucket: another machine, with nothing, answers each request as before."""
    bucket.lease = LEASE
    server = bucket.server("one").start()
    with closing(Client(server.host)) as client:
        wanted = fill(client)
    before, tags = ask(server.host, wanted), listings(server.host)
    server.kill()
    shutil.rmtree(bucket.home / "one")

    started = time.monotonic()
    with bucket.server("one", "again") as again:
        took = time.monotonic() - started
        assert ask(again.host, wanted) == before
        assert listings(again.host) == tags
        assert "it is built from them now" in again.log
        with closing(Client(again.host)) as client:
            push(client, "team/app", make_image(seed="after"), "after")
    assert before["team/app", "manifests/gone"][0] == 404
    print(f"\nanother machine serves {took:.1f} s after its start, {LEASE.total_seconds():.0f} s of lease among them")
    # Given back when it was stopped: the next need not wait.
    with bucket.server("two") as next_one:
        assert ask(next_one.host, wanted) == before
        with closing(Client(next_one.host)) as client:
            assert client.get("/v2/team/app/manifests/after").status == 200


def test_a_killed_server_goes_on_with_its_database(bucket: Bucket) -> None:
    """On the same machine nothing is built anew, and nobody waits: a lock beside the database tells it is dead."""
    server = bucket.server("one").start()
    with closing(Client(server.host)) as client:
        push(client, "team/app", make_image(seed="first"), "1")
    server.kill()

    with bucket.server("one", "again") as again, closing(Client(again.host)) as client:
        assert client.get("/v2/team/app/manifests/1").status == 200
        assert "it is built from them now" not in again.log
        assert "database_kept=True" in again.log


def test_a_second_server_is_refused_and_takes_over_from_a_dead_one(bucket: Bucket) -> None:
    """While the first lives the second says who it is and ends; once the first is dead for long enough it serves."""
    bucket.lease = LEASE
    first = bucket.server("one").start()
    with closing(Client(first.host)) as client:
        push(client, "team/app", make_image(seed="first"), "1")
        refused = bucket.server("two")
        with pytest.raises(ServerNotReadyError):
            refused.start()
        assert "writes into this bucket" in refused.log
        assert "PostgreSQL" in refused.log
        assert client.get("/v2/team/app/manifests/1").status == 200
        same = bucket.server("one", "same machine")
        with pytest.raises(ServerNotReadyError):
            same.start()
        assert "another Roadstead of this machine" in same.log
    first.kill()

    with bucket.server("two", "second") as second, closing(Client(second.host)) as client:
        assert client.get("/v2/team/app/manifests/1").status == 200
        push(client, "team/app", make_image(seed="second"), "2")
    # The first one's database is behind the bucket now: it is put aside.
    with bucket.server("one", "first again") as again, closing(Client(again.host)) as client:
        assert client.get("/v2/team/app/manifests/2").status == 200
        assert "it is built from them now" in again.log


def test_a_server_that_slept_does_not_write_any_more(bucket: Bucket) -> None:
    """A machine that was stopped for longer than the lease finds another writer: it answers 503 and ends."""
    bucket.lease = LEASE
    first = bucket.server("one").start()
    with closing(Client(first.host)) as client:
        push(client, "team/app", make_image(seed="first"), "1")
    sleeping = [first.pid, *children(first.pid)]
    for pid in sleeping:
        os.kill(pid, signal.SIGSTOP)
    try:
        with bucket.server("two") as second, closing(Client(second.host)) as client:
            push(client, "team/app", make_image(seed="second"), "1")
            for pid in reversed(sleeping):
                os.kill(pid, signal.SIGCONT)
            # It may have ended already.
            with suppress(OSError, ConnectionBrokenError), closing(Client(first.host, timeout_s=10)) as late:
                assert late.get("/v2/team/app/manifests/1").status == 503
            assert wait_until(lambda: "the server has to end" in first.log, timeout=timedelta(seconds=60))
            assert wait_until(lambda: not children(first.pid), timeout=timedelta(seconds=60))
            answer = client.get("/v2/team/app/manifests/1")
            assert answer.headers["docker-content-digest"] == str(make_image(seed="second").digest)
    finally:
        for pid in sleeping:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        first.stop()


def test_storage_that_is_away_for_a_while(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    """Requests are answered 503 once the right isn't certain, and served again when storage is back."""
    with SeaweedFS() as store:
        bucket = Bucket(store, tmp_path, LEASE)
        with bucket.server("one") as server, closing(Client(server.host, timeout_s=30)) as client:
            push(client, "team/app", make_image(seed="first"), "1")
            store.suspend()
            try:
                assert wait_until(
                    lambda: client.get("/v2/team/app/manifests/1").status == 503, timeout=timedelta(seconds=40)
                )
            finally:
                store.resume()
            assert wait_until(
                lambda: client.get("/v2/team/app/manifests/1").status == 200, timeout=timedelta(seconds=30)
            )


def test_commands_beside_a_server_and_without_one(bucket: Bucket) -> None:
    """Beside the server they share its database; without one they build theirs and hold the right meanwhile."""
    image = make_image(seed="loaded")
    for name, data in layout_files([(image, {"org.opencontainers.image.ref.name": "team/loaded:1"})]).items():
        (bucket.home / "layout" / name).parent.mkdir(parents=True, exist_ok=True)
        (bucket.home / "layout" / name).write_bytes(data)
    with bucket.server("one") as server, closing(Client(server.host)) as client:
        push(client, "team/app", make_image(seed="first"), "1")
        loaded = bucket.command("one", "import", str(bucket.home / "layout"), "--config", "CONFIG")
        assert loaded.returncode == 0, loaded.stderr
        assert client.get("/v2/team/loaded/manifests/1").status == 200
        elsewhere = bucket.command("two", "gc", "CONFIG", "--dry-run", "--json", "--data", str(bucket.home / "two"))
        assert elsewhere.returncode == 1
        account = bucket.command("one", "user", "add", "ana", "CONFIG", "--robot")
        assert account.returncode == 1
        assert "would lose them" in " ".join(account.stderr.split())
    (bucket.home / "three").mkdir()
    explained = bucket.command("three", "gc", "CONFIG", "--dry-run", "--json")

    assert explained.returncode == 0, explained.stderr
    kinds = [json.loads(line)["kind"] for line in explained.stdout.splitlines()]
    assert kinds.count("manifest") == 2


def test_collection_goes_on_after_the_database_was_lost(bucket: Bucket) -> None:
    """A bucket that was ours from the start is nobody's to take back; one that was adopted waits for ``--finish``."""
    with bucket.server("one") as server, closing(Client(server.host)) as client:
        push(client, "team/app", make_image(seed="first"), "1")
    assert "waits for the end" not in bucket.command("two", "gc", "CONFIG").stderr

    async def forget() -> None:
        driver = bucket.driver()
        await driver.delete(keys.FINISHED)
        await driver.close()

    asyncio.run(forget())
    assert "waits for the end" in bucket.command("three", "gc", "CONFIG").stderr
    path = bucket.home / "three.toml"
    assert import_tree(f"s3://{bucket.name}", "--config", str(path), "--finish") == {"finished": True}
    assert "waits for the end" not in bucket.command("four", "gc", "CONFIG").stderr


async def test_a_command_lets_go_of_the_bucket_at_its_end(bucket: Bucket) -> None:
    """Another machine's server, or its next command, has nothing to wait for."""
    assert bucket.command("one", "gc", "CONFIG").returncode == 0

    driver = bucket.driver()
    found = await look(driver)
    await driver.close()
    assert found is not None
    assert found.released


# The right in the bucket


async def test_of_many_one_gets_the_right(bucket: Bucket) -> None:
    """However many ask at once; the others learn who has it. Each holder's token is higher."""
    driver = bucket.driver()
    wanted = [Right(f"owner-{number}", f"database-{number}", "boot", 0) for number in range(8)]

    async def attempt(right: Right) -> Right | WriterPresentError:
        try:
            return await take(driver, right, LEASE)
        except WriterPresentError as error:
            return error

    results = await asyncio.gather(*(attempt(right) for right in wanted))
    [held] = [result for result in results if isinstance(result, Right)]
    assert held.token == 1
    renewed = await renew(driver, held)
    with pytest.raises(WriterLostError):
        await renew(driver, held)  # of an older version: somebody else wrote, if only ourselves
    await give_back(driver, renewed)
    second = await take(driver, wanted[0], LEASE)
    assert second.token == 2
    third = await take(driver, wanted[1], LEASE, dead=(await look(driver)).right)
    with pytest.raises(WriterLostError, match="owner-1"):
        await renew(driver, second)
    assert third.token == 3
    await driver.close()


async def test_a_store_without_conditions_is_refused(bucket: Bucket) -> None:
    """One that carries out every write can't keep two writers apart."""

    class Careless(S3Driver):
        async def write_note(self, key: Key, content: bytes, *, replacing: str | None) -> str:
            async with self.write(key) as handle:
                await handle.append(content)
                await handle.commit()
            note = await self.read_note(key)
            assert note is not None
            return note.version

    careful = bucket.driver()
    careless = Careless(bucket.name, **bucket.access)
    right = Right("owner", "database", "boot", 0)
    await check_conditions(careful, await renewed_once(careful, right))
    await careful.delete(keys.WRITER)
    with pytest.raises(ConditionsIgnoredError, match="If-Match"):
        await check_conditions(careless, await renewed_once(careless, right))
    await careful.close()
    await careless.close()


async def renewed_once(driver: S3Driver, right: Right) -> Right:
    """Take the right and renew it; return it as it was before that."""
    held = await take(driver, right, LEASE)
    await renew(driver, held)
    return held


async def test_notes_are_replaced_only_where_nobody_else_has(bucket: Bucket) -> None:
    """The driver's promise: a version is replaced once, and what isn't there is written once."""
    driver, key = bucket.driver(), Key("docker/registry/v2/roadstead/note")
    assert await driver.read_note(key) is None
    with pytest.raises(NoteChangedError):
        await driver.write_note(key, b"x", replacing='"0123"')
    first = await driver.write_note(key, b"first", replacing=None)
    with pytest.raises(NoteChangedError):
        await driver.write_note(key, b"again", replacing=None)
    second = await driver.write_note(key, b"second", replacing=first)
    with pytest.raises(NoteChangedError):
        await driver.write_note(key, b"third", replacing=first)
    note = await driver.read_note(key)
    assert note is not None
    assert (note.content, note.version) == (b"second", second)
    assert note.age < timedelta(seconds=30)
    await driver.close()
