"""The stores that take up a tree and note its links, on each kind of database."""

from collections.abc import AsyncIterator

import pytest

from roadstead.db.engine import Database, open_database
from roadstead.testing.contracts.import_store import ImportStoreContract, LinkStoreContract


@pytest.fixture
async def on_sqlite(sqlite_url: str) -> AsyncIterator[Database]:
    """A SQLite database of the test's own."""
    database = await open_database(sqlite_url, migrate=True)
    yield database
    await database.close()


@pytest.fixture
async def on_postgres(migrated_postgres_url: str) -> AsyncIterator[Database]:
    """A PostgreSQL database of the test's own."""
    database = await open_database(migrated_postgres_url, migrate=False, pool_size=4)
    yield database
    await database.close()


class TestImportsOnSqlite(ImportStoreContract):
    @pytest.fixture
    def stores(self, on_sqlite: Database) -> Database:
        return on_sqlite


class TestImportsOnPostgres(ImportStoreContract):
    @pytest.fixture
    def stores(self, on_postgres: Database) -> Database:
        return on_postgres


class TestLinksOnSqlite(LinkStoreContract):
    @pytest.fixture
    def stores(self, on_sqlite: Database) -> Database:
        return on_sqlite


class TestLinksOnPostgres(LinkStoreContract):
    @pytest.fixture
    def stores(self, on_postgres: Database) -> Database:
        return on_postgres
