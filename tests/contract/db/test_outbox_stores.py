"""The contract of the outbox on SQLite and PostgreSQL."""

import shutil
from pathlib import Path

import pytest

from roadstead.testing.contracts.outbox_store import OutboxStoreContract


class TestOnSqlite(OutboxStoreContract):
    """SQLite."""

    @pytest.fixture
    def url(self, migrated_sqlite: Path, tmp_path: Path) -> str:
        """The address of the test's database."""
        path = tmp_path / "roadstead.db"
        shutil.copyfile(migrated_sqlite, path)
        return f"sqlite:///{path}"


class TestOnPostgres(OutboxStoreContract):
    """PostgreSQL."""

    @pytest.fixture
    def url(self, migrated_postgres_url: str) -> str:
        """The address of the test's database."""
        return migrated_postgres_url
