"""What every test may ask for: real servers, started by the first test that asks, and a word about what is missing.

A test asks for a server by naming its fixture. The servers themselves are in ``roadstead.testing``, for other
projects too; here is only how this test suite shares them.
"""

import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from roadstead.testing.components import ComponentMissingError, must_be_present
from roadstead.testing.dockerd import DockerEngine
from roadstead.testing.keeper import shared_docker_engine, shared_postgres, wait_stopped
from roadstead.testing.postgres import PostgresServer
from roadstead.testing.registry_peer import RegistryPeer, open_registry_peer
from roadstead.testing.seaweedfs import INSTALL as SEAWEEDFS_INSTALL
from roadstead.testing.seaweedfs import SeaweedFS

RUN_DIRECTORY = pytest.StashKey[Path]()
SOAK_DESELECTED = pytest.StashKey[int]()
# A busy machine is no failure: what a test decides is never how long an example took, or was long in the making.
settings.register_profile("roadstead", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("roadstead")

# The names of the properties that carry a missing component, and figures, to the summary.
MISSING = "missing component"
FIGURES = "figures"


# Servers


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    """A PostgreSQL server that the whole run shares; take a database of your own: ``postgres_url``."""
    with shared_postgres(pytestconfig.stash[RUN_DIRECTORY]) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The address of an empty PostgreSQL database for one test."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[SeaweedFS]:
    """An S3 server, one for each test process, with a bucket ``test``; take a prefix or a bucket of your own."""
    if SeaweedFS.program() is None:
        raise ComponentMissingError("weed", SEAWEEDFS_INSTALL)
    with SeaweedFS() as server:
        server.create_bucket("test")
        yield server


@pytest.fixture(scope="session")
def docker_engine(pytestconfig: pytest.Config) -> Iterator[DockerEngine]:
    """A Docker engine that the whole run shares; give your images and containers names of their own."""
    with shared_docker_engine(pytestconfig.stash[RUN_DIRECTORY]) as engine:
        yield engine


@pytest.fixture(scope="session")
def registry_peer() -> Iterator[RegistryPeer]:
    """A distribution registry, one for each test process; take repositories of your own."""
    with open_registry_peer() as peer:
        yield peer


# Figures are printed


@pytest.fixture
def print_figures(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a line at the end of the run, whichever process the test runs in and however it ends."""
    return lambda line: request.node.user_properties.append((FIGURES, line))


# One run, several processes


def is_worker(config: pytest.Config) -> bool:
    """Say whether this process is one of xdist's workers."""
    return hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder by which this run's processes share their servers; xdist's workers are told of it."""
    if is_worker(config):
        config.stash[RUN_DIRECTORY] = Path(config.workerinput["run_directory"])
    else:
        config.stash[RUN_DIRECTORY] = Path(tempfile.mkdtemp(prefix="roadstead-run-"))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker where the run's folder is."""
    node.workerinput["run_directory"] = str(node.config.stash[RUN_DIRECTORY])


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the run only when the shared servers have ended."""
    if not is_worker(config) and RUN_DIRECTORY in config.stash:
        stopped = wait_stopped(config.stash[RUN_DIRECTORY])
        shutil.rmtree(config.stash[RUN_DIRECTORY])
        assert stopped, "a shared test server didn't stop; see the processes whose paths start with roadstead-"


# Soak tests are asked for


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked ``soak`` unless ``-m`` speaks of it."""
    if "soak" in config.option.markexpr:
        return
    soak = [item for item in items if item.get_closest_marker("soak")]
    if soak:
        items[:] = [item for item in items if not item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=soak)
    config.stash[SOAK_DESELECTED] = len(soak)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send xdist's controller the number of soak tests left out: it collects nothing itself."""
    if is_worker(session.config):
        session.config.workeroutput["soak_deselected"] = session.config.stash.get(SOAK_DESELECTED, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Note a worker's number of soak tests left out; every worker collects the same tests."""
    stash = node.config.stash
    stash[SOAK_DESELECTED] = max(
        stash.get(SOAK_DESELECTED, 0), getattr(node, "workeroutput", {}).get("soak_deselected", 0)
    )


# Missing components are named


@contextmanager
def missing_component_named(item: pytest.Item) -> Iterator[None]:
    """Turn a missing component into a failure where all must be present, else into a skip; keep it for the summary."""
    try:
        yield
    except ComponentMissingError as error:
        item.user_properties.append((MISSING, f"{error.program}: {error.install}"))
        if must_be_present():
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        raise pytest.skip.Exception(str(error)) from None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """A fixture that needs a program may find it missing."""
    with missing_component_named(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """A test that starts its own server may find a program missing."""
    with missing_component_named(item):
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List figures that tests counted, missing components, each with its command, and the soak tests left out."""
    kinds = ("passed", "skipped", "failed", "error")
    reports = [report for kind in kinds for report in terminalreporter.stats.get(kind, ())]
    properties = {pair for report in reports for pair in getattr(report, "user_properties", ())}
    for kind, title in ((FIGURES, "figures"), (MISSING, "missing components")):
        if texts := sorted(text for name, text in properties if name == kind):
            terminalreporter.section(title)
            for text in texts:
                terminalreporter.line(text)
    if left_out := terminalreporter.config.stash.get(SOAK_DESELECTED, 0):
        terminalreporter.line(f"soak tests deselected: {left_out}; `make soak` runs them")
