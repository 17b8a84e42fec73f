"""Databases for the contract suites: a file each on SQLite, a copy of one migrated database each on PostgreSQL."""

import asyncio
import secrets
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
    """The address of a migrated database with nothing in it, to be copied: quicker than migrating each."""
    url = postgres.create_database("template")
    asyncio.run(migrated(url))
    yield url
    postgres.drop_database(url)


@pytest.fixture
async def migrated_postgres_url(postgres_template: str) -> AsyncIterator[str]:
    """The address of a migrated database of the test's own."""
    server, _, template = postgres_template.rpartition("/")
    name = f"test_{secrets.token_hex(6)}"
    administration = await asyncpg.connect(f"{server}/postgres")
    await administration.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield f"{server}/{name}"
    await administration.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await administration.close()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file with nothing in it, closed, to be copied: quicker than migrating each."""
    path = tmp_path_factory.mktemp("template") / "roadstead.db"
    asyncio.run(migrated(f"sqlite:///{path}"))
    return path


async def migrated(url: str) -> None:
    """Bring a database to this release's schema."""
    database = await open_database(url, migrate=True)
    await database.close()
