"""What is known of upstreams' images, on each kind of database."""

from collections.abc import AsyncIterator

import pytest

from roadstead.db.engine import Database, open_database
from roadstead.testing.contracts.pulled_store import PulledStoreContract


class TestOnSqlite(PulledStoreContract):
    @pytest.fixture
    async def stores(self, sqlite_url: str) -> AsyncIterator[Database]:
        database = await open_database(sqlite_url, migrate=True)
        yield database
        await database.close()


class TestOnPostgres(PulledStoreContract):
    @pytest.fixture
    async def stores(self, migrated_postgres_url: str) -> AsyncIterator[Database]:
        database = await open_database(migrated_postgres_url, migrate=False, pool_size=2)
        yield database
        await database.close()
