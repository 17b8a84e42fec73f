"""Databases for the contract suites: a file each on SQLite, a copy of one migrated database each on PostgreSQL."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from roadstead.db.engine import open_database
from roadstead.testing.postgres import PostgresServer


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The address of a file that isn't there yet."""
    return f"sqlite:///{tmp_path}/roadstead.db"


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> Iterator[str]:
    """The address of an empty database; the first test that wants it migrated migrates it."""
    url = postgres.create_database("template")
    yield url
    postgres.drop_database(url)


@pytest.fixture
async def migrated_postgres_url(postgres: PostgresServer, postgres_template: str) -> AsyncIterator[str]:
    """The address of a migrated database of the test's own: copying one is quicker than migrating."""
    await (await open_database(postgres_template, migrate=True)).close()
    url = postgres.create_database()
    postgres.drop_database(url)
    administration = await asyncpg.connect(postgres_template.rpartition("/")[0] + "/postgres")
    name, template = url.rpartition("/")[2], postgres_template.rpartition("/")[2]
    await administration.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    await administration.close()
    yield url
    postgres.drop_database(url)
