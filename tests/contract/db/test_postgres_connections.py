"""PostgreSQL that goes away and comes back."""

from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from roadstead.db.engine import Database, open_database
from roadstead.db.errors import StoreFailedError
from roadstead.registry.errors import StoreBusyError
from roadstead.testing.contracts.registry_stores import APP, LATEST, NOW, new_manifest


@pytest.fixture
async def database(migrated_postgres_url: str) -> AsyncIterator[Database]:
    """A database whose connections are open."""
    database = await open_database(migrated_postgres_url, migrate=False, pool_size=4, busy_timeout=timedelta(seconds=2))
    await database.manifests.put(APP, new_manifest(), [LATEST], now=NOW)
    yield database
    await database.close()


async def cut_all(url: str) -> None:
    """End every other connection to the database, as a restart of the server does."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()


async def test_reads_and_writes_go_on_after_connections_were_cut(
    database: Database, migrated_postgres_url: str
) -> None:
    """Connections that died in the pool are replaced without anybody noticing."""
    for number in range(3):
        await cut_all(migrated_postgres_url)
        assert await database.manifests.find_by_tag(APP, LATEST) is not None
        await cut_all(migrated_postgres_url)
        await database.manifests.put(APP, new_manifest(str(number)), [LATEST], now=NOW)


async def test_a_lock_that_is_held_too_long(database: Database, migrated_postgres_url: str) -> None:
    """The write is given up with StoreBusyError, and can be repeated."""
    other = await asyncpg.connect(migrated_postgres_url)
    async with other.transaction():
        await other.execute("LOCK TABLE manifests IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreBusyError):
            await database.manifests.put(APP, new_manifest("2"), [LATEST], now=NOW)
    await other.close()

    await database.manifests.put(APP, new_manifest("2"), [LATEST], now=NOW)


async def test_a_database_that_is_not_there(migrated_postgres_url: str) -> None:
    """A server that doesn't answer is busy; one that has no such database has failed."""
    with pytest.raises(StoreFailedError):
        await open_database(f"{migrated_postgres_url}_nowhere", migrate=False)
    with pytest.raises(StoreBusyError):
        await open_database("postgresql://127.0.0.1:1/nowhere", migrate=False)
