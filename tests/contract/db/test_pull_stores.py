"""Pulls by whom they are of, on each kind of database."""

from collections.abc import AsyncIterator

import pytest

from roadstead.db.engine import open_database
from roadstead.limits.ports import PullStore
from roadstead.testing.contracts.pull_store import PullStoreContract


class TestOnSqlite(PullStoreContract):
    @pytest.fixture
    async def pulls(self, sqlite_url: str) -> AsyncIterator[PullStore]:
        database = await open_database(sqlite_url, migrate=True)
        yield database.pulls
        await database.close()

    @pytest.fixture
    async def pulls_elsewhere(self, pulls: PullStore, sqlite_url: str) -> AsyncIterator[PullStore]:
        database = await open_database(sqlite_url, migrate=False)
        yield database.pulls
        await database.close()


class TestOnPostgres(PullStoreContract):
    @pytest.fixture
    async def pulls(self, migrated_postgres_url: str) -> AsyncIterator[PullStore]:
        database = await open_database(migrated_postgres_url, migrate=False, pool_size=2)
        yield database.pulls
        await database.close()

    @pytest.fixture
    async def pulls_elsewhere(self, pulls: PullStore, migrated_postgres_url: str) -> AsyncIterator[PullStore]:
        database = await open_database(migrated_postgres_url, migrate=False, pool_size=2)
        yield database.pulls
        await database.close()
