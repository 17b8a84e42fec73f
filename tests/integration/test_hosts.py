"""A server that is called by names of its own alone."""

import json
from pathlib import Path

import bcrypt

from roadstead.testing.server import RoadsteadServer

CONFIG = """
[server]
hosts = ["registry.test"]

[auth]
htpasswd = "users"
issue = {}
"""


def test_who_calls_it_otherwise_is_sent_nowhere(tmp_path: Path) -> None:
    """Nobody is told of a token server at a name that isn't ours; load balancers ask by address."""
    (tmp_path / "users").write_text(f"ana:{bcrypt.hashpw(b'of ana', bcrypt.gensalt(4)).decode()}\n")
    with RoadsteadServer(tmp_path, config=CONFIG) as server, server.client() as client:
        known = client.get("/v2/", {"Host": "Registry.test:5000"})
        others = [
            client.get(path, {"Host": "evil.test"})
            for path in ("/v2/", "/v2/team/app/tags/list", "/auth/token?service=registry.test", "/api/v1/repositories")
        ]
        health = [client.get(path).status for path in ("/healthz", "/readyz", "/")]

    assert 'realm="http://Registry.test:5000/auth/token"' in known.headers["www-authenticate"]
    assert [(other.status, other.headers.get("www-authenticate")) for other in others] == [(421, None)] * 4
    assert json.loads(others[0].body)["errors"][0]["code"] == "UNSUPPORTED"
    assert health == [200, 200, 200]
