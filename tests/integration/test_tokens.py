"""Bearer tokens with real servers: ours gives them out and believes them, and so does distribution's registry."""

import json
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import bcrypt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jws
from joserfc.jwk import ECKey
from tests.certificates import Authority

from roadstead.auth.key_ids import libtrust_id, thumbprint
from roadstead.oci.digest import Digest
from roadstead.testing.client import Answer, Client
from roadstead.testing.go_clients import DISTRIBUTION, GoClient, find_or_build
from roadstead.testing.images import make_artifact
from roadstead.testing.registry_peer import open_registry_peer
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import ServerNotReadyError, wait_until

SETTINGS = """
[server]
trusted_proxies = ["127.0.0.1"]

[auth]
htpasswd = "users"
accounts = true

[auth.issue]
service = "registry.test"

[[auth.policies]]
subjects = ["user:*"]
repositories = ["team/**"]
actions = ["pull", "push", "catalog"]

[[auth.policies]]
subjects = ["everyone"]
repositories = ["library/*"]
actions = ["pull"]

[[auth.policies]]
subjects = ["user:*"]
repositories = ["library/*"]
actions = ["push"]
"""
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def basic(name: str, password: str) -> Mapping[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"}


def bearer(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"}


ANA, BOB = basic("ana", "of ana"), basic("bob", "of bob")


def write_users(directory: Path, **passwords: str) -> None:
    lines = [f"{name}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode()}\n" for name, word in passwords.items()]
    draft = directory / "users.new"
    draft.write_text("".join(lines))
    draft.replace(directory / "users")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoadsteadServer]:
    """Two workers that issue tokens; ana and bob have passwords, everybody may pull from library/."""
    directory = tmp_path_factory.mktemp("issuing")
    write_users(directory, ana="of ana", bob="of bob")
    with RoadsteadServer(directory, config=SETTINGS) as running:
        yield running


@pytest.fixture
def client(server: RoadsteadServer) -> Client:
    return server.client()


def ask(client: Client, headers: Mapping[str, str] | None = None, **query: object) -> Answer:
    """Ask for a token as clients do."""
    return client.get(f"/auth/token?{urlencode(query, doseq=True)}", headers or {})


def token_for(client: Client, *scopes: str, headers: Mapping[str, str] | None = None) -> str:
    answer = ask(client, headers, service="registry.test", scope=list(scopes))
    assert answer.status == 200, answer.body
    return str(answer.json()["token"])


def claims(token: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(jws.extract_compact(token.encode()).payload)
    return found


def granted(token: str) -> dict[str, list[str]]:
    return {entry["name"]: entry["actions"] for entry in claims(token)["access"]}


def post(client: Client, **form: str) -> Answer:
    return client.request("POST", "/auth/token", headers=FORM, body=urlencode(form).encode())


def test_the_door_sends_clients_to_the_token_server(server: RoadsteadServer, client: Client) -> None:
    """`/v2/` asks everybody by Bearer, since clients sign in only where they are asked."""
    door, closed = client.get("/v2/"), client.get("/v2/team/app/tags/list")

    realm = f'Bearer realm="http://{server.host}/auth/token",service="registry.test"'
    assert (door.status, door.every("www-authenticate")) == (401, [realm])
    assert closed.every("www-authenticate") == [f'{realm},scope="repository:team/app:pull"']


def test_behind_a_proxy_that_is_named(client: Client) -> None:
    """The address of the token server is the one that the client used, as the proxy tells it."""
    door = client.get(
        "/v2/", {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "r.test", "X-Forwarded-For": "1.2.3.4"}
    )

    assert door.headers["www-authenticate"] == 'Bearer realm="https://r.test/auth/token",service="registry.test"'


def test_what_an_answer_says(client: Client) -> None:
    """The fields that clients read, a minute's life and more, kept by nobody on the way."""
    answer = ask(client, ANA, service="registry.test", scope="repository:team/app:pull,push", client_id="docker")

    said = answer.json()
    assert said["token"] == said["access_token"]
    assert said["expires_in"] == 300
    assert time.strptime(said["issued_at"], "%Y-%m-%dT%H:%M:%SZ")
    assert "refresh_token" not in said
    assert answer.headers["cache-control"] == "no-store"
    found = claims(said["token"])
    assert (found["iss"], found["aud"], found["sub"]) == ("registry.test", "registry.test", "ana")
    assert found["exp"] - found["iat"] == 300
    assert granted(said["token"]) == {"team/app": ["pull", "push"]}


@pytest.mark.parametrize(
    ("scopes", "who", "expected"),
    [
        (("repository:team/app:pull,push,delete",), ANA, {"team/app": ["pull", "push"]}),
        (("repository:team/app:*",), ANA, {"team/app": ["pull", "push"]}),
        (("repository:other/app:pull",), ANA, {}),
        (("repository:library/a:pull,push", "repository:team/app:pull"), None, {"library/a": ["pull"]}),
        (
            ("repository:library/a:pull repository:library/b:pull",),
            None,
            {"library/a": ["pull"], "library/b": ["pull"]},
        ),
        (("registry:catalog:*",), ANA, {"catalog": ["*"]}),
        (("registry:catalog:*",), None, {}),
        (("repository:as-pushed/library/a:pull",), None, {"as-pushed/library/a": ["pull"], "library/a": ["pull"]}),
        (("repository:UPPER:pull", "nonsense"), ANA, {}),
        ((), ANA, {}),
    ],
)
def test_more_than_is_allowed_is_not_given(
    client: Client, scopes: tuple[str, ...], who: Mapping[str, str] | None, expected: Mapping[str, list[str]]
) -> None:
    """The token grants what policies allow of what was asked; that is never an error."""
    assert granted(token_for(client, *scopes, headers=who)) == expected


def test_a_token_opens_what_it_grants(client: Client) -> None:
    """Push and pull with tokens: what one isn't good for says which is needed."""
    push, pull = (token_for(client, f"repository:team/app:{what}", headers=ANA) for what in ("pull,push", "pull"))

    started = client.post("/v2/team/app/blobs/uploads/?digest=" + str(Digest.of(b"x")), headers=bearer(push), body=b"x")
    refused = client.post("/v2/team/app/blobs/uploads/", headers=bearer(pull))
    elsewhere = client.get("/v2/team/other/tags/list", bearer(push))

    assert started.status == 201
    assert (refused.status, elsewhere.status) == (401, 401)
    challenge = refused.headers["www-authenticate"]
    assert 'scope="repository:team/app:pull,push",error="insufficient_scope"' in challenge
    assert 'error_description="the token is not good to push team/app"' in challenge
    assert "the token is not good to push team/app" in refused.body.decode()
    assert client.get("/v2/", bearer(push)).status == 200
    assert client.get("/v2/", bearer(token_for(client))).status == 200  # nobody in particular, but with a token
    assert client.get("/v2/team/app/tags/list", ANA).status in (200, 404)  # a password that comes unasked still works


def test_the_catalog_with_a_token(client: Client) -> None:
    """A token for the catalog lists what its holder may pull, though it names no repository."""
    push = bearer(token_for(client, "repository:team/listed:pull,push", headers=ANA))
    artifact = make_artifact()
    for data in artifact.blobs.values():
        client.post(f"/v2/team/listed/blobs/uploads/?digest={Digest.of(data)}", data, push)
    headers = {"Content-Type": artifact.media_type, **push}
    pushed = client.put("/v2/team/listed/manifests/1", artifact.raw, headers)

    listed = client.get("/v2/_catalog", bearer(token_for(client, "registry:catalog:*", headers=ANA)))
    refused = client.get("/v2/_catalog", push)

    assert pushed.status == 201, pushed.body
    assert "team/listed" in listed.json()["repositories"]
    assert refused.status == 401
    assert 'scope="registry:catalog:*",error="insufficient_scope"' in refused.headers["www-authenticate"]


def test_what_a_token_is_refused_for_is_in_the_audit_log(server: RoadsteadServer, client: Client) -> None:
    """As it is with a password, where policies say no; a token that was only asked for something else isn't told of."""
    token = bearer(token_for(client, "repository:secret/app:pull,push", "repository:team/app:pull", headers=BOB))
    for name in ("secret/app", "team/app"):
        assert client.post(f"/v2/{name}/blobs/uploads/", None, token).status == 401
    assert client.post("/v2/secret/app/blobs/uploads/", None, BOB).status == 403

    def told() -> list[tuple[str, str, int]]:
        command = [sys.executable, "-m", "roadstead", "audit", "--data", str(server.data), "--json"]
        done = subprocess.run(command, cwd=server.directory, check=True, capture_output=True, text=True, timeout=60)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return [(line["target"], line["reason"], line["count"]) for line in lines if line["subject"] == "user:bob"]

    assert wait_until(lambda: sum(count for _, _, count in told()) >= 2, timeout=timedelta(seconds=60))
    denied = "no policy allows user:bob to push secret/app"
    assert {(target, reason) for target, reason, _ in told()} == {("push secret/app", denied)}
    assert sum(count for _, _, count in told()) == 2


def test_the_catalog_with_a_token_of_a_limited_key(server: RoadsteadServer, client: Client) -> None:
    """What a key is limited to limits its tokens, also where they name no repository."""
    push = bearer(token_for(client, "repository:team/in/a:pull,push", "repository:team/out:pull,push", headers=ANA))
    artifact = make_artifact()
    for name in ("team/in/a", "team/out"):
        for data in artifact.blobs.values():
            client.post(f"/v2/{name}/blobs/uploads/?digest={Digest.of(data)}", data, push)
        client.put(f"/v2/{name}/manifests/1", artifact.raw, {"Content-Type": artifact.media_type, **push})
    command = [sys.executable, "-m", "roadstead"]
    rest = {"cwd": server.directory, "check": True, "capture_output": True, "text": True, "timeout": 60}
    beside = ["--data", str(server.data)]
    subprocess.run([*command, "user", "add", "dora", *beside], input="of dora", **rest)  # type: ignore[call-overload]
    limits = ["--repository", "team/in/*", "--action", "pull", "--action", "catalog"]
    made = subprocess.run([*command, "key", "create", "dora", *limits, *beside], **rest)  # type: ignore[call-overload]
    key = basic("dora", made.stdout.strip())

    token = bearer(token_for(client, "registry:catalog:*", headers=key))

    assert client.get("/v2/_catalog", key).json()["repositories"] == ["team/in/a"]
    assert client.get("/v2/_catalog", token).json()["repositories"] == ["team/in/a"]
    assert client.get("/api/v1/repositories", token).json()["repositories"] == ["team/in/a"]


@pytest.mark.parametrize("headers", [basic("ana", "of bob"), basic("nobody", "x"), bearer("a.b.c")])
def test_wrong_credentials_get_no_token(client: Client, headers: Mapping[str, str]) -> None:
    """401, with the word that a name and a password are wanted."""
    answer = ask(client, headers, service="registry.test")

    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    assert answer.headers["www-authenticate"].startswith("Basic ")


def test_tokens_for_others_are_not_given(client: Client) -> None:
    """Another service is a mistake of somebody's configuration, which is said."""
    answer = ask(client, ANA, service="other.test")

    assert answer.status == 400
    assert "other.test" in str(answer.json())


def test_the_form_of_oauth2(client: Client) -> None:
    """POST with a password gives a refresh token where one is asked for, and that gives further tokens."""
    scope = "repository:team/app:pull"
    first = post(
        client,
        grant_type="password",
        username="ana",
        password="of ana",
        service="registry.test",
        client_id="containerd",
        access_type="offline",
        scope=scope,
    ).json()

    second = post(client, grant_type="refresh_token", refresh_token=first["refresh_token"], scope=scope)

    assert first["scope"] == scope
    assert first["token_type"] == "Bearer"
    assert second.status == 200
    assert granted(second.json()["access_token"]) == {"team/app": ["pull"]}
    assert claims(second.json()["access_token"])["sub"] == "ana"


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"grant_type": "password", "username": "ana", "password": "wrong"}, 401),
        ({"grant_type": "refresh_token", "refresh_token": "invented"}, 401),
        ({"grant_type": "refresh_token"}, 400),
        ({"grant_type": "password", "username": "ana"}, 400),
        ({"grant_type": "client_credentials"}, 400),
        ({}, 400),
        ({"grant_type": "password", "x": "y" * 70_000}, 413),
    ],
)
def test_forms_that_get_nothing(client: Client, form: Mapping[str, str], status: int) -> None:
    """Wrong secrets are 401, what isn't understood 400: clients try GET then."""
    assert post(client, **form).status == status


