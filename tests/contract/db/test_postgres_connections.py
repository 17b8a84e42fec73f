"""PostgreSQL that goes away and comes back."""

import asyncio
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


async def test_more_readers_than_connections(database: Database) -> None:
    """They take turns, and all get their answer."""
    found = await asyncio.gather(*(database.manifests.find_by_tag(APP, LATEST) for _ in range(100)))

    assert all(record is not None for record in found)


async def test_readers_that_go_away(database: Database, migrated_postgres_url: str) -> None:
    """Whenever it is, whoever comes later gets a connection, and there are never more than settings allow."""
    for number in range(200):
        readers = [asyncio.create_task(database.manifests.find_by_tag(APP, LATEST)) for _ in range(8)]
        for _ in range(number % 9):
            await asyncio.sleep(0)
        for reader in readers[number % 3 :: 3]:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    found = await asyncio.gather(*(database.manifests.find_by_tag(APP, LATEST) for _ in range(20)))

    assert all(record is not None for record in found)
    other = await asyncpg.connect(migrated_postgres_url)
    count = await other.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND state = 'idle'"
    )
    await other.close()
    assert count <= 4 + 2  # the readers', and those of writes


async def test_a_reader_that_waits_too_long(migrated_postgres_url: str) -> None:
    """It gets StoreBusyError while all connections are stuck, and an answer when they aren't any more."""
    database = await open_database(
        migrated_postgres_url, migrate=False, pool_size=1, busy_timeout=timedelta(milliseconds=500)
    )
    other = await asyncpg.connect(migrated_postgres_url)
    async with other.transaction():
        await other.execute("LOCK TABLE tags IN ACCESS EXCLUSIVE MODE")
        outcomes = await asyncio.gather(
            *(database.manifests.find_by_tag(APP, LATEST) for _ in range(3)), return_exceptions=True
        )
    await other.close()

    assert [type(outcome) for outcome in outcomes] == [StoreBusyError] * 3
    assert await database.manifests.find_by_tag(APP, LATEST) is None
    await database.close()


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
