"""Collection in a bucket: what a crash leaves there, and many deletes in few requests."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from roadstead.clock import SystemClock
from roadstead.db.engine import open_database
from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.registry.gc import Collector, Policy
from roadstead.registry.ports import BlobRecord
from roadstead.secret import Secret
from roadstead.storage import keys
from roadstead.storage.drivers.s3 import S3Driver
from roadstead.storage.ports import Key
from roadstead.testing.clock import FrozenClock
from roadstead.testing.contracts.driver import put
from roadstead.testing.seaweedfs import SeaweedFS


async def test_copies_that_a_crash_left_in_a_bucket_are_removed(tmp_path: Path, seaweedfs: SeaweedFS) -> None:
    """A published upload that no blob lies under goes once it is old; one that a blob lies under stays."""
    driver = S3Driver(
        seaweedfs.create_bucket(),
        region=seaweedfs.region,
        endpoint=seaweedfs.endpoint,
        access_key=seaweedfs.access_key,
        secret_key=Secret(seaweedfs.secret_key),
    )
    database = await open_database(f"sqlite:///{tmp_path}/roadstead.db", migrate=True)
    try:
        for name in ("kept", "stray"):
            await put(driver, keys.staged(name), name.encode())
        blob = BlobRecord(Digest.of(b"kept"), 4, keys.staged("kept"))
        await database.blobs.commit(RepositoryName("app"), blob, upload=None, now=SystemClock().now())
        young = Collector(database.collection, database.catalog, driver, SystemClock(), Policy())
        old = Collector(
            database.collection, database.catalog, driver, SystemClock(), Policy(staged_after=timedelta(seconds=-60))
        )

        assert await young.sweep_staged() == 0
        assert await old.sweep_staged() == 1
        assert [info.key async for info in driver.iter_keys(keys.STAGED)] == [keys.staged("kept")]
    finally:
        await database.close()
        await driver.close()


async def test_many_blobs_of_a_bucket_go_together(tmp_path: Path, seaweedfs: SeaweedFS) -> None:
    """Their bytes go in few requests, and no row stays; bytes that others need stay."""
    driver = CountingS3(
        seaweedfs.create_bucket(),
        region=seaweedfs.region,
        endpoint=seaweedfs.endpoint,
        access_key=seaweedfs.access_key,
        secret_key=Secret(seaweedfs.secret_key),
    )
    database = await open_database(f"sqlite:///{tmp_path}/roadstead.db", migrate=True)
    clock = FrozenClock(SystemClock().now())
    try:
        for number in range(40):
            data = b"%d" % number
            await put(driver, keys.blob(Digest.of(data)), data)
            blob = BlobRecord(Digest.of(data), len(data), keys.blob(Digest.of(data)))
            await database.blobs.commit(RepositoryName("app"), blob, upload=None, now=clock.now())
        collector = Collector(database.collection, database.catalog, driver, clock, Policy())
        clock.advance(timedelta(days=2))
        await collector.run()
        clock.advance(timedelta(minutes=5))

        tally = await collector.run()

        assert (tally.blobs, tally.postponed, driver.requests) == (40, 0, 1)
        assert [info.key async for info in driver.iter_keys(keys.BLOBS)] == []
    finally:
        await database.close()
        await driver.close()


class CountingS3(S3Driver):
    """A driver that counts requests which delete many."""

    requests = 0

    async def delete_many(self, gone: Sequence[Key]) -> Mapping[Key, str]:
        """Count, and delete."""
        self.requests += 1
        return await super().delete_many(gone)
