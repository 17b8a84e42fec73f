"""People who sign in with a browser at an OpenID Connect issuer: the real server, with two workers, and a provider."""

import asyncio
import json
import subprocess
import sys
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from re import findall, search
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from roadstead.auth.api_keys import make_key
from roadstead.auth.caller import Action, RepositoryGlob, Scope
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.db.engine import open_database
from roadstead.oci.digest import Digest
from roadstead.testing.client import Answer, Client
from roadstead.testing.oidc_provider import Browser, OidcProvider, open_oidc_provider, path_of
from roadstead.testing.server import RoadsteadServer

CONFIG = """
[auth]
htpasswd = "users"

[auth.issue]

[auth.oidc]

[[auth.oidc.issuers]]
name = "corp"
display_name = "The company"
issuer = "ISSUER"
client_id = "roadstead"
client_secret = "of the registry: a secret"
groups_claim = "realm_access.roles"
allowed_groups = ["staff", "builders"]

[[auth.oidc.issuers]]
name = "partner"
issuer = "http://127.0.0.1:1"
client_id = "roadstead"
user_prefix = "partner-"
allow_all = true

[[auth.policies]]
subjects = ["group:builders"]
repositories = ["team/*"]
actions = ["pull", "push", "catalog"]

[[auth.policies]]
subjects = ["group:staff"]
repositories = ["team/*"]
actions = ["pull"]

[[auth.policies]]
subjects = ["group:admins"]
repositories = ["**"]
actions = ["admin"]
"""
ADMIN: dict[str, str] = {}
"""What an administrator signs in with, once the server runs."""


@pytest.fixture(scope="module")
def provider() -> Iterator[OidcProvider]:
    with open_oidc_provider() as running:
        yield running


@pytest.fixture(scope="module")
def server(provider: OidcProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoadsteadServer]:
    directory = tmp_path_factory.mktemp("people")
    (directory / "users").write_text("peter:$2b$04$abcdefghijklmnopqrstuuQKq5rDqIOkzWnVNBlNJmIUfNVbrhN9C\n")
    with RoadsteadServer(directory, config=CONFIG.replace("ISSUER", provider.url)) as running:
        ADMIN.update(Authorization=f"Bearer {asyncio.run(administrator(running))}")
        yield running


async def administrator(server: RoadsteadServer) -> str:
    """Add root, and return a key of theirs."""
    now = datetime.now(UTC)
    root = Principal(PrincipalKind.USER, "root", frozenset({"admins"}))
    made = make_key(root, Scope((RepositoryGlob("**"),), frozenset(Action)), now=now, expires_at=None)
    database = await open_database(f"sqlite:///{server.data}/roadstead.db", migrate=False)
    try:
        await database.accounts.put_account(root, None, replace=False, now=now)
        await database.accounts.put_key(made.row)
    finally:
        await database.close()
    return made.text.reveal()


def roadstead(server: RoadsteadServer, *words: str) -> str:
    command = [sys.executable, "-m", "roadstead", *words, str(server.directory / "roadstead.toml"), "--data",
               str(server.data)]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def knows(provider: OidcProvider, subject: str, name: str, *groups: str) -> None:
    provider.knows(subject, preferred_username=name, realm_access={"roles": list(groups)})


@pytest.fixture
def browser(server: RoadsteadServer) -> Browser:
    return new_browser(server)


def new_browser(server: RoadsteadServer, worker: int = 0) -> Browser:
    return Browser(server.client_of(server.workers[worker]), server.url)


def began(browser: Browser, onward: str = "") -> str:
    """Begin to sign in; return the issuer's address."""
    answer = browser.get(f"/auth/login?issuer=corp{onward}")
    assert answer.status == 303, answer.body
    return answer.headers["location"]


def signed_in(browser: Browser, provider: OidcProvider, subject: str, onward: str = "") -> Answer:
    """Sign in; return what the registry answers to the browser that comes back."""
    return browser.get(path_of(provider.agree(began(browser, onward), subject)))


def who(browser: Browser) -> Any:
    return browser.get("/auth/session").json()


