"""Whether others reach a registry in which nobody has to sign in, as settings tell it."""

from pathlib import Path

import pytest

from roadstead.settings.load import load_unchecked
from roadstead.settings.openness import open_behind_a_proxy

PUBLIC = {"server.public_url": "https://registry.example.com"}
PROXY = {"server.trusted_proxies": ["127.0.0.1"]}
EVERYBODY = [{"subjects": ["everyone"], "repositories": ["**"], "actions": ["pull", "push"]}]


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (PUBLIC, "server.public_url"),
        ({"server.public_url": "http://192.0.2.7:5000"}, "server.public_url"),
        ({**PUBLIC, "auth.accounts": False}, "server.public_url"),
        (PROXY, "server.trusted_proxies"),
        ({**PROXY, "server.public_url": "http://localhost:5000"}, "server.trusted_proxies"),
        ({}, None),
        ({"server.public_url": "http://LOCALHOST:5000"}, None),
        ({"server.public_url": "http://127.0.0.2"}, None),
        ({"server.public_url": "http://registry.localhost:5000"}, None),
        ({"server.public_url": "https://[::1]:5000/"}, None),
        ({**PUBLIC, **PROXY, "server.open_to_network": True}, None),
        ({**PUBLIC, "registry.read_only": True}, None),
        ({**PUBLIC, "auth.accounts": True}, None),
        ({**PUBLIC, "auth.htpasswd": "users"}, None),
        ({**PUBLIC, "auth.policies": EVERYBODY}, None),
        ({**PUBLIC, "server.listen": "0.0.0.0:5000"}, None),
    ],
)
def test_what_is_open_through_a_proxy(overrides: dict[str, object], key: str | None, tmp_path: Path) -> None:
    """Where clients come from elsewhere, may write, and nobody has said that this is meant; of another port than a
    loopback one it is told otherwise.
    """
    settings = load_unchecked(None, environment={}, overrides=overrides, directory=tmp_path).settings

    finding = open_behind_a_proxy(settings)

    assert (None if finding is None else finding.key) == key
    assert finding is None or "server.open_to_network = true" in (finding.advice or "")
