"""The specification's own program finds nothing wrong, on any backend and in any version, with every switch on."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from roadstead.testing.oci_conformance import run_conformance
from roadstead.testing.postgres import PostgresServer
from roadstead.testing.seaweedfs import SeaweedFS
from roadstead.testing.server import RoadsteadServer

# What the program is known to skip, by the names it prints, with the reason. A skip that isn't here fails the test, and
# so does one here that no longer happens.
SKIPS: Mapping[str, Mapping[str, str]] = {"1.1": {}, "dev": {}}
CHECKS = 1032  # that the pinned program makes with every switch on

# Both are off as shipped: an image whose layers are missing can't be pulled whole.
SPARSE = """
[registry]
sparse_indexes = true
sparse_images = true
"""


@pytest.fixture(scope="module", params=["sqlite+filesystem", "postgresql+s3"])
def backend(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """A backend's name and its settings."""
    if request.param == "sqlite+filesystem":
        yield request.param, ""
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    with SeaweedFS() as s3:
        yield (
            request.param,
            f"""
            [storage]
            driver = "s3"
            bucket = "{s3.create_bucket()}"
            region = "{s3.region}"
            endpoint = "{s3.endpoint}"
            access_key = "{s3.access_key}"
            secret_key = "{s3.secret_key}"

            [database]
            url = "{postgres.create_database()}"
            """,
        )


@pytest.fixture(scope="module")
def server(backend: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoadsteadServer]:
    """Roadstead with two workers on the backend."""
    _, config = backend
    with RoadsteadServer(tmp_path_factory.mktemp("conformance"), config=SPARSE + config, workers=2) as running:
        yield running


@pytest.mark.parametrize("version", SKIPS)
def test_nothing_fails_and_no_new_skip_appears(
    server: RoadsteadServer,
    backend: tuple[str, str],
    version: str,
    tmp_path: Path,
    print_figures: Callable[[str], None],
) -> None:
    """Every check of the program is made and passes, but those whose skip is frozen here."""
    report = run_conformance(server.host, version=version, results=tmp_path / "results")

    print_figures(f"oci-conformance {version} on {backend[0]}: {report}")
    assert report.failed == {}
    assert report.skipped == SKIPS[version].keys()
    assert report.switched_off == frozenset()
    assert (report.counts["pass"], report.status) == (CHECKS, 0)
