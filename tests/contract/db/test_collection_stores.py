"""The contract of collection's store on SQLite and PostgreSQL."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from roadstead.db.engine import Database, open_database
from roadstead.testing.contracts.collection_store import CollectionStoreContract
from roadstead.testing.contracts.database import PATIENCE


class OnDatabase:
    """Fixtures over the address of a migrated database."""

    @pytest.fixture
    async def stores(self, url: str) -> AsyncIterator[Database]:
        """A database of the test's own, with nothing in it."""
        database = await open_database(url, migrate=False, pool_size=4, busy_timeout=PATIENCE)
        yield database
        await database.close()

    @pytest.fixture
    async def elsewhere(self, stores: Database, url: str) -> AsyncIterator[Database]:
        """The same database as another process reaches it."""
        database = await open_database(url, migrate=False, pool_size=4, busy_timeout=PATIENCE)
        yield database
        await database.close()


class OnSqlite(OnDatabase):
    """On a copy of a migrated file."""

    @pytest.fixture
    def url(self, migrated_sqlite: Path, tmp_path: Path) -> str:
        """The address of the test's database."""
        path = tmp_path / "roadstead.db"
        shutil.copyfile(migrated_sqlite, path)
        return f"sqlite:///{path}"


class OnPostgres(OnDatabase):
    """On a copy of a migrated database."""

    @pytest.fixture
    def url(self, migrated_postgres_url: str) -> str:
        """The address of the test's database."""
        return migrated_postgres_url


class TestOnSqlite(OnSqlite, CollectionStoreContract):
    """SQLite."""


class TestOnPostgres(OnPostgres, CollectionStoreContract):
    """PostgreSQL."""
