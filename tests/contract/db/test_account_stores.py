"""Accounts and keys on each kind of database, and in memory."""

from collections.abc import AsyncIterator

import pytest

from roadstead.auth.ports import AccountStore
from roadstead.db.engine import Database, open_database
from roadstead.testing.contracts.account_store import AccountStoreContract
from roadstead.testing.memory_accounts import MemoryAccounts


class TestInMemory(AccountStoreContract):
    @pytest.fixture
    def accounts(self) -> AccountStore:
        return MemoryAccounts()

    @pytest.fixture
    def accounts_elsewhere(self, accounts: AccountStore) -> AccountStore:
        return accounts


class OnDatabase(AccountStoreContract):
    @pytest.fixture
    async def accounts(self, database: Database) -> AccountStore:
        return database.accounts

    @pytest.fixture
    async def accounts_elsewhere(self, database: Database, url: str) -> AsyncIterator[AccountStore]:
        other = await open_database(url, migrate=False, pool_size=2)
        yield other.accounts
        await other.close()


class TestOnSqlite(OnDatabase):
    @pytest.fixture
    def url(self, sqlite_url: str) -> str:
        return sqlite_url

    @pytest.fixture
    async def database(self, url: str) -> AsyncIterator[Database]:
        database = await open_database(url, migrate=True)
        yield database
        await database.close()


class TestOnPostgres(OnDatabase):
    @pytest.fixture
    def url(self, migrated_postgres_url: str) -> str:
        return migrated_postgres_url

    @pytest.fixture
    async def database(self, url: str) -> AsyncIterator[Database]:
        database = await open_database(url, migrate=False, pool_size=2)
        yield database
        await database.close()