@pytest.mark.parametrize(("name", "password"), [("a\0b", "x"), ("ana", "of\0ana")])
def test_a_zero_character_is_nobodys(client: Client, name: str, password: str) -> None:
    """It is refused as in Basic, before a database or a hash sees it: it doesn't even count as a guess."""
    form = {"grant_type": "password", "username": name, "password": password}

    assert {post(client, **form).status for _ in range(12)} == {401}
    assert ask(client, basic(name, password)).status == 401


def test_a_token_that_no_header_holds_is_not_given(client: Client) -> None:
    """More scopes than fit are refused where they are asked for; what is handed out is good for what it says."""
    names = [f"team/{'a' * 100}{at}" for at in range(100)]
    scopes = [f"repository:{name}:pull" for name in names]

    fitting = token_for(client, *scopes[:50], headers=ANA)
    refused = ask(client, ANA, service="registry.test", scope=scopes)

    assert client.get(f"/v2/{names[49]}/tags/list", bearer(fitting)).status == 404
    assert refused.status == 400
    assert b"fewer" in refused.body


def test_who_is_gone_is_gone_with_their_tokens(server: RoadsteadServer, client: Client) -> None:
    """Somebody who was taken out of the file gets in neither with a token nor with a refresh token."""
    bob = basic("bob", "of bob")
    said = ask(client, bob, service="registry.test", scope="repository:team/app:pull", offline_token="true").json()
    assert client.get("/v2/team/app/tags/list", bearer(said["token"])).status in (200, 404)

    write_users(server.directory, ana="of ana")

    assert client.get("/v2/team/app/tags/list", bearer(said["token"])).status == 401
    assert post(client, grant_type="refresh_token", refresh_token=said["refresh_token"]).status == 401


