"""The specification's own programs find nothing wrong, on any backend and in any version, with every switch on."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from roadstead.testing.oci_conformance import run_conformance, run_suite
from roadstead.testing.postgres import PostgresServer
from roadstead.testing.seaweedfs import SeaweedFS
from roadstead.testing.server import RoadsteadServer

SKIPS = tomllib.loads((Path(__file__).parent / "skips.toml").read_text())

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


def test_the_suite_of_1_1_fails_nowhere(
    server: RoadsteadServer, backend: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every workflow of the suite passes; what it skips, and why, is frozen in skips.toml."""
    report = run_suite(server.url, results=tmp_path / "results")

    with capsys.disabled():
        print(f"\nOCI suite 1.1 on {backend[0]}: {report}")
    assert report.failed == {}
    assert report.skipped.keys() == SKIPS["suite"].keys()
    assert report.status == 0
    assert report.passed.total() > 70, "the suite checked less than it can"


@pytest.mark.soak  # the program is in no package registry, so only those who brought it can run it
@pytest.mark.parametrize("version", ["1.1", "dev"])
def test_nothing_fails_and_no_new_skip_appears(
    server: RoadsteadServer,
    backend: tuple[str, str],
    version: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every check of the program passes; what is skipped is frozen in skips.toml."""
    report = run_conformance(server.host, version=version, results=tmp_path / "results")

    with capsys.disabled():
        print(f"\noci-conformance {version} on {backend[0]}: {report}")
    assert report.failed == {}
    assert report.skipped.keys() == SKIPS[version].keys()
    assert report.status == 0
    assert report.passed.total() > 800, "the program checked less than it can"
