"""The pure rules of asking other registries: where they are, who gets our credentials, what may be reached, when."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.errors import RoadsteadError
from roadstead.oci.digest import Digest
from roadstead.upstream.address import AddressInvalidError, RegistryAddress
from roadstead.upstream.client import fallback_tag
from roadstead.upstream.credentials import parse_given
from roadstead.upstream.egress import check_public
from roadstead.upstream.errors import AddressForbiddenError, BadAnswerError, CredentialsError
from roadstead.upstream.pages import next_page
from roadstead.upstream.proxies import Proxies
from roadstead.upstream.ratelimit import Budget, parse_budget
from roadstead.upstream.realm import belongs, check_realm
from roadstead.upstream.retry import Backoff, parse_retry_after
from roadstead.upstream.tokens import parse_token
from roadstead.upstream.transport import follow, masked, same_origin


@pytest.mark.parametrize(
    ("text", "host", "url"),
    [
        ("docker.io", "docker.io", "https://registry-1.docker.io"),
        ("index.docker.io", "docker.io", "https://registry-1.docker.io"),
        ("https://registry-1.docker.io/v2/", "docker.io", "https://registry-1.docker.io"),
        ("Quay.IO", "quay.io", "https://quay.io"),
        ("registry.test:5000", "registry.test:5000", "https://registry.test:5000"),
        ("plain.test", "plain.test", "http://plain.test"),
        ("http://registry.test/", "registry.test", "http://registry.test"),
        ("https://registry.test/v2", "registry.test", "https://registry.test"),
        ("localhost", "localhost", "http://localhost"),
        ("localhost:5000", "localhost:5000", "http://localhost:5000"),
        ("127.0.0.1:5000", "127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("[::1]:5000", "[::1]:5000", "http://[::1]:5000"),
        ("https://localhost:5000", "localhost:5000", "https://localhost:5000"),
        ("registry", "registry", "https://registry"),
    ],
)
def test_addresses(text: str, host: str, url: str) -> None:
    """A registry's name leads to its API: Docker Hub's elsewhere, loopback's without TLS."""
    address = RegistryAddress.parse(text, plain_http=["plain.test"])

    assert (address.host, address.url) == (host, url)


@pytest.mark.parametrize("text", ["", "https://", "ftp://a.test", "a.test/b", "a b.test", "a.test:99999", "u:p@a.test"])
def test_no_addresses(text: str) -> None:
    """What can't be an address is refused by name."""
    with pytest.raises(AddressInvalidError):
        RegistryAddress.parse(text)


def test_short_names_on_docker_hub() -> None:
    """A name of one component is an official image there, and only there."""
    assert str(RegistryAddress.parse("docker.io").repository("busybox")) == "library/busybox"
    assert str(RegistryAddress.parse("quay.io").repository("busybox")) == "busybox"


@pytest.mark.parametrize(
    ("registry", "realm", "right"),
    [
        ("https://registry-1.docker.io", "https://auth.docker.io/token", True),
        ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", True),
        ("https://a.test:5000", "https://a.test:5001/token", True),
        ("https://registry.corp.test", "https://sso.corp.test/t", True),
        ("https://registry.example.co.uk", "https://auth.example.co.uk/t", True),
        ("https://registry.example.co.uk", "https://evil.co.uk/t", False),
        ("https://one.github.io", "https://two.github.io/t", False),
        ("https://docker.io", "https://docker.io.evil.test/t", False),
        ("https://docker.io", "https://evildocker.io/t", False),
        ("https://10.0.0.1", "https://10.0.0.2/t", False),
        ("https://registry", "https://auth/t", False),
        ("https://vouched.test", "https://sso.other.test:8443/t", True),
    ],
)
def test_who_gets_credentials(registry: str, realm: str, right: bool) -> None:
    """Credentials go to token services of the registry's owner, and to those that were named (CVE-2026-33540)."""
    assert belongs(registry, realm, {"sso.other.test"}) is right


@pytest.mark.parametrize(
    "realm",
    ["http://auth.a.test/t", "ftp://auth.a.test/t", "/token", "", "https://u:p@auth.a.test/", "https://a.test:x/"],
)
def test_realms_that_are_none(realm: str) -> None:
    """A realm is an https address, where the registry was asked over TLS."""
    with pytest.raises(BadAnswerError):
        check_realm("a.test", "https://a.test", realm)


