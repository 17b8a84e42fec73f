"""The API over HTTP, and the audit log of what it and the command line do: the real server, with two workers."""

import json
import sqlite3
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.integration.api import ADMIN, ANA, JSON, Guarded

from roadstead.oci.digest import Digest
from roadstead.testing.client import Client
from roadstead.testing.images import make_artifact
from roadstead.testing.server import RoadsteadServer


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    config = "[auth]\naccounts = true\n\n[[events.endpoints]]\nname = 'nobody'\nurl = 'http://127.0.0.1:9'\n"
    with RoadsteadServer(tmp_path_factory.mktemp("api"), config=config) as server:
        yield Guarded(server)


@pytest.fixture
def client(guarded: Guarded) -> Client:
    return guarded.server.client()


@pytest.fixture(scope="module")
def uncontrolled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoadsteadServer]:
    with RoadsteadServer(tmp_path_factory.mktemp("uncontrolled"), workers=1) as server:
        yield server


def push(client: Client, guarded: Guarded, repository: str, tag: str, text: bytes, who: str = ANA) -> Digest:
    """Push an artifact; return its digest."""
    headers = guarded.headers(who)
    artifact = make_artifact(content=text)
    for blob in artifact.blobs.values():
        target = f"/v2/{repository}/blobs/uploads/?digest={Digest.of(blob)}"
        assert client.request("POST", target, headers=headers, body=blob).status == 201
    put = client.request(
        "PUT",
        f"/v2/{repository}/manifests/{tag}",
        headers={**headers, "Content-Type": artifact.media_type},
        body=artifact.raw,
    )
    assert put.status == 201
    return Digest.of(artifact.raw)


def lines(guarded: Guarded, client: Client, query: str = "") -> list[tuple[str, str, str, str]]:
    """Return subject, action, target and outcome of the audit log's lines, the latest first."""
    status, found = guarded.ask(client, ADMIN, "GET", f"/audit{query}")
    assert status == 200
    return [(line["subject"], line["action"], line["target"], line["outcome"]) for line in found["lines"]]


def test_images_are_listed_and_tags_put_back(guarded: Guarded, client: Client) -> None:
    """Page by page; what was put back is in the history, and in the audit log with who did it."""
    first = push(client, guarded, "team/app", "v1", b"one")
    second = push(client, guarded, "team/app", "v1", b"two")
    push(client, guarded, "team/app", "v2", b"two")
    push(client, guarded, "team/web", "v1", b"web")

    assert guarded.ask(client, ANA, "GET", "/repositories?n=1") == (
        200, {"repositories": ["team/app"], "next": "team/app"},
    )  # fmt: skip
    assert guarded.ask(client, ANA, "GET", "/repositories?n=1&last=team/app") == (
        200, {"repositories": ["team/web"], "next": None},
    )  # fmt: skip
    status, shown = guarded.ask(client, ANA, "GET", "/repository?repository=team/app")
    assert (status, shown["name"], shown["size"] > 0) == (200, "team/app", True)
    assert guarded.ask(client, ANA, "GET", "/tags?repository=team/app&n=1")[1]["next"] == "v1"
    status, history = guarded.ask(client, ANA, "GET", "/tags/history?repository=team/app&tag=v1")
    assert [change["digest"] for change in history["changes"]] == [str(second), str(first)]

    status, restored = guarded.ask(client, ANA, "POST", "/tags/restore", {"repository": "team/app", "tag": "v1"})

    assert (status, restored["digest"]) == (200, str(first))
    head = client.head("/v2/team/app/manifests/v1", guarded.headers(ANA))
    assert head.headers["docker-content-digest"] == str(first)
    status, history = guarded.ask(client, ANA, "GET", "/tags/history?repository=team/app&tag=v1&n=1")
    assert (history["changes"][0]["origin"], history["next"] is not None) == ("restore", True)
    assert lines(guarded, client, "?action=tag.restore") == [("user:ana", "tag.restore", "team/app:v1", "done")]


