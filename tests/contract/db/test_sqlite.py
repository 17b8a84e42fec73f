"""The contracts of all stores on SQLite."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from roadstead.db.engine import Database, open_database
from roadstead.lease import LeaseStore
from roadstead.testing.contracts.database import PATIENCE, DatabaseContract
from roadstead.testing.contracts.derivation_store import DerivationStoreContract
from roadstead.testing.contracts.lease_store import LeaseStoreContract
from roadstead.testing.contracts.registry_stores import (
    BlobStoreContract,
    CatalogStoreContract,
    InstanceStoreContract,
    ManifestStoreContract,
    UploadStoreContract,
)


@pytest.fixture
def url(sqlite_url: str) -> str:
    """The address of the test's database."""
    return sqlite_url


@pytest.fixture
def fresh_url(tmp_path: Path) -> str:
    """The address of a file that isn't there."""
    return f"sqlite:///{tmp_path}/fresh/roadstead.db"


@pytest.fixture
async def stores(url: str) -> AsyncIterator[Database]:
    """A database of the test's own, with nothing in it."""
    database = await open_database(url, migrate=True, busy_timeout=PATIENCE)
    yield database
    await database.close()


@pytest.fixture
async def elsewhere(stores: Database, url: str) -> AsyncIterator[Database]:
    """The same database as another process reaches it."""
    database = await open_database(url, migrate=False, busy_timeout=PATIENCE)
    yield database
    await database.close()


@pytest.fixture
def leases(stores: Database) -> LeaseStore:
    """The leases of one process."""
    return stores.leases


@pytest.fixture
def leases_elsewhere(elsewhere: Database) -> LeaseStore:
    """The leases of another process."""
    return elsewhere.leases


class TestDatabase(DatabaseContract):
    """Transactions, revisions, blobs on their way out."""


class TestManifests(ManifestStoreContract):
    """Manifests, tags and their journal."""


class TestCatalog(CatalogStoreContract):
    """Listings."""


class TestUploads(UploadStoreContract):
    """Upload sessions."""


class TestBlobs(BlobStoreContract):
    """Blobs and memberships."""


class TestInstance(InstanceStoreContract):
    """Secrets."""


class TestDerivations(DerivationStoreContract):
    """What was derived from what."""


class TestLeases(LeaseStoreContract):
    """Leases."""