@pytest.mark.parametrize("there", ["https://127.0.0.1/t", "https://localhost/t", "https://169.254.169.254/t"])
def test_realms_on_this_machine(there: str) -> None:
    """A registry with a name can't send us to addresses that only we reach."""
    with pytest.raises(AddressForbiddenError):
        check_realm("a.test", "https://a.test", there)


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("/v2/x/blobs/uploads/1?_state=a%2Bb", "https://a.test/v2/x/blobs/uploads/1?_state=a%2Bb"),
        ("2?s", "https://a.test/v2/2?s"),
        ("https://cdn.test/x?sig=a%20b", "https://cdn.test/x?sig=a%20b"),
        ("http://a.test/v2/1", "https://a.test/v2/1"),
        ("//cdn.test/x", "https://cdn.test/x"),
        ("https://cdn.test/with space", "https://cdn.test/with%20space"),
    ],
)
def test_where_an_answer_leads(target: str, found: str) -> None:
    """Relative and absolute targets are followed as they are written; http to itself is meant as https."""
    assert follow("a.test", "https://a.test", "https://a.test/v2/", target) == found


@pytest.mark.parametrize("target", ["http://cdn.test/x", "file:///etc/passwd", "https://u:p@cdn.test/", "https://[/"])
def test_where_no_answer_leads(target: str) -> None:
    """Other schemes, plain http elsewhere, and addresses with users aren't followed."""
    with pytest.raises(BadAnswerError):
        follow("a.test", "https://a.test", "https://a.test/v2/", target)


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("https://a.test", "https://a.test:443/x", True),
        ("https://a.test", "http://a.test", False),
        ("https://a.test", "https://a.test:8443", False),
        ("https://a.test", "https://b.a.test", False),
    ],
)
def test_same_origin(one: str, two: str, same: bool) -> None:
    """Scheme, host and port make an origin."""
    assert same_origin(one, two) is same


def test_masked() -> None:
    """An address that is shown has no user and no signature."""
    shown = masked("https://u:p@a.test/x?digest=sha256:ab&X-Amz-Signature=secret&_state=#f")

    assert shown == "https://a.test/x?digest=sha256:ab&X-Amz-Signature=***&_state=***"


PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8"]
PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "fec0::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:0:1::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    """Addresses of the internet may be connected to."""
    check_public("a.test", address)


@pytest.mark.parametrize("address", PRIVATE)
def test_other_addresses(address: str) -> None:
    """Addresses of this machine, of private networks and of clouds' metadata may not, however they are written."""
    with pytest.raises(AddressForbiddenError):
        check_public("a.test", address)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        ("Sun, 22 Nov 2026 08:00:30 GMT", 30),
        ("Sun, 22 Nov 2026 07:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("١٢", None),
        (None, None),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    """Seconds and dates are understood, nothing else."""
    assert parse_retry_after(text, datetime(2026, 11, 22, 8, tzinfo=UTC)) == seconds


@given(st.integers(1, 20), st.one_of(st.none(), st.floats(0, 200)))
def test_waits_are_bounded(attempt: int, asked: float | None) -> None:
    """A wait is at least what was asked for, at most so much longer, and there is a last one."""
    backoff = Backoff()
    wait = backoff.wait_s(attempt, asked)

    if attempt >= backoff.attempts or (asked is not None and asked > backoff.patience_s):
        assert wait is None
    else:
        assert wait is not None
        assert (asked or 0) <= wait <= (asked or 0) + backoff.longest_s * (1 + backoff.jitter)


def test_budgets() -> None:
    """Docker Hub's headers say what is left, of how much, in which time."""
    assert parse_budget({"ratelimit-remaining": "97;w=21600", "ratelimit-limit": "100;w=21600"}) == Budget(
        97, 100, 21600
    )
    assert parse_budget({"ratelimit-remaining": "5"}) == Budget(5)
    assert parse_budget({"ratelimit-remaining": "many"}) is None
    assert parse_budget({}) is None


@pytest.mark.parametrize(("told", "seconds"), [("120", 120), ("120;w=60", 120), ("2000000100", 100), ("soon", None)])
def test_when_a_budget_is_full_again(told: str, seconds: int | None) -> None:
    """In seconds, as most say, or at a moment since 1970, as GitLab does."""
    budget = parse_budget({"ratelimit-remaining": "5", "ratelimit-reset": told}, now=2_000_000_000.5)
    assert budget is not None
    assert budget.reset_s == seconds


@pytest.mark.parametrize(
    ("remaining", "limit", "near"),
    [(0, None, True), (1, None, True), (2, None, False), (5, 100, True), (6, 100, False), (1, 10, True), (0, 0, True)],
)
def test_the_end_of_a_budget(remaining: int, limit: int | None, near: bool) -> None:
    """The last twentieth, and always the very last request."""
    assert Budget(remaining, limit).is_near_its_end is near


@pytest.mark.parametrize(
    ("lines", "target"),
    [
        (['</v2/a/tags/list?n=2&last=b>; rel="next"'], "/v2/a/tags/list?n=2&last=b"),
        (['</a>; rel="prev", </b>; title="x, y"; rel=next'], "/b"),
        (['</a>; rel="prev"', '</b>;rel="last next"'], "/b"),
        (["</a>"], None),
        (["</a>; rel=nextish"], None),
        ([], None),
    ],
)
def test_next_pages(lines: list[str], target: str | None) -> None:
    """The link whose relation is next says where a list goes on."""
    assert next_page(lines) == target


@given(st.text(max_size=200))
def test_any_link_is_read(text: str) -> None:
    """No header can make the reader fail."""
    next_page([text])


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://a.test/x", "http://secure.proxy:3128"),
        ("http://a.test/x", "http://any.proxy"),
        ("https://intern.test", None),
        ("https://x.intern.test", None),
        ("https://notintern.test", "http://secure.proxy:3128"),
        ("https://10.1.2.3", None),
        ("https://a.test:8443", None),
        ("http://localhost:5000", None),
        ("http://127.0.0.1", None),
    ],
)
def test_proxies(url: str, proxy: str | None) -> None:
    """The scheme's proxy is used, but for exceptions and this machine."""
    environment = {
        "HTTPS_PROXY": "http://secure.proxy:3128",
        "ALL_PROXY": "any.proxy",
        "no_proxy": ".intern.test, 10.0.0.0/8,a.test:8443",
    }

    assert Proxies.from_environment(environment).proxy_for(url) == proxy


def test_a_request_cannot_set_the_proxy() -> None:
    """In a CGI program HTTP_PROXY is a header that a client sent (CVE-2016-5385)."""
    assert Proxies.from_environment({"HTTP_PROXY": "evil.test", "REQUEST_METHOD": "GET"}).by_scheme == {}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"token": ""}', b'{"token": "a\\r\\nb"}', b'{"token": "a b"}'])
def test_tokens_that_are_none(body: bytes) -> None:
    """What can't be a token is an error, and never becomes a header."""
    with pytest.raises(BadAnswerError):
        parse_token("a.test", body, 0)


@pytest.mark.parametrize(
    ("body", "expires"),
    [
        (b'{"token": "t", "expires_in": 300}', 270),
        (b'{"access_token": "t", "expires_in": 100}', 90),
        (b'{"token": "t"}', 54),
        (b'{"token": "t", "expires_in": "soon"}', 54),
    ],
)
def test_tokens_end_early(body: bytes, expires: float) -> None:
    """A token is used until shortly before it ends; it lives a minute when nothing is said."""
    assert parse_token("a.test", body, 0).expires == expires


def test_given_credentials() -> None:
    """USER:PASSWORD is parted at the first colon, and what is wrong isn't repeated."""
    found = parse_given("ana:a:b")
    assert (found.username, found.secret.reveal()) == ("ana", "a:b")
    with pytest.raises(CredentialsError) as caught:
        parse_given("s3cret")
    assert "s3cret" not in str(caught.value)


def test_fallback_tags() -> None:
    """The tag that lists referrers is the digest's, cut to what a tag may be."""
    assert str(fallback_tag(Digest.of(b""))) == str(Digest.of(b"")).replace(":", "-")


def test_errors_are_one_line() -> None:
    """Every message fits on a line and names the registry."""
    for kind in (AddressForbiddenError("a.test", "10.0.0.1", "x"), BadAnswerError("a.test", "x")):
        assert isinstance(kind, RoadsteadError)
        assert str(kind).startswith("a.test: ")
