"""Addresses to listen at."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.settings.address import AddressInvalidError, ListenAddress


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:5000", "127.0.0.1", 5000, True),
        ("127.8.8.8:1", "127.8.8.8", 1, True),
        ("localhost:0", "localhost", 0, True),
        ("[::1]:5000", "::1", 5000, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("[::]:80", "::", 80, False),
        ("registry.example:443", "registry.example", 443, False),
    ],
)
def test_addresses(text: str, host: str, port: int, *, loopback: bool) -> None:
    """Host and port are told apart, and whether others can reach them."""
    address = ListenAddress.parse(text)

    assert address == ListenAddress(host, port)
    assert address.is_loopback is loopback
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("5000", "HOST:PORT"),
        (":5000", "0.0.0.0:5000 is every interface"),
        ("host:", "a port from 0 to 65535"),
        ("host:65536", "a port from 0 to 65535"),
        ("host:-1", "a port from 0 to 65535"),
        ("::1:5000", "HOST:PORT"),
        ("[::x]:5000", "an IPv6 address between the brackets"),
        ("ho st:5000", "HOST:PORT"),
        ("host:٣", "a port from 0 to 65535"),
    ],
)
def test_no_addresses(text: str, told: str) -> None:
    """A refusal says what was expected."""
    with pytest.raises(AddressInvalidError) as refused:
        ListenAddress.parse(text)
    assert told in str(refused.value)


@given(st.ip_addresses(), st.integers(min_value=0, max_value=65_535))
def test_ip_addresses_come_back(ip: IPv4Address | IPv6Address, port: int) -> None:
    """What is written is read as the same."""
    address = ListenAddress(str(ip), port)

    assert ListenAddress.parse(str(address)) == address