def test_accounts_are_administered(guarded: Guarded, client: Client) -> None:
    """A key made here signs in at once, and doesn't once it is revoked; every step is written down."""
    status, added = guarded.ask(client, ADMIN, "POST", "/users", {"name": "ci", "robot": True, "groups": ["builders"]})
    assert (status, added["can_sign_in"]) == (201, True)
    assert guarded.ask(client, ADMIN, "POST", "/users", {"name": "ci", "robot": True})[0] == 409
    status, made = guarded.ask(client, ADMIN, "POST", "/keys", {"owner": "ci"})
    assert status == 201
    bearer = {"Authorization": f"Bearer {made['secret']}"}
    assert client.get("/v2/", bearer).status == 200
    status, changed = guarded.ask(client, ADMIN, "PATCH", "/users/ci", {"groups": ["movers"]})
    assert (status, changed["kind"], changed["groups"]) == (200, "robot", ["movers"])
    assert guarded.ask(client, ADMIN, "PATCH", "/users/ci", {})[0] == 400

    assert guarded.ask(client, ADMIN, "DELETE", f"/keys/{made['key']['id']}") == (204, None)
    assert client.get("/v2/", bearer).status == 401
    assert guarded.ask(client, ADMIN, "DELETE", "/users/ci") == (204, None)
    assert guarded.ask(client, ADMIN, "DELETE", "/users/ci")[0] == 404
    assert [(action, outcome) for _, action, _, outcome in lines(guarded, client, "?subject=user:root")] == [
        ("user.remove", "done"),
        ("key.revoke", "done"),
        ("user.change", "done"),
        ("key.create", "done"),
        ("user.add", "done"),
    ]


def test_a_key_ends_unless_an_administrator_says_never(guarded: Guarded, client: Client) -> None:
    """After 90 days where nothing is said, as with the command; null is for ever, and nobody else's to ask for."""
    _, unsaid = guarded.ask(client, ADMIN, "POST", "/keys", {"owner": ANA})
    _, said = guarded.ask(client, ADMIN, "POST", "/keys", {"owner": ANA, "expires_at": "2099-01-01T00:00:00Z"})
    _, never = guarded.ask(client, ADMIN, "POST", "/keys", {"owner": ANA, "expires_at": None})

    made, ends = (datetime.fromisoformat(unsaid["key"][name]) for name in ("created_at", "expires_at"))
    assert abs(ends - made - timedelta(days=90)) < timedelta(minutes=1)
    assert said["key"]["expires_at"] == "2099-01-01T00:00:00Z"
    assert never["key"]["expires_at"] is None
    guarded.ask(client, ADMIN, "POST", "/users", {"name": "pia", "password": "of pia"})
    pia = {"Authorization": f"Basic {b64encode(b'pia:of pia').decode()}", **JSON}
    refused = client.request("POST", "/api/v1/keys", headers=pia, body=b'{"expires_at": null}')
    assert (refused.status, "never end" in refused.json()["detail"]) == (400, True)
    own = client.request("POST", "/api/v1/keys", headers=pia, body=b"{}")
    assert (own.status, own.json()["key"]["expires_at"] is None) == (201, False)
    assert guarded.ask(client, ADMIN, "DELETE", "/users/pia")[0] == 204
    for key in (unsaid, said, never):
        assert guarded.ask(client, ADMIN, "DELETE", f"/keys/{key['key']['id']}")[0] == 204


def test_an_account_that_counts_later_says_so(tmp_path: Path) -> None:
    """A server that was started without accounts asks for none, until it is started again."""
    ana = {"Authorization": f"Basic {b64encode(b'ana:of ana').decode()}"}
    user = json.dumps({"name": "ana", "groups": ["admins"], "password": "of ana"}).encode()
    with RoadsteadServer(tmp_path, workers=1) as server:
        added = server.client().request("POST", "/api/v1/users", headers=JSON, body=user)
        assert (added.status, added.json()["can_sign_in"]) == (201, False)
        server.stop()

        server.start()

        [shown] = server.client().get("/api/v1/users", ana).json()["users"]
        assert (shown["name"], shown["can_sign_in"]) == ("ana", True)


