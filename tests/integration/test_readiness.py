"""What is in the way of serving is told: at the start, by /readyz, and in the log."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from roadstead.testing.ports import free_port
from roadstead.testing.seaweedfs import SeaweedFS
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import ServerNotReadyError, wait_until

CONFIG = """
[storage]
driver = "s3"
bucket = "{bucket}"
endpoint = "{endpoint}"
region = "{region}"
access_key = "{access_key}"
secret_key = "{secret_key}"

[database]
url = "{database}"
"""


@pytest.fixture
def facts(postgres_url: str, seaweedfs: SeaweedFS) -> dict[str, str]:
    """Settings with which everything answers."""
    return {
        "bucket": seaweedfs.create_bucket(),
        "endpoint": seaweedfs.endpoint,
        "region": seaweedfs.region,
        "access_key": seaweedfs.access_key,
        "secret_key": seaweedfs.secret_key,
        "database": postgres_url,
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"secret_key": "wrong"}, "SignatureDoesNotMatch"), ({"endpoint": f"http://127.0.0.1:{free_port()}"}, "answer")],
    ids=["wrong-key", "nothing-there"],
)
def test_a_store_that_refuses_us_stops_the_start(
    tmp_path: Path, facts: dict[str, str], change: dict[str, str], reason: str
) -> None:
    """In one line with the store's reason, not as a server that answers every push with 503."""
    server = RoadsteadServer(tmp_path, config=CONFIG.format(**facts | change))

    with pytest.raises(ServerNotReadyError) as caught:
        server.start()

    assert reason in caught.value.log_tail
    assert "Traceback" not in caught.value.log_tail


def test_a_store_that_answers_is_ready(tmp_path: Path, facts: dict[str, str]) -> None:
    """With the right facts the same configuration serves."""
    with RoadsteadServer(tmp_path, config=CONFIG.format(**facts)) as server:
        assert server.client().get("/readyz").status == 200


def test_a_directory_that_went_away_is_told_by_readyz_and_the_log(tmp_path: Path) -> None:
    """Load balancers send nobody here while pushes would fail; the operator reads why, without a traceback."""
    with RoadsteadServer(tmp_path) as server:
        client = server.client()
        assert wait_until(lambda: has_all_open(server), timeout=timedelta(seconds=30))
        (server.data / "docker").rename(tmp_path / "elsewhere")

        answer = client.get("/readyz")

        (tmp_path / "elsewhere").rename(server.data / "docker")
        assert (answer.status, answer.code) == (503, "UNAVAILABLE")
        assert str(tmp_path).encode() not in answer.body
        assert client.get("/readyz").status == 200
    [line] = [line for line in server.log.splitlines() if "request not served" in line]
    assert f"{server.data}/docker" in line
    assert "Traceback" not in server.log


def has_all_open(server: RoadsteadServer) -> bool:
    """Say whether each process has made what folders it needs: the last is the one of the background, with its lease.

    One that is still about to would make the folder that went away.
    """
    with closing(sqlite3.connect(f"file:{server.data}/roadstead.db?mode=ro", uri=True)) as database:
        (held,) = database.execute("SELECT count(*) FROM leases").fetchone()
    return held == 1 and "listens at" in server.log
