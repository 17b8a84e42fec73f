"""What an operator can ask for of the server as a whole, on real ones."""

import json
from contextlib import closing
from pathlib import Path

from roadstead.oci import mediatypes
from roadstead.testing.client import Client
from roadstead.testing.ports import free_port
from roadstead.testing.server import RoadsteadServer


def test_a_prefix_and_an_address(tmp_path: Path) -> None:
    """Everything lies below the prefix, and locations and links lead back by the public address.

    By that others come, and nobody has to sign in: the log says so.
    """
    config = """
        [server]
        prefix = "/registry/"
        public_url = "https://images.example"
        relative_urls = false
        headers = { X-Site = ["here"], Vary = ["Origin"] }
        [log]
        fields = { site = "here" }
        """
    with RoadsteadServer(tmp_path, config=config, workers=1) as server:
        client = server.client()
        started = client.post("/registry/v2/a/blobs/uploads/")
        unprefixed = client.get("/v2/")
        asked = client.request("OPTIONS", "/registry/v2/_catalog")
        assert client.get("/registry/readyz").status == 200
    requests = [line for line in server.log.splitlines() if " request " in line]
    [warned] = [line for line in server.log.splitlines() if " warning " in line]

    assert "nobody has to sign in" in warned
    assert "key=server.public_url" in warned
    assert started.status == 202
    assert started.headers["location"].startswith("https://images.example/registry/v2/a/blobs/uploads/")
    assert (unprefixed.status, unprefixed.headers["x-site"]) == (404, "here")
    assert (asked.status, asked.headers["allow"], asked.headers["vary"]) == (200, "GET, HEAD", "Origin")
    assert requests
    assert all("site=here" in line for line in requests)


def test_read_only(tmp_path: Path) -> None:
    """What was pushed is served, whatever would change anything is 405 with what is allowed."""
    with RoadsteadServer(tmp_path, workers=1) as server:
        digest = server.client().push_blob("a", b"blob")
    with RoadsteadServer(tmp_path, config="[registry]\nread_only = true\n", workers=1) as server:
        client = server.client()
        refused = [
            client.post("/v2/a/blobs/uploads/"),
            client.post(f"/v2/b/blobs/uploads/?mount={digest}&from=a"),
            client.put("/v2/a/manifests/1", b"{}", {"Content-Type": mediatypes.OCI_MANIFEST}),
            client.delete(f"/v2/a/blobs/{digest}"),
        ]
        assert client.get(f"/v2/a/blobs/{digest}").body == b"blob"

    assert {(answer.status, answer.code, answer.headers["allow"]) for answer in refused} == {
        (405, "UNSUPPORTED", "GET, HEAD")
    }


def test_numbers_and_health_at_an_address_of_their_own(tmp_path: Path) -> None:
    """They are there and nothing else is; a file takes the server out of rotation, and images are served on."""
    port = free_port()
    down = tmp_path / "down"
    config = f"""
        [server]
        down_files = ["{down}"]
        [metrics]
        listen = "127.0.0.1:{port}"
        path = "/numbers"
        """
    with RoadsteadServer(tmp_path, config=config, workers=1) as server, closing(Client(f"127.0.0.1:{port}")) as side:
        client = server.client()
        assert client.get("/v2/").status == 200
        numbers = side.get("/numbers").body.decode()
        checks = side.get("/debug/health")
        api = side.get("/v2/")
        down.touch()
        told = side.get("/debug/health")
        statuses = {path: client.get(path).status for path in ("/", "/readyz", "/healthz", "/v2/")}
        down.unlink()
        assert client.get("/readyz").status == 200

    assert 'process="worker-1"' in numbers
    assert (checks.status, checks.body, api.status) == (200, b"{}", 404)
    assert told.status == 503
    assert "down exists" in json.loads(told.body)["server"]
    assert statuses == {"/": 503, "/readyz": 503, "/healthz": 200, "/v2/": 200}