@pytest.mark.parametrize(
    "ends", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2020-01-01T00:00:00Z", "2020-01-01T00:00:00"]
)
def test_a_key_ends_at_a_time_to_come(guarded: Guarded, client: Client, ends: str) -> None:
    """Which there is in UTC; anything else makes no key, and the list can be read."""
    status, problem = guarded.ask(client, ADMIN, "POST", "/keys", {"owner": ANA, "expires_at": ends})

    assert (status, ends[:4] in problem["detail"]) == (400, True)
    assert guarded.ask(client, ADMIN, "GET", "/keys")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/users", None),
        ("POST", "/users", {"name": "eve", "robot": True}),
        ("POST", "/users", {"name": ANA, "groups": ["admins"], "replace": True}),
        ("DELETE", f"/users/{ADMIN}", None),
        ("GET", "/keys", None),
        ("GET", f"/keys?owner={ANA}", None),
        ("POST", "/keys", {"owner": ADMIN, "actions": ["admin"]}),
        ("POST", "/keys", {"owner": ANA, "actions": ["admin"]}),
        ("DELETE", "/keys/aaaaaaaaaaaaaaaa", None),
        ("GET", "/events", None),
        ("POST", "/events/replay", {"state": "dead"}),
        ("GET", "/audit", None),
        ("GET", "/auth/explain?action=catalog", None),
    ],
)
def test_others_do_not_administer(guarded: Guarded, client: Client, method: str, path: str, body: Any) -> None:
    """403, told why, and in the audit log."""
    status, problem = guarded.ask(client, ANA, method, path, body)

    assert (status, problem["title"], problem["detail"]) == (
        403,
        "Forbidden",
        "user:ana may not administer the registry",
    )


POLICIES = """
[auth]
accounts = true

[[auth.policies]]
subjects = ["group:admins"]
repositories = ["**"]
actions = ["admin", "push", "pull"]

[[auth.policies]]
subjects = ["user:ana"]
repositories = ["team/*"]
actions = ["pull", "push"]

[[auth.policies]]
subjects = ["anonymous"]
repositories = ["open/*"]
actions = ["pull"]

[[auth.policies]]
subjects = ["anonymous", "user:ana"]
repositories = ["**"]
actions = ["catalog"]
"""


def test_nobody_learns_of_what_they_may_not_see(tmp_path: Path) -> None:
    """A repository that is there and one that isn't are answered alike; lists have what may be pulled."""
    with RoadsteadServer(tmp_path, config=POLICIES, workers=1) as server:
        guarded, client = Guarded(server), server.client()
        push(client, guarded, "team/app", "v1", b"one")
        for name in ("secret/app", "open/app"):
            push(client, guarded, name, "v1", name.encode(), who=ADMIN)

        for query in ("/repository?", "/tags?", "/tags/history?tag=v1&", "/image?reference=v1&"):
            told = {guarded.ask(client, ANA, "GET", f"{query}repository=secret/{name}")[0] for name in ("app", "no")}
            assert told == {403}
            asked = {client.get(f"/api/v1{query}repository=secret/{name}").status for name in ("app", "no")}
            assert asked == {401}
            if query.startswith("/image"):
                for name in ("as-pushed/secret/app", "as-of/2026-01-01/secret/app"):
                    assert guarded.ask(client, ANA, "GET", f"{query}repository={name}")[0] == 403
            assert client.get(f"/api/v1{query}repository=open/app").status == 200
        restore = {"repository": "open/app", "tag": "v1"}
        assert guarded.ask(client, ANA, "POST", "/tags/restore", restore)[0] == 403
        assert guarded.ask(client, ANA, "GET", "/repositories")[1]["repositories"] == ["team/app"]
        assert client.get("/api/v1/repositories").json()["repositories"] == ["open/app"]
        assert guarded.ask(client, ADMIN, "GET", "/repositories")[0] == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:5000"}, 200),
        ({"Host": "[::1]"}, 200),
        ({"Host": "rebound.example"}, 403),
        ({"Host": "127.0.0.1.rebound.example"}, 403),
        ({"Host": "localhost@rebound.example"}, 403),
        ({"X-Forwarded-For": "192.0.2.1"}, 403),
        ({"Forwarded": "for=192.0.2.1"}, 403),
        ({"X-Real-IP": "192.0.2.1"}, 403),
        ({"Via": "1.1 proxy"}, 403),
    ],
)
def test_without_access_control_this_machine_administers(
    uncontrolled: RoadsteadServer, headers: Mapping[str, str], status: int
) -> None:
    """Whoever comes through a proxy, or by a name that a page elsewhere was given, doesn't."""
    with uncontrolled.client() as client:
        assert client.get("/api/v1/audit", headers).status == status
        assert client.get("/api/v1/repositories", headers).status == 200


