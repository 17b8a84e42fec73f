"""Signing in to the real server: htpasswd, accounts and keys, with several workers."""

import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path

import bcrypt
import pytest

from roadstead.auth.limiter import FAILURES
from roadstead.oci.digest import Digest
from roadstead.testing.client import Client
from roadstead.testing.images import make_artifact
from roadstead.testing.server import RoadsteadServer

POLICIES = """
[auth]
htpasswd = "users"
realm = "Harbour"

[[auth.policies]]
subjects = ["user:ana"]
repositories = ["team/**", "library/*"]
actions = ["pull", "push", "delete", "catalog"]

[[auth.policies]]
subjects = ["user:*"]
repositories = ["{user}/**", "shared/*"]
actions = ["pull", "push", "delete", "catalog"]

[[auth.policies]]
subjects = ["group:operators"]
repositories = ["library/*"]
actions = ["admin", "pull"]
"""


def basic(name: str, password: str) -> Mapping[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"}


ANA, BOB = basic("ana", "of ana"), basic("bob", "of bob")


def write_users(path: Path, **passwords: str) -> None:
    lines = [f"{name}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode()}\n" for name, word in passwords.items()]
    path.with_suffix(".new").write_text("".join(lines))
    path.with_suffix(".new").rename(path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoadsteadServer]:
    """Two workers, an htpasswd of ana and bob, policies, and accounts beside them."""
    directory = tmp_path_factory.mktemp("guarded")
    write_users(directory / "users", ana="of ana", bob="of bob")
    with RoadsteadServer(directory, config=POLICIES.replace("[auth]\n", "[auth]\naccounts = true\n")) as running:
        yield running


@pytest.fixture
def client(server: RoadsteadServer) -> Client:
    return server.client()


def roadstead(server: RoadsteadServer, *words: str, given: str = "") -> str:
    """Run a command beside the server and return what it printed."""
    command = [sys.executable, "-m", "roadstead", *words, str(server.directory / "roadstead.toml"),
               "--data", str(server.data)]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True, input=given, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_whoever_has_not_signed_in_is_asked_to(server: RoadsteadServer, client: Client) -> None:
    """At the door and at every repository alike, whether it is there or not."""
    door = client.get("/v2/")

    assert (door.status, door.code) == (401, "UNAUTHORIZED")
    realm = f'Bearer realm="http://{server.host}/auth/token",service="roadstead"'
    assert door.every("www-authenticate") == [realm]
    for path in ("/metrics", "/api/v1/users"):
        assert client.get(path).every("www-authenticate") == ['Basic realm="Harbour", charset="UTF-8"']
    assert door.headers["docker-distribution-api-version"] == "registry/2.0"
    for path in ("/v2/team/app/tags/list", "/v2/no/where/manifests/1", "/v2/_catalog"):
        assert client.get(path).status == 401
    assert client.get("/healthz").status == client.get("/readyz").status == client.get("/").status == 200


@pytest.mark.parametrize("path", ["/auth/login", "/auth/callback", "/auth/session", "/account"])
def test_browsers_sign_in_only_where_there_is_an_issuer(client: Client, path: str) -> None:
    """Without one nothing is there, and the first page doesn't speak of it."""
    assert client.get(path).status == 404
    assert "Your account" not in client.get("/").body.decode()


@pytest.mark.parametrize(
    "headers",
    [
        basic("ana", "of bob"),
        basic("nobody", "of ana"),
        basic("", ""),
        {"Authorization": "Basic !!!"},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Bearer rs_aaaaaaaaaaaaaaaa_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
        {"Authorization": "Negotiate x"},
        {"Cookie": "session=ana; token=ana"},
    ],
)
def test_what_proves_nothing_lets_nobody_in(client: Client, headers: Mapping[str, str]) -> None:
    """Not at the door either, where `docker login` tries; cookies are never looked at."""
    answer = client.get("/v2/", headers)

    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    assert "www-authenticate" in answer.headers


def test_somebody_we_know_is_refused_by_name(client: Client) -> None:
    """403 DENIED, which clients don't try again, the same for what is there and what isn't."""
    artifact = make_artifact()
    push(client, "team/secret", artifact.blobs.values(), ANA)
    client.put("/v2/team/secret/manifests/1", artifact.raw, {"Content-Type": artifact.media_type, **ANA})
    assert client.get("/v2/team/secret/manifests/1", ANA).status == 200

    told = [client.get(f"/v2/team/{name}/manifests/1", BOB) for name in ("secret", "nowhere")]

    assert [(answer.status, answer.code) for answer in told] == [(403, "DENIED")] * 2
    assert told[0].body.replace(b"secret", b"nowhere") == told[1].body
    assert [client.head(f"/v2/team/{name}/manifests/1", BOB).status for name in ("secret", "nowhere")] == [403, 403]


def push(client: Client, name: str, blobs: object, headers: Mapping[str, str]) -> None:
    for data in blobs:  # type: ignore[attr-defined]
        answer = client.post(f"/v2/{name}/blobs/uploads/?digest={Digest.of(data)}", data, headers)
        assert answer.status == 201, answer.body


def test_the_catalog_shows_what_one_may_pull(client: Client) -> None:
    """Everybody their own part of it."""
    for name, who in (("bob/tools", BOB), ("team/app", ANA)):
        artifact = make_artifact(content=name.encode())
        push(client, name, artifact.blobs.values(), who)
        client.put(f"/v2/{name}/manifests/1", artifact.raw, {"Content-Type": artifact.media_type, **who})

    of_ana = client.get("/v2/_catalog", ANA).json()["repositories"]
    of_bob = client.get("/v2/_catalog", BOB).json()["repositories"]

    assert "team/app" in of_ana
    assert "bob/tools" not in of_ana
    assert "bob/tools" in of_bob
    assert not [name for name in of_bob if name.startswith("team/")]


def test_a_mount_from_what_one_may_not_read_is_an_upload(client: Client) -> None:
    """Named or searched for (CVE-2024-39897), it looks as if the blob weren't there; and HEAD tells nothing."""
    secret = b"in team/secret alone"
    push(client, "team/secret", [secret], ANA)
    digest = Digest.of(secret)
    for query in (f"mount={digest}&from=team/secret", f"mount={digest}", f"mount={digest}&from=no/where"):
        answer = client.post(f"/v2/bob/tools/blobs/uploads/?{query}", None, BOB)
        assert answer.status == 202
    assert client.head(f"/v2/bob/tools/blobs/{digest}", BOB).status == 404

    answer = client.post(f"/v2/library/app/blobs/uploads/?mount={digest}&from=team/secret", None, ANA)
    assert answer.status == 201


def test_an_upload_belongs_to_whoever_began_it(client: Client) -> None:
    """Another who may push to the repository can't read, feed, finish or cancel it (CVE-2026-32589)."""
    location = client.post("/v2/shared/app/blobs/uploads/", None, ANA).headers["location"]
    assert client.request("PATCH", location, b"of ana", ANA).status == 202
    digest = Digest.of(b"of ana")

    tried = [
        client.get(location, BOB),
        client.request("PATCH", location, b"more", BOB),
        client.put(f"{location}?digest={digest}", None, BOB),
        client.request("DELETE", location, None, BOB),
    ]

    assert [(answer.status, answer.code) for answer in tried] == [(404, "BLOB_UPLOAD_UNKNOWN")] * 4
    assert client.get(location, ANA).headers["range"] == "0-5"
    assert client.put(f"{location}?digest={digest}", None, ANA).status == 201


def test_deleting_is_a_right_of_its_own(server: RoadsteadServer, client: Client) -> None:
    """Whoever may push may not delete by that; an upload of one's own can be cancelled."""
    roadstead(server, "user", "add", "carol", "--replace", given="of carol")
    secret = roadstead(server, "key", "create", "carol", "--action", "push", "--action", "pull").strip()
    carol = basic("carol", secret)
    push(client, "carol/app", [b"layer"], carol)

    refused = client.request("DELETE", f"/v2/carol/app/blobs/{Digest.of(b'layer')}", None, carol)
    location = client.post("/v2/carol/app/blobs/uploads/", None, carol).headers["location"]

    assert (refused.status, refused.code) == (403, "DENIED")
    assert client.request("DELETE", location, None, carol).status == 204


def test_a_changed_file_counts_in_every_worker(server: RoadsteadServer) -> None:
    """With the next request: nothing has to be told or restarted, and what was remembered is of no use."""
    users = server.directory / "users"
    clients = [server.client_of(worker) for worker in server.workers]
    assert [one.get("/v2/", BOB).status for one in clients] == [200, 200]
    try:
        write_users(users, ana="of ana", bob="another")
        assert [one.get("/v2/", BOB).status for one in clients] == [401, 401]
        assert [one.get("/v2/", basic("bob", "another")).status for one in clients] == [200, 200]
        users.rename(users.with_suffix(".away"))
        assert [one.get("/v2/", ANA).status for one in clients] == [503, 503]
    finally:
        write_users(users, ana="of ana", bob="of bob")
    assert [one.get("/v2/", ANA).status for one in clients] == [200, 200]


def test_a_key_is_revoked_at_once_in_every_worker(server: RoadsteadServer) -> None:
    """Also one that was used a moment ago; and so is an account, with its password and its keys."""
    roadstead(server, "user", "add", "dora", given="of dora")
    keys = [json.loads(roadstead(server, "key", "create", "dora", "--json")) for _ in range(2)]
    clients = [server.client_of(worker) for worker in server.workers]

    def statuses(secret: str) -> list[int]:
        return [one.get("/v2/", basic("dora", secret)).status for one in clients]

    assert [statuses(word) for word in (keys[0]["key"], keys[1]["key"], "of dora")] == [[200, 200]] * 3
    roadstead(server, "key", "revoke", keys[0]["id"])
    assert [statuses(word) for word in (keys[0]["key"], keys[1]["key"], "of dora")] == [
        [401, 401],
        [200, 200],
        [200, 200],
    ]
    roadstead(server, "user", "remove", "dora")
    assert [statuses(word) for word in (keys[1]["key"], "of dora")] == [[401, 401]] * 2


def test_groups_count_with_the_next_request(server: RoadsteadServer, client: Client) -> None:
    """Being taken out of a group is the end of what it may do: here, reading the numbers."""
    roadstead(server, "user", "add", "eve", "--group", "operators", given="of eve")
    eve = basic("eve", "of eve")
    assert client.get("/metrics", eve).status == 200
    assert client.get("/metrics", ANA).status == 403
    assert client.get("/metrics").status == 401

    roadstead(server, "user", "add", "eve", "--replace", "--password-file", str(_file(server, "of eve")))

    assert client.get("/metrics", eve).status == 403


def _file(server: RoadsteadServer, password: str) -> Path:
    path = server.directory / "password"
    path.write_text(f"{password}\n")
    return path


def test_what_was_signed_in_for_is_not_kept_for_others(client: Client) -> None:
    """A cache in front that many share may not keep it; also not what has a digest for a name."""
    push(client, "team/app", [b"private"], ANA)
    artifact = make_artifact()
    push(client, "team/app", artifact.blobs.values(), ANA)
    client.put("/v2/team/app/manifests/1", artifact.raw, {"Content-Type": artifact.media_type, **ANA})

    for path in (f"blobs/{Digest.of(b'private')}", f"manifests/{artifact.digest}"):
        answer = client.get(f"/v2/team/app/{path}", ANA)
        assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"


def test_guessing_is_slowed_down(tmp_path: Path) -> None:
    """429 with Retry-After after some wrong passwords for a name; who is in stays in."""
    write_users(tmp_path / "users", ana="of ana")
    with RoadsteadServer(tmp_path, config='[auth]\nhtpasswd = "users"\n', workers=1) as server:
        client = server.client()
        assert client.get("/v2/", ANA).status == 200
        statuses = [client.get("/v2/", basic("ana", f"guess {number}")).status for number in range(FAILURES + 1)]

        assert statuses[:-1] == [401] * FAILURES
        refused = client.get("/v2/", basic("ana", "one more"))
        assert (statuses[-1], refused.status, refused.code) == (429, 429, "TOOMANYREQUESTS")
        assert 0 < int(refused.headers["retry-after"]) <= 6
        assert client.get("/v2/", ANA).status == 200
        assert "guess 1" not in server.log


def test_policies_alone_have_no_way_in(tmp_path: Path) -> None:
    """What everybody may do is served to whoever brings whatever; the rest is 403, as nobody could sign in for it."""
    policy = '[[auth.policies]]\nsubjects = ["everyone"]\nrepositories = ["**"]\nactions = ["pull", "catalog"]\n'
    with RoadsteadServer(tmp_path, config=policy, workers=1) as server:
        client = server.client()
        for who in ({}, ANA):
            assert client.get("/v2/", who).status == client.get("/v2/_catalog", who).status == 200
            refused = client.post("/v2/team/app/blobs/uploads/", None, who)
            assert (refused.status, refused.code) == (403, "DENIED")


def test_accounts_count_from_the_next_start_on(tmp_path: Path) -> None:
    """Without a word in the settings: a registry that has users isn't open to everybody."""
    with RoadsteadServer(tmp_path) as server:
        assert server.client().get("/v2/").status == 200
        push(server.client(), "team/app", [b"layer"], {})
        roadstead(server, "user", "add", "ana", given="of ana")
    with RoadsteadServer(tmp_path) as server:
        client = server.client()
        digest = Digest.of(b"layer")
        assert [client.get(f"/v2/team/app/blobs/{digest}", who).status for who in ({}, ANA)] == [401, 200]


def test_a_disabled_account_keeps_out_a_line_of_its_name(server: RoadsteadServer) -> None:
    """In every worker, though the file's password is right and was let in a moment ago."""
    clients = [server.client_of(worker) for worker in server.workers]
    roadstead(server, "user", "add", "bob", given="of another bob")
    assert [one.get("/v2/", BOB).status for one in clients] == [200, 200]
    try:
        roadstead(server, "user", "disable", "bob")
        assert [one.get("/v2/", BOB).status for one in clients] == [401, 401]
    finally:
        roadstead(server, "user", "remove", "bob")
    assert [one.get("/v2/", BOB).status for one in clients] == [200, 200]


def test_names_in_both_are_told_at_the_start(tmp_path: Path) -> None:
    """By name, and no others."""
    write_users(tmp_path / "users", ana="of ana", bob="of bob")
    config = tmp_path / "roadstead.toml"
    config.write_text('[auth]\nhtpasswd = "users"\n')
    add = [sys.executable, "-m", "roadstead", "user", "add", "ana", str(config), "--data", str(tmp_path / "data")]
    subprocess.run(add, check=True, capture_output=True, text=True, input="of ana", timeout=60)

    with RoadsteadServer(tmp_path, config=config.read_text()) as server:
        [told] = [line for line in server.log.splitlines() if "an account and a line in the password file" in line]

    assert "ana" in told
    assert "bob" not in told