def basic(name: str, secret: str) -> Mapping[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{name}:{secret}'.encode()).decode()}"}


def lines(client: Client, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/api/v1/audit?{query}", ADMIN).json()["lines"]
    return found


def test_somebody_signs_in_makes_a_key_and_pushes_with_it(server: RoadsteadServer, provider: OidcProvider) -> None:
    """What one worker began another finishes; the key is shown once, and good for what their groups allow."""
    knows(provider, "s-ana", "ana", "builders", "unknown")
    browser = new_browser(server)
    assert browser.get("/account").headers["location"] == "/auth/login?next=/account"
    asked = {name: values[0] for name, values in parse_qs(urlsplit(began(browser)).query).items()}
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    assert asked["redirect_uri"] == f"{server.url}/auth/callback"
    assert set(asked["scope"].split()) == {"openid", "profile", "email"}
    back = provider.agree(began(browser), "s-ana")
    browser.client = server.client_of(server.workers[1])

    answer = browser.get(path_of(back))

    assert (answer.status, answer.headers["location"]) == (303, "/account")
    (cookie,) = [line for line in answer.every("set-cookie") if line.startswith("roadstead-session=")]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert who(browser) | {"since": 0, "expires_at": 0} == {
        "signed_in": True, "name": "ana", "groups": ["builders", "unknown"], "issuer": provider.url, "since": 0,
        "expires_at": 0,
    }  # fmt: skip
    page = browser.get("/account")
    assert f"docker login --username ana {server.host}" in page.body.decode()
    assert "default-src 'none'" in page.headers["content-security-policy"]
    form = {"description": "<laptop>", "action": ["pull", "push"], "repositories": "team/*", "days": "30"}
    made = browser.post("/account/keys", form)
    (secret,) = set(findall(r"rs_[a-z2-7]{16}_[a-z2-7]{32}", made.body.decode()))
    assert secret not in browser.get("/account").body.decode()
    assert "&lt;laptop&gt;" in browser.get("/account").body.decode()
    client, ana = server.client(), basic("ana", secret)
    blob = b"of ana"
    pushed = client.post(f"/v2/team/app/blobs/uploads/?digest={Digest.of(blob)}", blob, ana)
    assert pushed.status == 201
    assert client.post("/v2/other/app/blobs/uploads/", None, ana).status == 403
    token = client.get("/auth/token?scope=repository:team/app:pull,push", ana)
    assert token.status == 200
    assert client.get("/v2/_catalog", basic("anna", secret)).status == 401
    told = [line["action"] for line in lines(client, "subject=user:ana") if line["outcome"] == "done"]
    assert told == ["key.create", "sign-in", "user.add"]

    key_id = secret.split("_")[1]
    assert browser.post("/account/keys/revoke", {"key": key_id}).status == 303
    assert client.get("/v2/", ana).status == 401
    assert "key.revoke" in [line["action"] for line in lines(client, "subject=user:ana")]


def test_a_cookie_is_nothing_to_docker(server: RoadsteadServer, browser: Browser, provider: OidcProvider) -> None:
    """Neither `/v2/` nor the token server look at it; the API does."""
    knows(provider, "s-bea", "bea", "builders")
    signed_in(browser, provider, "s-bea")

    assert browser.get("/v2/").status == 401
    assert browser.get("/v2/team/app/tags/list").status == 401
    token = browser.get("/auth/token?scope=repository:team/app:pull,push").json()["token"]
    claims = token.split(".")[1]
    assert json.loads(_decoded(claims)).get("access") in ([], None)
    assert browser.get("/api/v1/repositories").status == 200
    assert browser.get("/api/v1/keys").json() == {"keys": [], "next": None}
    assert browser.get("/api/v1/users").status == 403


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_the_api_makes_keys_of_ones_own(server: RoadsteadServer, browser: Browser, provider: OidcProvider) -> None:
    """Not for others, not for what one may do nowhere, and not by means of a key."""
    knows(provider, "s-cem", "cem", "staff")
    signed_in(browser, provider, "s-cem")
    own = {"Origin": server.url, "Content-Type": "application/json"}

    def ask(body: Any, headers: Mapping[str, str] = own) -> Answer:
        return browser.send("POST", "/api/v1/keys", json.dumps(body).encode(), headers)

    made = ask({"actions": ["pull"]})
    assert made.status == 201, made.body
    assert made.json()["key"]["owner"] == "user:cem"
    assert ask({"actions": ["pull", "push"]}).status == 403
    assert ask({"owner": "root"}).status == 403
    key = basic("cem", made.json()["secret"])
    assert server.client().post("/api/v1/keys", b"{}", {**key, "Content-Type": "application/json"}).status == 403
    assert server.client().get("/api/v1/keys", key).status == 403
    key_id = made.json()["key"]["id"]
    assert [shown["id"] for shown in browser.get("/api/v1/keys").json()["keys"]] == [key_id]
    assert browser.send("DELETE", f"/api/v1/keys/{'a' * 16}", None, own).status == 404
    assert browser.send("DELETE", f"/api/v1/keys/{key_id}", None, own).status == 204
    assert server.client().get("/v2/", key).status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "OWN", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://OWN-HOST"},
    ],
)
def test_another_pages_requests_change_nothing(
    server: RoadsteadServer, provider: OidcProvider, headers: Mapping[str, str]
) -> None:
    """Whatever they send along: no key is made, none is revoked, nobody is signed out (CSRF)."""
    browser = new_browser(server)
    knows(provider, "s-dan", "dan", "builders")
    signed_in(browser, provider, "s-dan")
    sent = {name: value.replace("OWN-HOST", server.host).replace("OWN", server.url) for name, value in headers.items()}
    form = {"description": "", "action": "pull", "repositories": "**", "days": "30"}

    answers = [
        browser.post("/account/keys", form, sent),
        browser.post("/auth/logout", {}, sent),
        browser.send("POST", "/api/v1/keys", b"{}", {"Content-Type": "application/json", **sent}),
    ]

    assert [answer.status for answer in answers] == [403, 403, 403]
    assert who(browser)["signed_in"]
    assert browser.get("/api/v1/keys").json()["keys"] == []