@pytest.mark.parametrize("headers", [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
])  # fmt: skip
def test_pages_of_others_change_nothing(guarded: Guarded, client: Client, headers: Mapping[str, str]) -> None:
    """Whatever the browser signs them in with."""
    body = json.dumps({"name": "eve", "robot": True}).encode()
    answer = client.request("POST", "/api/v1/users", headers={**guarded.headers(ADMIN), **JSON, **headers}, body=body)

    assert answer.status == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert "pages of" in json.loads(answer.body)["detail"]


def test_what_is_wrong_is_told(guarded: Guarded, client: Client) -> None:
    """As problem documents, with the status that the document has for it."""
    form = client.request("POST", "/api/v1/users", headers=guarded.headers(ADMIN), body=b"name=eve")
    assert (form.status, json.loads(form.body)["title"]) == (415, "Unsupported Media Type")
    assert client.get("/api/v1/nothing").status == 404
    patch = client.request("PATCH", "/api/v1/users", headers={**guarded.headers(ADMIN), **JSON}, body=b"{}")
    assert (patch.status, patch.headers["allow"]) == (405, "GET, OPTIONS, POST")
    large = client.request(
        "POST", "/api/v1/users", headers={**guarded.headers(ADMIN), **JSON}, body=b" " * (64 << 10) + b"{}"
    )
    assert large.status == 413
    asked = client.get("/api/v1/users")
    assert (asked.status, "www-authenticate" in asked.headers) == (401, True)
    assert guarded.ask(client, ADMIN, "GET", "/tags?repository=no/where")[0] == 404
    assert guarded.ask(client, ADMIN, "GET", "/tags?repository=NO")[0] == 400


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("n=1&n=2", "said more than once: n"),
        ("since=538", "since is not a time"),
        ("since=2026-02-30", "since is not a time"),
        ("since=20261122", "since is not a time"),
        ("since=2026-11-22T08:00:00%2B25:00", "since is not a time"),
    ],
)
def test_parameters_mean_one_thing(guarded: Guarded, client: Client, query: str, said: str) -> None:
    """A number isn't a time, and nobody has to know which of two counts."""
    status, problem = guarded.ask(client, ADMIN, "GET", f"/audit?{query}")

    assert status == 400
    assert said in problem["detail"]


@pytest.mark.parametrize(
    ("since", "found"),
    [
        ("2026-01-01", True),
        ("2026-01-01T10:00Z", True),
        ("2026-01-01t10:00:00.123456789z", True),
        ("0001-01-01T00:00:00%2B23:59", True),
        ("9999-12-31T23:59:59-23:59", False),
    ],
)
def test_lines_since_a_time(guarded: Guarded, client: Client, since: str, found: bool) -> None:
    """With or without a zone and a time of day, however far away."""
    assert bool(lines(guarded, client, f"?since={since}&action=server.start")) == found


