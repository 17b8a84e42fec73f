"""The store of container tokens, and of what is derived for them, on each kind of database."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from roadstead.db.engine import Database, open_database
from roadstead.testing.contracts.container_token_store import ContainerTokenStoreContract


class TestOnSqlite(ContainerTokenStoreContract):
    @pytest.fixture
    async def stores(self, migrated_sqlite: Path, tmp_path: Path) -> AsyncIterator[Database]:
        """A copy of a migrated file."""
        shutil.copy(migrated_sqlite, tmp_path / "roadstead.db")
        database = await open_database(f"sqlite:///{tmp_path}/roadstead.db", migrate=False)
        yield database
        await database.close()


class TestOnPostgres(ContainerTokenStoreContract):
    @pytest.fixture
    async def stores(self, migrated_postgres_url: str) -> AsyncIterator[Database]:
        """A copy of a migrated database."""
        database = await open_database(migrated_postgres_url, migrate=False, pool_size=2)
        yield database
        await database.close()