def test_signing_out_counts_in_every_worker(server: RoadsteadServer, provider: OidcProvider) -> None:
    """At once, also for somebody who has kept the cookie; and a new sign-in ends the session before it."""
    knows(provider, "s-eve", "eve", "staff")
    browser = new_browser(server)
    signed_in(browser, provider, "s-eve")
    thieves = [Browser(server.client_of(worker), server.url, dict(browser.cookies)) for worker in server.workers]
    assert [who(thief)["signed_in"] for thief in thieves] == [True, True]

    assert browser.post("/auth/logout", {}).status == 200

    assert [who(thief)["signed_in"] for thief in (browser, *thieves)] == [False] * 3
    signed_in(browser, provider, "s-eve")
    kept = Browser(server.client(), server.url, dict(browser.cookies))
    signed_in(browser, provider, "s-eve")
    assert [who(one)["signed_in"] for one in (browser, kept)] == [True, False]
    assert "sign-out" in [line["action"] for line in lines(server.client(), "subject=user:eve")]


def test_what_was_used_is_not_taken_again(server: RoadsteadServer, browser: Browser, provider: OidcProvider) -> None:
    """The same answer of the issuer signs in once, and only the browser that has begun; the page says what to try."""
    knows(provider, "s-fay", "fay", "staff")
    back = path_of(provider.agree(began(browser), "s-fay"))
    attempt = dict(browser.cookies)
    stranger = new_browser(server)
    began(stranger)  # its own

    assert browser.get(back).status == 303
    replayed = Browser(server.client(), server.url, attempt).get(back)
    for answer in (replayed, stranger.get(back), new_browser(server).get(back)):
        assert answer.status in (400, 403)
        assert "Begin again" in answer.body.decode()
        assert "roadstead-session" not in str(answer.every("set-cookie"))
    tampered = back.replace("state=", "state=x")
    assert Browser(server.client(), server.url, attempt).get(tampered).status == 400


@pytest.mark.parametrize(
    "onward",
    ["//evil.example", "https://evil.example", "/\\evil.example", "/%09/evil.example", "/\t/evil.example",
     "javascript:alert(1)", "", "account", "/a b", "/\n/evil.example"],
)  # fmt: skip
def test_nobody_is_sent_elsewhere(
    server: RoadsteadServer, browser: Browser, provider: OidcProvider, onward: str
) -> None:
    """`next` is a path of the registry's own, or isn't taken."""
    knows(provider, "s-gus", "gus", "staff")

    answer = signed_in(browser, provider, "s-gus", f"&next={quote(onward, safe='')}")

    assert answer.headers["location"] in ("/account", "/%09/evil.example")


def test_somebody_goes_on_to_where_they_were(browser: Browser, provider: OidcProvider) -> None:
    """Where that is ours."""
    knows(provider, "s-gus", "gus", "staff")

    answer = signed_in(browser, provider, "s-gus", "&next=/api/v1/keys%3Fn%3D1")

    assert answer.headers["location"] == "/api/v1/keys?n=1"


def refused(browser: Browser, provider: OidcProvider, subject: str) -> str:
    answer = signed_in(browser, provider, subject)
    assert answer.status in (403, 409), answer.body
    assert not who(browser)["signed_in"]
    said = search(r'role="alert">([^<]+)', answer.body.decode())
    assert said is not None
    return said[1]


def test_who_may_not_come_in_is_told_why(server: RoadsteadServer, browser: Browser, provider: OidcProvider) -> None:
    """No group that may, a name that can't be one here, and those who say no; it is in both logs."""
    knows(provider, "s-hal", "hal", "guests")
    assert "in none of the groups" in refused(browser, provider, "s-hal")
    knows(provider, "s-ian", "Ian of York", "staff")
    assert "can&#39;t be a name" in refused(browser, provider, "s-ian")

    declined = browser.get(path_of(provider.decline(began(browser))))

    assert (declined.status, "did not sign you in" in declined.body.decode()) == (403, True)
    assert "sign-in refused" in server.log