def test_the_keys_are_told(client: Client) -> None:
    """As a JWK set and as certificates, the same ones that sign."""
    token = token_for(client)
    header = jws.extract_compact(token.encode()).headers()

    [key] = client.get("/auth/jwks").json()["keys"]
    certificates = client.get("/auth/certificates").body

    assert (key["kid"], key["alg"], key["use"]) == (header["kid"], "ES256", "sig")
    assert "d" not in key
    jws.deserialize_compact(token, ECKey.import_key(key), algorithms=["ES256"])
    assert certificates.startswith(b"-----BEGIN CERTIFICATE-----")


@pytest.mark.parametrize(("key_ids", "client"), [("libtrust", None), ("thumbprint", DISTRIBUTION)], ids=["v2", "v3"])
def test_distributions_registry_believes_our_tokens(key_ids: str, client: GoClient | None, tmp_path: Path) -> None:
    """With our certificate it takes our tokens, named as its version needs them, for what they grant."""
    program = None if client is None else find_or_build(client)
    write_users(tmp_path, ana="of ana")
    config = SETTINGS.replace('service = "registry.test"', f'service = "registry.test"\nkey_ids = "{key_ids}"')
    with RoadsteadServer(tmp_path, config=config) as server, server.client() as ours:
        bundle = tmp_path / "bundle.pem"
        bundle.write_bytes(ours.get("/auth/certificates").body)
        auth = {
            "realm": f"{server.url}/auth/token",
            "service": "registry.test",
            "issuer": "registry.test",
            "rootcertbundle": str(bundle),
        }
        token = token_for(ours, "repository:team/app:pull,push", headers=ANA)
        with (
            open_registry_peer(more={"auth": {"token": auth}}, program=program) as peer,
            closing(Client(peer.host)) as theirs,
        ):
            asked = theirs.get("/v2/")
            pushed = theirs.post("/v2/team/app/blobs/uploads/", headers=bearer(token))
            elsewhere = theirs.post("/v2/other/app/blobs/uploads/", headers=bearer(token))

    assert f'realm="{server.url}/auth/token"' in asked.headers["www-authenticate"]
    assert (pushed.status, elsewhere.status) == (202, 401)