def test_what_cannot_be_written_down_is_not_done(tmp_path: Path) -> None:
    """503, and nothing has changed; pushes and pulls go on, refusals stay refusals, and a start isn't held up."""
    with RoadsteadServer(tmp_path, config="[auth]\naccounts = true\n", workers=1) as server:
        guarded, client = Guarded(server), server.client()
        digest = push(client, guarded, "team/app", "v1", b"one")
        with closing(sqlite3.connect(server.data / "roadstead.db")) as connection:
            connection.execute("CREATE TRIGGER full BEFORE INSERT ON acts BEGIN SELECT RAISE(ABORT, 'full'); END")

        assert guarded.ask(client, ADMIN, "POST", "/users", {"name": "eve", "robot": True})[0] == 503
        assert [user["name"] for user in guarded.ask(client, ADMIN, "GET", "/users")[1]["users"]] == [ANA, ADMIN]
        for reference in ("v1", str(digest)):
            path = f"/v2/team/app/manifests/{reference}"
            assert client.request("DELETE", path, headers=guarded.headers(ANA)).status == 503
            assert client.get(path, guarded.headers(ANA)).status == 200
        push(client, guarded, "team/app", "v2", b"two")
        assert guarded.ask(client, ANA, "GET", "/users")[0] == 403
        server.stop()

        server.start()

        assert server.client().get("/v2/team/app/manifests/v2", guarded.headers(ANA)).status == 200
        assert "a line of the audit log can't be written" in server.log


def test_requests_count_against_limits(tmp_path: Path) -> None:
    """Those of a user, whom only the API's own guard knows; 429 as a problem document."""
    config = "[auth]\naccounts = true\n[limits]\nuser_rate = 1\nuser_burst = 10\n"
    with RoadsteadServer(tmp_path, config=config) as server:
        guarded = Guarded(server)
        clients = [server.client_of(worker) for worker in server.workers]
        of_ana = [guarded.ask(clients[number % 2], ANA, "GET", "/repositories") for number in range(30)]
        others = guarded.ask(clients[0], ADMIN, "GET", "/users")[0]

    refused = [problem for status, problem in of_ana if status == 429]
    assert [status for status, _ in of_ana[:10]] == [200] * 10
    assert refused
    assert "user:ana" in refused[0]["detail"]
    assert others == 200


def test_an_upstreams_tags_stay_where_it_has_them(tmp_path: Path) -> None:
    """What is kept here of another registry isn't put back by hand: 405, as for a push."""
    upstream = '[[upstreams]]\nhost = "up.example"\nurl = "http://127.0.0.1:9"\ndefault_for = ["library/*"]\n'
    with RoadsteadServer(tmp_path, config=f"[auth]\naccounts = true\n{upstream}", workers=1) as server:
        guarded, client = Guarded(server), server.client()
        for name in ("up.example/library/busybox", "library/busybox", "as-pushed/team/app"):
            asked = {"repository": name, "tag": "1"}
            assert guarded.ask(client, ADMIN, "POST", "/tags/restore", asked)[0] == 405, name
        assert guarded.ask(client, ADMIN, "POST", "/tags/restore", {"repository": "team/app", "tag": "1"})[0] == 404


def test_accounts_and_keys_are_listed_by_page(guarded: Guarded, client: Client) -> None:
    """Each page says where the next begins."""
    for name in ("page-a", "page-b"):
        assert guarded.ask(client, ADMIN, "POST", "/users", {"name": name, "robot": True})[0] == 201
    made = [guarded.ask(client, ADMIN, "POST", "/keys", {"owner": "page-a"})[1]["key"]["id"] for _ in range(3)]

    status, first = guarded.ask(client, ADMIN, "GET", "/users?last=page&n=1")
    assert (status, [user["name"] for user in first["users"]], first["next"]) == (200, ["page-a"], "page-a")
    _, second = guarded.ask(client, ADMIN, "GET", "/users?last=page-a&n=1")
    assert [user["name"] for user in second["users"]] == ["page-b"]
    _, two = guarded.ask(client, ADMIN, "GET", "/keys?owner=page-a&n=2")
    _, last = guarded.ask(client, ADMIN, "GET", f"/keys?owner=page-a&n=2&last={two['next']}")
    assert [key["id"] for key in (*two["keys"], *last["keys"])] == sorted(made)
    assert last["next"] is None


