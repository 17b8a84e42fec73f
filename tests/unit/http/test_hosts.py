"""The names by which a server may be called."""

import pytest

from roadstead.http.asgi import Request
from roadstead.http.hosts import Hosts, HostUnknownError

HOSTS = Hosts.parse(["Registry.example.com", "inner:5000", "[2001:db8::1]"], "https://public.example.com:8443")


def is_known(host: str | None) -> bool:
    headers = [] if host is None else [(b"host", host.encode("latin-1"))]
    scope = {"method": "GET", "path": "/v2/", "headers": headers}
    assert HOSTS is not None
    try:
        HOSTS.check(Request(scope, None))  # type: ignore[arg-type]
    except HostUnknownError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("registry.example.com", True),
        ("REGISTRY.EXAMPLE.COM:444", True),
        ("inner:5000", True),
        ("inner", False),
        ("inner:5001", False),
        ("[2001:db8::1]", True),
        ("[2001:db8::1]:5000", True),
        ("[2001:db8::2]:5000", False),
        ("public.example.com:8443", True),
        ("public.example.com", False),
        ("registry.example.com.evil.test", False),
        ("evil.test:registry.example.com", False),
        ("registry.example.com:", False),
        ("", False),
        (None, False),
    ],
)
def test_names(host: str | None, expected: bool) -> None:
    """Whatever their case; without a port any is good, with one that one; the public address is among them."""
    assert is_known(host) is expected


def test_without_names_any_is_good() -> None:
    """Whatever the public address is."""
    assert Hosts.parse([], "https://public.example.com") is None