@pytest.mark.parametrize("kid", ["libtrust", "thumbprint"])
def test_tokens_of_another_issuer(kid: str, tmp_path: Path) -> None:
    """With distribution's configuration we believe what such a token server writes, named in either way."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = Authority.make("nobody").issue(key, "issuer")
    (tmp_path / "bundle.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    name = {"libtrust": libtrust_id, "thumbprint": thumbprint}[kid](key.public_key())
    config = f"""
version: 0.1
storage: {{filesystem: {{rootdirectory: {tmp_path / "data"}}}}}
auth:
  token: {{realm: "https://auth.test/token", service: docker.test, issuer: www.test, rootcertbundle: bundle.pem}}
"""

    def token(**changes: object) -> Mapping[str, str]:
        now = int(time.time())
        access = [{"type": "repository", "name": "syn1/app", "actions": ["pull", "push"]}]
        body = {
            "iss": "www.test",
            "aud": "docker.test",
            "sub": "273950",
            "iat": now,
            "nbf": now - 120,
            "exp": now + 120,
        }
        header = {"typ": "JWT", "alg": "ES256", "kid": name}
        payload = json.dumps({**body, "jti": "x", "access": access, **changes}).encode()
        return bearer(jws.serialize_compact(header, payload, ECKey.import_key(key), algorithms=["ES256"]))

    with RoadsteadServer(tmp_path, config=config, file="config.yml") as server, server.client() as client:
        asked = client.get("/v2/syn1/app/tags/list")
        pushed = client.post("/v2/syn1/app/blobs/uploads/", headers=token())
        elsewhere = client.get("/v2/syn2/app/tags/list", token())
        ended = client.get("/v2/syn1/app/tags/list", token(exp=int(time.time()) - 120))
        foreign = client.get("/v2/syn1/app/tags/list", token(iss="other"))
        no_server = client.get("/auth/token?service=docker.test")

    challenge = 'Bearer realm="https://auth.test/token",service="docker.test",scope="repository:syn1/app:pull"'
    assert asked.every("www-authenticate") == [challenge]
    assert pushed.status == 202
    assert [answer.status for answer in (elsewhere, ended, foreign)] == [401, 401, 401]
    assert 'error="insufficient_scope"' in elsewhere.headers["www-authenticate"]
    assert 'error="invalid_token"' in ended.headers["www-authenticate"]
    assert no_server.status == 404


def test_keys_that_cannot_be_read_end_the_start(tmp_path: Path) -> None:
    """A bundle without a certificate is told once, by name, and so by `config check`."""
    (tmp_path / "bundle.pem").write_text("nothing")
    token = '[auth.token]\nrealm = "https://a"\nservice = "s"\nissuer = "i"\nrootcertbundle = "bundle.pem"\n'

    with pytest.raises(ServerNotReadyError) as caught, RoadsteadServer(tmp_path, config=token):
        pass
    checked = subprocess.run(
        [sys.executable, "-m", "roadstead", "config", "check", str(tmp_path / "roadstead.toml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "bundle.pem: no certificate in PEM" in caught.value.log_tail
    assert checked.returncode == 1
    assert "bundle.pem: no certificate in PEM" in checked.stdout


def test_another_master_key_ends_the_start(tmp_path: Path) -> None:
    """What another master key has sealed is of no use, which is said before a client finds out."""
    write_users(tmp_path, ana="of ana")
    with RoadsteadServer(tmp_path, config=SETTINGS) as server, server.client() as client:
        token_for(client)
    changed = SETTINGS.replace("accounts = true", f'accounts = true\nmaster_key = "{"n" * 32}"')

    with pytest.raises(ServerNotReadyError) as caught, RoadsteadServer(tmp_path, config=changed):
        pass

    assert "auth.master_key" in caught.value.log_tail
