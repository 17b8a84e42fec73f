"""The servers of the conformance tests: one of each kind for a test process, with two workers each.

Tests share them, so each takes repositories of its own (``name``).
"""

import secrets
from collections.abc import Iterator

import pytest

from roadstead.testing.client import Client
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.wire import Wire


@pytest.fixture(scope="session", params=["sqlite+filesystem"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoadsteadServer]:
    """Roadstead with two workers, on the databases and stores that it supports."""
    with RoadsteadServer(tmp_path_factory.mktemp("roadstead"), workers=2) as running:
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