def test_nobody_becomes_somebody_else(server: RoadsteadServer, provider: OidcProvider) -> None:
    """A name of an account, of a line of htpasswd, of somebody else at the issuer, or of another issuer's is taken."""
    knows(provider, "s-root", "root", "staff", "admins")
    assert "belongs to somebody else" in refused(new_browser(server), provider, "s-root")
    knows(provider, "s-peter", "peter", "staff")
    assert "belongs to somebody else" in refused(new_browser(server), provider, "s-peter")
    knows(provider, "s-partner", "partner-kim", "staff")
    assert "another issuer" in refused(new_browser(server), provider, "s-partner")
    knows(provider, "s-jo", "jo", "staff")
    first = new_browser(server)
    signed_in(first, provider, "s-jo")
    knows(provider, "s-other-jo", "jo", "staff")
    assert "belongs to somebody else" in refused(new_browser(server), provider, "s-other-jo")
    knows(provider, "s-jo", "somebody-else-now", "staff")
    again = new_browser(server)
    signed_in(again, provider, "s-jo")
    assert who(again)["name"] == "jo"


def test_groups_are_those_of_the_last_sign_in(server: RoadsteadServer, provider: OidcProvider) -> None:
    """A key that was made before is good for what they allow now."""
    knows(provider, "s-kim", "kim", "builders")
    browser, client = new_browser(server), server.client()
    signed_in(browser, provider, "s-kim")
    made = browser.post(
        "/account/keys", {"description": "", "action": ["pull", "push"], "repositories": "", "days": "7"}
    )
    found = search(r"rs_[a-z2-7]{16}_[a-z2-7]{32}", made.body.decode())
    assert found is not None
    kim = basic("kim", found[0])
    assert client.post("/v2/team/app/blobs/uploads/", None, kim).status == 202

    knows(provider, "s-kim", "kim", "staff")
    signed_in(new_browser(server), provider, "s-kim")

    assert client.post("/v2/team/app/blobs/uploads/", None, kim).status == 403
    assert client.get("/v2/team/app/tags/list", kim).status in (200, 404)
    assert who(browser)["groups"] == ["staff"]


def test_a_disabled_person_is_out_at_once(server: RoadsteadServer, provider: OidcProvider) -> None:
    """Their sessions, their keys and their tokens, in every worker; they don't come in again until they are enabled."""
    knows(provider, "s-lea", "lea", "builders")
    browser, client = new_browser(server), server.client()
    signed_in(browser, provider, "s-lea")
    made = browser.send("POST", "/api/v1/keys", b"{}", {"Origin": server.url, "Content-Type": "application/json"})
    lea = basic("lea", made.json()["secret"])
    token = client.get("/auth/token?scope=repository:team/app:pull", lea).json()["token"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert client.get("/v2/", bearer).status == 200
    body, kind = json.dumps({"disabled": True}).encode(), {"Content-Type": "application/json"}

    assert client.patch("/api/v1/users/lea", body, {**ADMIN, **kind}).json()["disabled"] is True

    clients = [server.client_of(worker) for worker in server.workers]
    assert [one.get("/v2/", headers).status for one in clients for headers in (lea, bearer)] == [401] * 4
    assert [who(Browser(one, server.url, dict(browser.cookies)))["signed_in"] for one in clients] == [False, False]
    assert "is disabled" in client.get("/v2/", lea).body.decode()
    assert "is disabled" in refused(new_browser(server), provider, "s-lea")
    roadstead(server, "user", "enable", "lea")
    client = server.client()  # the others may have been idle for too long
    assert client.get("/v2/", lea).status == 200
    assert not who(Browser(client, server.url, dict(browser.cookies)))["signed_in"]
    put = client.post("/api/v1/users", json.dumps({"name": "lea", "replace": True, "password": "x"}).encode(),
                      {**ADMIN, **kind})  # fmt: skip
    assert (put.status, "signs in at" in put.body.decode()) == (409, True)
    told = [line["action"] for line in lines(client, "subject=user:root")]
    assert "user.disable" in told


def test_an_issuer_that_is_down_is_told_so(server: RoadsteadServer, browser: Browser) -> None:
    """503 with what to do meanwhile; keys go on, and so does the other issuer."""
    answer = browser.get("/auth/login?issuer=partner")

    assert (answer.status, "Keys that you have go on working" in answer.body.decode()) == (503, True)
    choose = browser.get("/auth/login?next=/account").body.decode()
    assert "The company" in choose
    assert "auth/login?issuer=partner&amp;next=/account" in choose
    assert browser.get("/auth/login?issuer=nobody").status == 400


def test_a_foreign_host_is_not_believed(server: RoadsteadServer) -> None:
    """Without a public address the Host header decides where browsers come back to, so only loopback is taken."""
    answer = server.client().get("/auth/login?issuer=corp", {"Host": "evil.example"})

    assert answer.status == 400
    assert "server.public_url" in answer.body.decode()
