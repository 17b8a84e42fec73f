"""The servers of the conformance tests: one of each kind for a test process, with two workers each.

Tests share them, so each takes repositories of its own (``name``).
"""

import secrets
from collections.abc import Iterator

import pytest
from tests.conformance.stores import STORES

from roadstead.testing.client import Client
from roadstead.testing.components import ComponentMissingError
from roadstead.testing.postgres import PostgresServer
from roadstead.testing.seaweedfs import INSTALL, SeaweedFS
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.wire import Wire


@pytest.fixture(scope="session", params=STORES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoadsteadServer]:
    """Roadstead with two workers, on the databases and stores that it supports."""
    directory = tmp_path_factory.mktemp("roadstead")
    config = "" if request.param == STORES[0] else _on_servers(request)
    with RoadsteadServer(directory, config=config, workers=2) as running:
        yield running


def _on_servers(request: pytest.FixtureRequest) -> str:
    """Return the settings for a new database in PostgreSQL and a new bucket in an S3 server."""
    postgres: PostgresServer = request.getfixturevalue("postgres")
    s3: SeaweedFS = request.getfixturevalue("seaweedfs")
    return f"""
        [storage]
        driver = "s3"
        bucket = "{s3.create_bucket()}"
        region = "{s3.region}"
        endpoint = "{s3.endpoint}"
        access_key = "{s3.access_key}"
        secret_key = "{s3.secret_key}"
        path_style = true

        [database]
        url = "{postgres.create_database()}"
        """


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[SeaweedFS]:
    """An S3 server for each test process; take a bucket of your own."""
    if SeaweedFS.program() is None:
        raise ComponentMissingError("weed", INSTALL)
    with SeaweedFS() as running:
        yield running


@pytest.fixture
def client(server: RoadsteadServer) -> Iterator[Client]:
    """A client with a connection of its own."""
    with server.client() as connected:
        yield connected


@pytest.fixture
def wire(server: RoadsteadServer) -> Iterator[Wire]:
    """A raw connection."""
    with Wire(server.host) as connected:
        yield connected


@pytest.fixture
def name() -> str:
    """A repository name that no other test uses."""
    return f"conformance/{secrets.token_hex(6)}"


@pytest.fixture
def other() -> str:
    """A second one."""
    return f"conformance/{secrets.token_hex(6)}"
