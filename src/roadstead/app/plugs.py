"""A process's plugs: the database and the storage that settings name, opened, counted and closed."""

import os
import socket
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from secrets import token_hex

from roadstead.app.telling import event_source, interests
from roadstead.augment.ports import DerivationStore
from roadstead.clock import SystemClock
from roadstead.db.engine import Database, open_database
from roadstead.registry.ports import BlobStore, ManifestStore, UploadStore
from roadstead.settings.model import Settings, StorageDriver, StorageSettings
from roadstead.storage import keys
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.storage.ports import Driver, Key, OpensFile
from roadstead.storage.tree_lock import hold_tree
from roadstead.telemetry.metered import MeteredBlobs, MeteredDerivations, MeteredManifests, MeteredUploads
from roadstead.telemetry.metrics import Metrics, RegistryMetrics

CLOCK = SystemClock()
TREE_SECRET = "tree"  # noqa: S105 -- the name of the secret


@dataclass(frozen=True, slots=True)
class Plugs:
    """A process's way to the facts and to the bytes."""

    database: Database
    driver: Driver
    manifests: ManifestStore
    blobs: BlobStore
    uploads: UploadStore
    derivations: DerivationStore


@asynccontextmanager
async def open_plugs(settings: Settings, *, migrate: bool) -> AsyncGenerator[Plugs, None]:
    """Open database and storage, and close both at the end."""
    driver = open_driver(settings.storage)
    try:
        database = await open_database(
            settings.database_url,
            migrate=migrate,
            pool_size=settings.database.pool_size,
            blob_lease=settings.gc.grace,
            interests=interests(settings),
            source=event_source(settings),
        )
        try:
            with ExitStack() as held:
                if isinstance(driver, OpensFile):
                    installation = (await database.instance.secret(TREE_SECRET)).hex()
                    held.enter_context(hold_tree(driver.path(Key(keys.LOCK)), installation))
                yield Plugs(
                    database, driver, database.manifests, database.blobs, database.uploads, database.derivations
                )
        finally:
            await database.close()
    finally:
        await driver.close()


def open_driver(settings: StorageSettings) -> Driver:
    """Return the storage that settings name."""
    if settings.driver is StorageDriver.FILESYSTEM:
        return FilesystemDriver(settings.path)
    # An optional part: its absence is named where it is asked for.
    from roadstead.storage.drivers.s3 import S3Driver

    return S3Driver(
        settings.bucket or "",
        prefix=settings.prefix,
        region=settings.region,
        endpoint=settings.endpoint,
        path_style=settings.path_style,
        access_key=settings.access_key.reveal() if settings.access_key else None,
        secret_key=settings.secret_key,
        encrypt=settings.encrypt,
        kms_key=settings.kms_key,
        storage_class=settings.storage_class,
        presign_endpoint=settings.redirect_endpoint,
    )


def metered(plugs: Plugs, numbers: Metrics) -> Plugs:
    """Return the plugs with stores that count."""
    counters = RegistryMetrics(numbers)
    return replace(
        plugs,
        manifests=MeteredManifests(plugs.manifests, counters),
        blobs=MeteredBlobs(plugs.blobs, counters),
        uploads=MeteredUploads(plugs.uploads, counters),
        derivations=MeteredDerivations(plugs.derivations, counters),
    )


def owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{token_hex(4)}"