def test_events_and_policies_are_told(guarded: Guarded, client: Client) -> None:
    """Those that wait are listed; what isn't said narrowly enough isn't sent again."""
    push(client, guarded, "team/told", "v1", b"told")
    status, found = guarded.ask(client, ADMIN, "GET", "/events?state=pending&n=1")
    assert (status, found["events"][0]["endpoint"]) == (200, "nobody")
    assert guarded.ask(client, ADMIN, "GET", "/events?endpoint=unknown")[0] == 404
    assert guarded.ask(client, ADMIN, "POST", "/events/replay", {})[0] == 400
    assert guarded.ask(client, ADMIN, "POST", "/events/replay", {"state": "dead"}) == (200, {"replayed": 0})
    explained = guarded.ask(client, ADMIN, "GET", "/auth/explain?action=pull&repository=team/app&subject=user:ana")
    assert explained == (200, {"allowed": True, "because": "the default allows user:ana to pull team/app"})


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/auth/explain?action=pull&repository=a&as=user:ana", "as; known are action, subject, repository, group"),
        ("/events?status=pending", "status; known are endpoint, state, before, n"),
    ],
)
def test_a_parameter_that_is_not_known_is_refused(guarded: Guarded, client: Client, path: str, told: str) -> None:
    """Who sends one means something by it; the answer names those that are known."""
    status, problem = guarded.ask(client, ADMIN, "GET", path)

    assert status == 400
    assert told in problem["detail"]
    status, problem = guarded.ask(client, ADMIN, "DELETE", "/users/nobody?force=1")
    assert (status, "force; nothing is asked by a query here" in problem["detail"]) == (400, True)


def test_refused_access_is_summed_up_on_the_command_line(guarded: Guarded) -> None:
    """Once the server has ended: with deletes and commands by hand, and the start with what was in force."""
    client = guarded.server.client()
    digest = push(client, guarded, "team/gone", "v1", b"gone")
    for reference in ("v1", str(digest)):
        assert (
            client.request("DELETE", f"/v2/team/gone/manifests/{reference}", headers=guarded.headers(ANA)).status == 202
        )
    for _ in range(5):
        assert guarded.ask(client, ANA, "GET", "/users")[0] == 403
        assert client.get("/v2/", {"Authorization": "Basic ZXZlOnB3"}).status == 401
    guarded.run("gc")
    guarded.run("verify", "--repair")
    guarded.server.stop()

    found = [json.loads(line) for line in guarded.run("audit", "--json").splitlines()]

    told = {(line["action"], line["subject"].partition(":")[0], line["target"], line["outcome"]) for line in found}
    assert told >= {
        ("tag.delete", "user", "team/gone:v1", "done"),
        ("manifest.delete", "user", f"team/gone@{digest}", "done"),
        ("gc.run", "shell", "the registry", "done"),
        ("verify.repair", "shell", "the registry", "done"),
        ("access", "user", "admin the registry", "denied"),
        ("sign-in", "anonymous", "user:eve", "denied"),
    }
    counted = [line["count"] for line in found if (line["action"], line["target"]) == ("sign-in", "user:eve")]
    assert sum(counted) == 5
    started = found[-1]
    assert (started["action"], started["subject"]) == ("server.start", "server")
    assert "policies sha256:" in started["reason"]
    assert "access is controlled" in started["reason"]
    only = guarded.run("audit", "--subject", "user:ana", "--action", "tag.delete")
    assert "tag.delete" in only
    assert len(only.splitlines()) == 1
