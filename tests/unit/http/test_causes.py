"""What an event says of the request it happened for."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from roadstead.events.event import UNPROMPTED
from roadstead.http.asgi import Request
from roadstead.http.causes import Telling, cause_of
from roadstead.http.forwarded import TrustedProxies

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def request(headers: Sequence[tuple[str, str]], client: tuple[str, int] | None = ("192.0.2.7", 4711)) -> Request:
    """Return a request with these headers."""

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "method": "PUT",
        "path": "/v2/a/manifests/v1",
        "query_string": b"",
        "scheme": "http",
        "client": client,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
    }
    return Request(scope, receive)


@pytest.mark.parametrize(
    ("headers", "client", "address"),
    [
        ([], ("192.0.2.7", 4711), "192.0.2.7:4711"),
        ([], ("::ffff:192.0.2.7", 4711), "192.0.2.7:4711"),
        ([], ("2001:db8::1", 4711), "[2001:db8::1]:4711"),
        ([], None, ""),
        ([("x-forwarded-for", "203.0.113.9, 10.0.0.1")], ("10.0.0.1", 1), "203.0.113.9"),
        ([("x-forwarded-for", " "), ("x-real-ip", "203.0.113.9")], ("10.0.0.1", 1), "203.0.113.9"),
        ([("x-forwarded-for", "2001:db8::9,10.0.0.1")], ("10.0.0.1", 1), "2001:db8::9"),
        *(
            ([("x-forwarded-for", said), ("x-real-ip", said)], ("10.0.0.1", 1), "10.0.0.1:1")
            for said in ("unknown", "1.2.3.4:5678", "<b>1</b>", "fe80::1%eth0", "1.2.3", "\xff\xfe", "9" * 32_000)
        ),
    ],
)
def test_where_it_came_from(headers: Sequence[tuple[str, str]], client: tuple[str, int] | None, address: str) -> None:
    """As proxies say, as far as it can be an address; else the other end with its port."""
    assert cause_of(request(headers, client), Telling(now=lambda: NOW)).address == address


@pytest.mark.parametrize(
    ("headers", "telling", "origin"),
    [
        ([("host", "r.example:5000")], Telling(now=lambda: NOW), "http://r.example:5000"),
        (
            [("host", "r.example"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "evil.example")],
            Telling(now=lambda: NOW),
            "http://r.example",
        ),
        (
            [("host", "r.example"), ("forwarded", 'for=192.0.2.1;proto=https;host="evil.example"')],
            Telling(now=lambda: NOW, prefix="/registry/"),
            "http://r.example/registry",
        ),
        (
            [("host", "inside"), ("x-forwarded-proto", "https")],
            Telling(now=lambda: NOW, origin="https://public.example"),
            "https://public.example",
        ),
    ],
)
def test_where_content_is_found(headers: Sequence[tuple[str, str]], telling: Telling, origin: str) -> None:
    """At the address that settings name, else at the one that the client used; nobody is believed another."""
    cause = cause_of(request(headers), telling)

    assert cause.origin == origin
    assert cause.host == headers[0][1]


@pytest.mark.parametrize("said", [[], [("host", 'a b/../"x\xff')], [("host", "h" * 300)]], ids=["none", "odd", "long"])
def test_a_host_that_is_none_leads_nowhere(said: Sequence[tuple[str, str]]) -> None:
    """An event says no host then, and not where the content is, unless settings do."""
    cause = cause_of(request([*said, ("user-agent", "u" * 900_000)]), Telling(now=lambda: NOW, prefix="/registry/"))

    assert (cause.host, cause.origin, cause.agent) == ("", "", "u" * 256)


def test_where_content_is_found_behind_a_proxy() -> None:
    """One that settings name is believed, as for Location and realm: it has told before anybody asks here."""
    asked = request([("host", "inside"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "r.example")])
    TrustedProxies.parse(["192.0.2.7"]).see_through(asked.scope)

    cause = cause_of(asked, Telling(now=lambda: NOW))

    assert (cause.origin, cause.host) == ("https://r.example", "r.example")


def test_nobody_to_tell() -> None:
    """Nothing is looked at."""
    assert cause_of(request([("host", "r.example")]), None) is UNPROMPTED
