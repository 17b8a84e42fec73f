"""Pages: what their policy allows, and what browsers are believed."""

import re
from base64 import b64encode
from hashlib import sha256

import pytest

from roadstead.auth.errors import CredentialsWrongError
from roadstead.errors import UnavailableError
from roadstead.http.asgi import Request
from roadstead.http.people import ATTEMPT, SESSION, AddressUnsafeError, Cookies, Front, PageForeignError, check_page
from roadstead.web.failure import respond
from roadstead.web.pages import rendered


def request(*headers: tuple[bytes, bytes], scheme: str = "http") -> Request:
    async def receive() -> dict[str, object]:
        raise AssertionError("nothing is read")

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": list(headers),
             "scheme": scheme, "client": ("127.0.0.1", 1)}  # fmt: skip
    return Request(scope, receive)


def test_the_policy_allows_the_one_style_and_nothing_that_runs() -> None:
    """By the digest of what stands on the page, byte for byte; what a name holds is text."""
    page = rendered("signed_out.html", root='/"><script>alert(1)</script>/')
    text, headers = page.body.decode(), dict(page.headers)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digest = b64encode(sha256(style[1].encode()).digest()).decode()

    policy = headers[b"content-security-policy"].decode()

    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    assert "<script" not in text
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"referrer-policy"] == b"same-origin"


def test_a_failure_is_told_with_what_to_try() -> None:
    """What isn't ours without detail, and what is for operators not at all."""
    assert respond(UnavailableError("the <b>issuer</b> is down")).status == 503
    assert b"The &lt;b&gt;issuer&lt;/b&gt; is down." in respond(UnavailableError("the <b>issuer</b> is down")).body
    assert b"rs_id" not in respond(CredentialsWrongError(because="the key rs_id is not good here (any more)")).body
    unknown = respond(ZeroDivisionError("of a secret"))
    assert (unknown.status, b"of a secret" in unknown.body) == (500, False)


PUBLIC = "https://registry.example"


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        ([(b"origin", b"https://registry.example")], PUBLIC),
        ([(b"origin", b"https://registry.example")], f"{PUBLIC}:443"),
        ([(b"origin", b"https://Registry.example"), (b"sec-fetch-site", b"same-origin")], PUBLIC),
        ([(b"sec-fetch-site", b"same-origin")], PUBLIC),
        ([(b"origin", b"http://localhost")], "http://localhost:80"),
    ],
)
def test_a_page_of_ours_is_believed(headers: list[tuple[bytes, bytes]], origin: str) -> None:
    """By either header, with or without the scheme's own port."""
    check_page(request(*headers), origin)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"origin", b"null"), (b"sec-fetch-site", b"same-origin")],
        [(b"origin", b"http://registry.example")],
        [(b"origin", b"https://registry.example:8443")],
        [(b"origin", b"https://registry.example.evil.example")],
        [(b"origin", b"https://registry.example"), (b"sec-fetch-site", b"same-site")],
        [(b"sec-fetch-site", b"none")],
    ],
)
def test_another_page_is_not(headers: list[tuple[bytes, bytes]]) -> None:
    """Nor one that doesn't say, nor where the two headers differ."""
    with pytest.raises(PageForeignError):
        check_page(request(*headers), PUBLIC)


def test_cookies_are_bound_to_the_host_over_tls() -> None:
    """By their name, so that no other host and no plain connection can put one there; on loopback they can't be."""
    sent = request((b"cookie", b"__Host-roadstead-session=one; roadstead-session=two"))
    over_tls, plain = Cookies(sent, PUBLIC), Cookies(sent, "http://127.0.0.1:5000")

    assert (over_tls.get(SESSION), plain.get(SESSION), plain.get(ATTEMPT)) == ("one", "two", None)
    twice = request((b"cookie", b"roadstead-session=one"), (b"cookie", b"roadstead-session=two"))
    assert Cookies(twice, "http://127.0.0.1:5000").get(SESSION) is None


@pytest.mark.parametrize("host", ["localhost:5000", "127.0.0.1:5000", "[::1]:5000", "LOCALHOST"])
def test_loopback_is_believed_without_a_public_address(host: str) -> None:
    """Since nobody else answers there."""
    assert Front().origin(request((b"host", host.encode()))) == f"http://{host.lower()}"


@pytest.mark.parametrize(
    "host",
    [
        "registry.example",
        "localhost.evil.example",
        "10.0.0.7",
        "",
        "localhost@evil.example",
        "evil@localhost",
        "localhost/evil",
        "[::1",
    ],
)
def test_no_other_host_is(host: str) -> None:
    """It would decide where browsers come back to."""
    with pytest.raises(AddressUnsafeError):
        Front().origin(request((b"host", host.encode())))
    assert Front(PUBLIC).origin(request((b"host", host.encode()))) == PUBLIC
