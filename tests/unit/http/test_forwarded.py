"""Who really asks, behind proxies."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.http.forwarded import TrustedProxies, parse_address

PROXIES = TrustedProxies.parse(["10.0.0.0/8", "fd00::/8", "127.0.0.1"])
Headers = Sequence[tuple[bytes, bytes]]


def seen(headers: Headers, peer: str = "10.0.0.1") -> tuple[str, str, str]:
    """Return the client, the scheme and the host that a request is taken to have."""
    scope = {"client": (peer, 4711), "scheme": "http", "headers": [(b"host", b"inner"), *headers]}
    PROXIES.see_through(scope)
    [host] = [value for name, value in scope["headers"] if name == b"host"]  # type: ignore[misc]
    return str(scope["client"][0]), str(scope["scheme"]), host.decode()  # type: ignore[index]


def x(addresses: str = "", scheme: str = "", host: str = "") -> Headers:
    named = {b"x-forwarded-for": addresses, b"x-forwarded-proto": scheme, b"x-forwarded-host": host}
    return [(name, text.encode()) for name, text in named.items() if text]


def f(*texts: str) -> Headers:
    return [(b"forwarded", text.encode("latin-1")) for text in texts]


NOTHING = ("10.0.0.1", "http", "inner")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], NOTHING),
        (x("1.2.3.4", "https", "r.test"), ("1.2.3.4", "https", "r.test")),
        (x("1.2.3.4"), ("1.2.3.4", "http", "inner")),
        (x(scheme="https"), ("10.0.0.1", "https", "inner")),
        (x("1.2.3.4:5678", "HTTPS", "r.test:5000"), ("1.2.3.4", "https", "r.test:5000")),
        (x("[2001:db8::1]:443"), ("2001:db8::1", "http", "inner")),
        (x("::ffff:1.2.3.4"), ("1.2.3.4", "http", "inner")),
        # What the client wrote itself, before the nearest proxy added where it came from.
        (x("9.9.9.9, 1.2.3.4", "http, https"), ("1.2.3.4", "https", "inner")),
        (x("10.9.9.9, 1.2.3.4"), ("1.2.3.4", "http", "inner")),
        # Two proxies of ours.
        (x("1.2.3.4, 10.0.0.2", "https, http", "r.test, inner2"), ("1.2.3.4", "https", "r.test")),
        (x("9.9.9.9, 1.2.3.4, 10.0.0.2"), ("1.2.3.4", "http", "inner")),
        (x("10.0.0.3, 10.0.0.2"), ("10.0.0.3", "http", "inner")),
        (x("9.9.9.9, unknown"), NOTHING),
        (x("1.2.3.4", "javascript", "a/b"), ("1.2.3.4", "http", "inner")),
        (x("1.2.3.4", "https", "r.test\\evil"), ("1.2.3.4", "https", "inner")),
        (f("for=1.2.3.4;proto=https;host=r.test"), ("1.2.3.4", "https", "r.test")),
        (f('For="[2001:db8::1]:4711"; Proto=https'), ("2001:db8::1", "https", "inner")),
        (f("for=9.9.9.9;host=evil, for=1.2.3.4;host=r.test"), ("1.2.3.4", "http", "r.test")),
        (f("for=9.9.9.9", "for=1.2.3.4", "for=10.0.0.2"), ("1.2.3.4", "http", "inner")),
        (f('for="_hidden, x", for=1.2.3.4'), ("1.2.3.4", "http", "inner")),
        (f("for=_hidden;proto=https"), ("10.0.0.1", "https", "inner")),
        (f("nonsense"), NOTHING),
        (f("nonsense, for=1.2.3.4;"), ("1.2.3.4", "http", "inner")),
        (f("", "for=1.2.3.4 ; proto=https ,"), ("1.2.3.4", "https", "inner")),
        (f('by="a\\"b,";for=1.2.3.4'), ("1.2.3.4", "http", "inner")),
        # A quote that the client opened and the proxy's own one closes.
        (f('for=9.9.9.9;x=", for="[2001:db8::1]"'), ("2001:db8::1", "http", "inner")),
        (f('for=9.9.9.9;x="', 'for="1.2.3.4:80";proto=https'), ("1.2.3.4", "https", "inner")),
        (f('for=9.9.9.9;x=", for=1.2.3.4'), ("1.2.3.4", "http", "inner")),
        (f('for=9.9.9.9;x="\\, for="[2001:db8::1]"'), ("2001:db8::1", "http", "inner")),
        (f('for=9.9.9.9;x=", for="[2001:db8::1]", for=10.0.0.2'), ("2001:db8::1", "http", "inner")),
        (f("for=9.9.9.9, host=a b, for=1.2.3.4, for=10.0.0.2"), ("1.2.3.4", "http", "inner")),
        # Proxies that write the one kind hand on what a client wrote in the other.
        ([*f("for=9.9.9.9;host=evil"), *x("1.2.3.4", "https")], ("1.2.3.4", "https", "inner")),
        ([*f("for=9.9.9.9;host=evil"), *x(scheme="https")], ("10.0.0.1", "https", "inner")),
    ],
)
def test_what_trusted_proxies_say(headers: Headers, expected: tuple[str, str, str]) -> None:
    """The nearest proxies' words count, as far as one trusts them, and no further."""
    assert seen(headers) == expected


@pytest.mark.parametrize(
    "filling", ["a", " ", '"', '"\\', "a=", "a=b;", "a=b,", ",", ";", '="', 'a="', "9", "9.", "1.2.3.4,", "[", "\t\xa0"]
)
def test_long_ones_are_read_from_their_end(filling: str) -> None:
    """In one go: to come back to each character for each other one would take hours here."""
    long = filling * (1_000_000 // len(filling))
    assert seen(f(long + ", for=1.2.3.4;proto=https")) == ("1.2.3.4", "https", "inner")
    assert seen([(b"x-forwarded-for", f"{long}, 1.2.3.4".encode("latin-1"))])[0] == "1.2.3.4"
    assert seen([(name, long.encode("latin-1")) for name in (b"x-forwarded-proto", b"x-forwarded-host")]) == NOTHING
    assert parse_address(seen(f(long))[0]) is not None


@pytest.mark.parametrize("peer", ["11.0.0.1", "192.168.1.1", "2001:db8::1", "unix"])
def test_nobody_else_is_listened_to(peer: str) -> None:
    """From an address that isn't named the headers say nothing."""
    assert seen(x("1.2.3.4", "https", "evil.test"), peer) == (peer, "http", "inner")
    assert seen(f("for=1.2.3.4;proto=https;host=evil.test"), peer) == (peer, "http", "inner")


@pytest.mark.parametrize("peer", ["::ffff:10.0.0.1", "fd00::1", "127.0.0.1"])
def test_proxies_by_every_kind_of_address(peer: str) -> None:
    """IPv4 on a socket for both, IPv6, and single addresses are found in the networks."""
    assert seen(x("1.2.3.4"), peer)[0] == "1.2.3.4"


@given(st.text(), st.text(), st.text())
def test_whatever_is_written_does_no_harm(addresses: str, scheme: str, host: str) -> None:
    """The scheme is one of two, the host one that could be, the client an address."""
    values = [(n, t.encode("latin-1", "replace")) for n, t in ((b"x-forwarded-for", addresses), (b"forwarded", host))]
    client, found, name = seen([*values, (b"x-forwarded-proto", scheme.encode("latin-1", "replace"))])

    assert parse_address(client) is not None
    assert found in ("http", "https")
    assert "\n" not in name
    assert "/" not in name
