"""Collection of files, one of which the disk doesn't let go."""

import errno
import os
from datetime import timedelta
from pathlib import Path

import pytest

from roadstead.db.engine import open_database
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.registry.gc import Collector, Policy
from roadstead.registry.ports import BlobRecord
from roadstead.storage import keys
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.testing.clock import FrozenClock
from roadstead.testing.contracts.driver import put


async def test_one_file_that_stays_keeps_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others go, their rows too; it follows when it can be removed, and is left to a later pass until then."""
    driver = FilesystemDriver(tmp_path)
    database = await open_database(f"sqlite:///{tmp_path}/roadstead.db", migrate=True)
    clock = FrozenClock()
    collector = Collector(database.collection, database.catalog, driver, clock, Policy())
    digests = [Digest.of(b"%d" % number) for number in range(40)]
    stuck = keys.blob(digests[17])
    unlink = os.unlink

    def failing(path: str, **options: int) -> None:
        if path.endswith(stuck):
            raise OSError(errno.EIO, "Input/output error", path)
        unlink(path, **options)

    try:
        for number, digest in enumerate(digests):
            await put(driver, keys.blob(digest), b"%d" % number)
            blob = BlobRecord(digest, len(str(number)), keys.blob(digest))
            await database.blobs.commit(RepositoryName("app"), blob, upload=None, now=clock.now())
        clock.advance(timedelta(days=2))
        await collector.run()
        clock.advance(timedelta(minutes=2))
        with monkeypatch.context() as patched:
            patched.setattr(os, "unlink", failing)
            tally = await collector.run()
        assert (tally.blobs, tally.postponed) == (39, 1)
        assert [info.key async for info in driver.iter_keys(keys.BLOBS)] == [stuck]

        clock.advance(timedelta(minutes=20))
        tally = await collector.run()
        assert (tally.blobs, tally.postponed) == (1, 0)
        assert [info.key async for info in driver.iter_keys(keys.BLOBS)] == []
    finally:
        await database.close()
        await driver.close()
