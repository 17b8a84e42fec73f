"""What others were broken by, row by row: for each weakness a test of its name, or where it is shown already.

`ROWS` is the table. The rows are those of what registries, token servers and their clients have had to mend.
"""

import ast
import hashlib
import hmac
import json
import os
import socket
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import bcrypt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jws
from joserfc.jwk import ECKey, OctKey
from tests.certificates import Authority

from roadstead.auth import passwords
from roadstead.auth.access import Access
from roadstead.auth.errors import CredentialsWrongError
from roadstead.auth.limiter import FailureLimiter
from roadstead.auth.passwords import Passwords, hash_password
from roadstead.auth.policies import Policies
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.auth.providers.accounts import Accounts, ApiKeys
from roadstead.auth.providers.htpasswd import HtpasswdFile
from roadstead.oci.digest import Digest
from roadstead.secret import Secret
from roadstead.testing.client import Answer, Client
from roadstead.testing.clock import FrozenClock
from roadstead.testing.images import make_artifact, make_image, make_index
from roadstead.testing.memory_accounts import MemoryAccounts
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.wire import Wire
from roadstead.upstream.challenge import parse_challenges

HERE = "tests/integration/test_access_rows.py"
MODEL = "tests/integration/test_access_model.py"
SERVED = "tests/integration/test_access_served.py"
SIGN_IN = "tests/integration/test_sign_in.py"
UPSTREAM = "tests/integration/test_upstream.py"

ROWS: Mapping[str, tuple[str, ...]] = {
    "the catalogue by another spelling of its path (CVE-2020-29662)": (
        f"{HERE}::test_catalogue_leak",
        f"{MODEL}::test_no_other_spelling_of_the_catalog_is_open",
        f"{MODEL}::test_the_catalog_shows_what_may_be_pulled",
    ),
    "a refusal that tells what is here": (f"{HERE}::test_refusals_do_not_tell_what_is_here",),
    "a mount of what one may not read (CVE-2024-39897)": (
        f"{HERE}::test_mount_bypass",
        f"{MODEL}::test_a_mount_needs_the_right_to_read_the_source",
        f"{SIGN_IN}::test_a_mount_from_what_one_may_not_read_is_an_upload",
    ),
    "credentials after a redirect (CVE-2020-15157)": (
        f"{UPSTREAM}::test_credentials_do_not_follow_to_another_host",
        "tests/integration/test_events.py::test_credentials_stay_where_they_belong",
    ),
    "credentials for a realm elsewhere (CVE-2026-33540)": (
        f"{UPSTREAM}::test_credentials_do_not_go_to_a_strangers_token_service",
        "tests/integration/test_proxy.py::test_a_realm_elsewhere_gets_no_password",
        "tests/unit/upstream/test_rules.py::test_who_gets_credentials",
    ),
    "requests on somebody's behalf to inner addresses, realms included (CVE-2026-32591)": (
        f"{UPSTREAM}::test_only_public_addresses",
        f"{UPSTREAM}::test_beside_a_proxy_addresses_are_checked",
        "tests/unit/upstream/test_rules.py::test_realms_on_this_machine",
        "tests/unit/upstream/test_rules.py::test_other_addresses",
    ),
    "a token for one repository used on another": (
        f"{HERE}::test_scope_confusion",
        "tests/unit/auth/test_scope.py::test_scopes_are_read",
        "tests/integration/test_tokens.py::test_more_than_is_allowed_is_not_given",
    ),
    "tricks with alg, kid and keys that a token brings (CVE-2025-24976)": (
        f"{HERE}::test_alg_and_kid_tricks",
        "tests/unit/auth/test_verifying.py::test_tricks",
        "tests/unit/auth/test_verifying.py::test_a_shared_secret",
    ),
    "names told by how long a refusal takes": (
        f"{HERE}::test_timing_of_names",
        f"{MODEL}::test_a_refusal_comes_before_anybody_looks",
        f"{MODEL}::test_a_refusal_does_not_tell_what_there_is",
        "tests/unit/auth/test_htpasswd.py::test_an_unknown_name_costs_what_a_known_one_costs",
    ),
    "header lines, and lines of the log, that a client writes": (
        f"{HERE}::test_header_injection",
        f"{HERE}::test_challenge_injection",
        "tests/integration/test_bad_input.py::test_no_path_leads_elsewhere",
    ),
    "a redirect to wherever a client says (Z fea81a55)": (f"{HERE}::test_open_redirect",),
    "a made-up host in an address that we give": (
        f"{HERE}::test_made_up_hosts",
        "tests/integration/test_hosts.py::test_who_calls_it_otherwise_is_sent_nowhere",
        "tests/unit/http/test_causes.py::test_where_content_is_found",
    ),
    "a blob served as a page, with the cookies of ours": (
        f"{HERE}::test_a_blob_is_no_page",
        f"{HERE}::test_cookies_sign_nobody_in",
    ),
    "a page elsewhere that has a browser act (CSRF)": (
        "tests/integration/test_api.py::test_pages_of_others_change_nothing",
    ),
    "an immutable tag got round by digest (PROJQUAY-10504, CVE-2026-31801)": (
        f"{HERE}::test_immutable_tags",
        "src/roadstead/testing/contracts/tag_rules.py::test_what_an_immutable_tag_needs_stays_pullable",
        "src/roadstead/testing/contracts/tag_rules.py::test_an_immutable_tag_is_not_removed",
    ),
    "another's upload session (CVE-2026-32589)": (f"{SIGN_IN}::test_an_upload_belongs_to_whoever_began_it",),
    "groups and keys that were taken away (CVE-2025-23208)": (
        f"{SIGN_IN}::test_groups_count_with_the_next_request",
        "tests/integration/test_revocation.py::test_a_revoked_key_is_refused_everywhere_at_once",
    ),
    "passwords that an installation begins with (CVE-2026-4404)": (f"{HERE}::test_no_first_password",),
    "a route that nobody guards (CVE-2026-24124)": (
        f"{MODEL}::test_every_route_is_asked_about",
        f"{SERVED}::test_every_operation_is_asked_about",
    ),
    "rules that hold in one process and not in the other": (
        f"{SERVED}::test_the_workers_decide_as_the_model_does",
        f"{SERVED}::test_the_replicas_decide_as_the_model_does",
    ),
}

SERVICE = "registry.test"
CONFIG = f"""
[auth]
htpasswd = "users"
accounts = true

[auth.issue]
service = "{SERVICE}"

[[auth.policies]]
subjects = ["user:ana"]
repositories = ["private/**", "team/**", "fixed/**"]
actions = ["pull", "push", "delete"]

[[auth.policies]]
subjects = ["user:bob"]
repositories = ["team/**"]
actions = ["pull", "push"]

[registry]
immutable = ["fixed/*:v*"]

[[upstreams]]
host = "up.example"
url = "http://127.0.0.1:9"
default_for = ["private/mirrored/*"]
allow_push = true
"""
CATALOG = "/v2/_catalog"


def basic(name: str, password: str) -> Mapping[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"}


def bearer(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"}


ANA, BOB = basic("ana", "of ana"), basic("bob", "of bob")


@dataclass(frozen=True, slots=True)
class As:
    """A client that signs in with every request."""

    client: Client
    headers: Mapping[str, str]

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        return self.client.request(method, path, body, {**self.headers, **headers})

    def push_blob(self, name: str, data: bytes) -> Digest:
        digest = Digest.of(data)
        assert self.ask("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", data).status == 201
        return digest

    def put(self, name: str, reference: str, raw: bytes, media_type: str) -> Answer:
        return self.ask("PUT", f"/v2/{name}/manifests/{reference}", raw, **{"Content-Type": media_type})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoadsteadServer]:
    directory = tmp_path_factory.mktemp("rows")
    lines = [f"{name}:{bcrypt.hashpw(f'of {name}'.encode(), bcrypt.gensalt(4)).decode()}\n" for name in ("ana", "bob")]
    (directory / "users").write_text("".join(lines))
    with RoadsteadServer(directory, config=CONFIG) as running:
        yield running


@pytest.fixture
def client(server: RoadsteadServer) -> Client:
    return server.client()


@pytest.fixture
def ana(client: Client) -> As:
    return As(client, ANA)


@pytest.fixture
def bob(client: Client) -> As:
    return As(client, BOB)


def token_for(client: Client, *scopes: str, headers: Mapping[str, str] | None = None) -> str:
    query = urlencode({"service": SERVICE, "scope": list(scopes)}, doseq=True)
    return str(client.get(f"/auth/token?{query}", headers or {}).json()["token"])


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_its_tests(row: str) -> None:
    """Whatever the table names is there, and is a test."""
    for reference in ROWS[row]:
        path, _, name = reference.partition("::")
        tree = ast.parse((Path(__file__).parents[2] / path).read_text())
        names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        assert name in names, reference


SPELLINGS = [
    *("//v2/_catalog", "/v2//_catalog", "/v2/./_catalog", "/v2/x/../_catalog", "/V2/_catalog", "/v2/_catalog/"),
    *("/v2/%5Fcatalog", "/v2/%2e/_catalog", "/v2/_catalog%00", "/v2/_catalog;x", "/v2/_catalog?n=1", "/v2/_CATALOG"),
    *("/v1/search?q=", "/v2/_oci/ext/discover", "http://registry.test/v2/_catalog", "/api/v1/repositories"),
    *("//api/v1/repositories", "/api//v1/repositories", "/api/v1/repositories/", "/api/v1/%72epositories"),
    *("/API/v1/repositories", "/api/v1/./repositories", "/api/v1/x/../repositories", "/api/v1/repository"),
    *("/api/v1/tags?repository=private/x", "/api/v1/audit", "/api/v1/events", "/api/v1/users"),
]


@pytest.mark.parametrize("headers", [{}, BOB], ids=["nobody", "bob"])
@pytest.mark.parametrize("path", SPELLINGS)
def test_catalogue_leak(server: RoadsteadServer, ana: As, path: str, headers: Mapping[str, str]) -> None:
    """However the path is written, raw on the wire, nobody is told of a repository that they may not pull from."""
    ana.push_blob("private/x", b"private")
    for method in ("GET", "POST", "QUERY"):
        with Wire(server.host) as wire:
            wire.send_head(method, path, [*headers.items(), ("Content-Length", "0")])
            answer = wire.answer(method)

        assert 400 <= answer.status < 500, (method, answer)
        assert b'"repositories"' not in answer.body


def test_refusals_do_not_tell_what_is_here(ana: As, bob: As) -> None:
    """A name that is an upstream's, unless something of that name is here, is refused in the same words either way."""
    ana.push_blob("private/mirrored/here", b"private")

    for method, path in [
        *((method, "/v2/{}/manifests/1") for method in ("GET", "HEAD", "PUT", "DELETE")),
        *(("GET", "/v2/{}/tags/list"), ("GET", "/v2/as-pushed/{}/manifests/1"), ("POST", "/v2/{}/blobs/uploads/")),
    ]:
        told = []
        for name in ("private/mirrored/here", "private/mirrored/none"):
            answer = bob.ask(method, path.format(name))
            told.append((answer.status, answer.headers.get("content-length"), answer.body.replace(name.encode(), b"")))
        assert told[0] == told[1], (method, path)
        assert told[0][0] == 403


def test_mount_bypass(ana: As, bob: As) -> None:
    """Bytes that are here, and whose digest one knows, are no reason to be given them: not by HEAD, by a mount from
    anywhere, nor by a manifest that says that it needs them.
    """
    digest = ana.push_blob("private/mounted", b"only for ana")
    mount = f"/v2/team/mounts/blobs/uploads/?mount={digest}"
    for source in (
        *("", "&from=private/mounted", "&from=private%2Fmounted", "&from=as-pushed/private/mounted", "&from="),
        *("&from=team/mounts", "&from=team/../private/mounted", "&from=team/mounts&from=private/mounted"),
    ):
        answer = bob.ask("POST", mount + source)
        assert (answer.status, "docker-content-digest" in answer.headers) == (202, False), source
    manifest = make_artifact(content=b"only for ana")
    config = bob.push_blob("team/mounts", b"{}")
    assert str(digest) in manifest.raw.decode()

    claimed = bob.put("team/mounts", "1", manifest.raw, manifest.media_type)

    assert (claimed.status, claimed.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert bob.ask("HEAD", f"/v2/private/mounted/blobs/{digest}").status == 403
    assert bob.ask("HEAD", f"/v2/team/mounts/blobs/{config}").status == 200
    for method in ("HEAD", "GET"):
        assert bob.ask(method, f"/v2/team/mounts/blobs/{digest}").status == 404


@pytest.mark.parametrize(
    ("scopes", "method", "path"),
    [
        (["repository:team/a:pull"], "GET", "/v2/team/a/b/tags/list"),
        (["repository:team/a:pull"], "GET", "/v2/team/ab/tags/list"),
        (["repository:team/a:pull"], "GET", "/v2/team/tags/list"),
        (["repository:team/a:pull"], "POST", "/v2/team/a/blobs/uploads/"),
        (["repository:team/a:push"], "GET", "/v2/team/a/tags/list"),
        (["repository:team/a:pull,push"], "DELETE", "/v2/team/a/manifests/1"),
        (["repository:team/a:pull,push"], "GET", CATALOG),
        (["repository:team/a:pull,push"], "GET", "/api/v1/tags?repository=team/ab"),
        (["repository:team/a:pull,push"], "GET", "/api/v1/repositories"),
        (["repository:team/*:pull"], "GET", "/v2/team/a/tags/list"),
        (["repository:**:*"], "GET", "/v2/team/a/tags/list"),
        (["repository:team/a:pull:push"], "POST", "/v2/team/a/blobs/uploads/"),
        (["registry:catalog:*"], "GET", "/v2/catalog/tags/list"),
        (["repository:catalog:*"], "GET", CATALOG),
        (["registry:team/a:*"], "GET", "/v2/team/a/tags/list"),
        (["Repository:team/a:pull"], "GET", "/v2/team/a/tags/list"),
        (["repository:team/a\nrepository:team/b:pull"], "GET", "/v2/team/a/tags/list"),
    ],
)
def test_scope_confusion(client: Client, scopes: list[str], method: str, path: str) -> None:
    """A token is good for the names and actions that it says, to the letter: 401 asks for another."""
    token = token_for(client, *scopes, headers=BOB)

    answer = client.request(method, path, headers=bearer(token))

    assert answer.status == 401
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> Any:
    return json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def _unsigned(header: Mapping[str, Any], claims: Mapping[str, Any], signature: bytes = b"") -> str:
    return ".".join([_encoded(json.dumps(header).encode()), _encoded(json.dumps(claims).encode()), _encoded(signature)])


def _with_mac(header: Mapping[str, Any], claims: Mapping[str, Any], key: bytes) -> str:
    signed = _unsigned(header, claims).rpartition(".")[0]
    return f"{signed}.{_encoded(hmac.new(key, signed.encode(), hashlib.sha256).digest())}"


def _signed(header: dict[str, Any], claims: Mapping[str, Any], key: ec.EllipticCurvePrivateKey) -> str:
    registry = jws.JWSRegistry(algorithms=["ES256"], strict_check_header=False)
    return jws.serialize_compact(header, json.dumps(claims).encode(), ECKey.import_key(key), registry=registry)


def test_alg_and_kid_tricks(client: Client) -> None:
    """The genuine token of a service, its claims widened, and everything that was ever believed for it elsewhere: no
    signature, our public key as a shared secret, a key or a chain or an address of keys that the token itself brings.
    """
    genuine = token_for(client, "repository:team/a:pull", headers=BOB)
    header, claims = (_decoded(part) for part in genuine.split(".")[:2])
    signature = genuine.rpartition(".")[2]
    wide = {**claims, "access": [{"type": "repository", "name": "private/x", "actions": ["*"]}], "sub": "ana"}
    [public] = client.get("/auth/jwks").json()["keys"]
    certificate = client.get("/auth/certificates").body
    key = ECKey.import_key(public)
    own = ec.generate_private_key(ec.SECP256R1())
    own_public = ECKey.import_key(own.public_key()).as_dict()
    chain = [b64encode(Authority.make().issue(own, SERVICE).public_bytes(Encoding.DER)).decode()]
    secrets = [
        certificate,
        json.dumps(public).encode(),
        key.as_bytes(encoding="PEM"),
        key.as_bytes(encoding="DER"),
        key.public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),  # type: ignore[attr-defined]
        b"",
    ]
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/keys"
        tricks = {
            "widened": f"{genuine.partition('.')[0]}.{_encoded(json.dumps(wide).encode())}.{signature}",
            **{
                f"alg {word!r}": _unsigned({**header, "alg": word}, wide) for word in ("none", "None", "nOnE", "", None)
            },
            "alg none, the old signature": f"{_unsigned({**header, 'alg': 'none'}, wide)}{signature}",
            **{
                f"shared secret {number}": _with_mac({**header, "alg": "HS256"}, wide, secret)
                for number, secret in enumerate(secrets)
            },
            "a foreign key, our kid": _signed(dict(header), wide, own),
            "a key of its own": _signed({**header, "jwk": own_public}, wide, own),
            "a key of its own by our kid": _signed({**header, "jwk": {**own_public, "kid": header["kid"]}}, wide, own),
            "a shared key of its own": _with_mac(
                {"alg": "HS256", "jwk": OctKey.import_key("k" * 32).as_dict(private=True)}, wide, b"k" * 32
            ),
            "a chain of its own": _signed({**header, "x5c": chain}, wide, own),
            "keys elsewhere": _signed({**header, "jku": address}, wide, own),
            "certificates elsewhere": _signed({**header, "x5u": address}, wide, own),
            **{
                f"kid {kid!r}": _signed({**header, "kid": kid}, wide, own)
                for kid in ("../../../dev/null", "/dev/null", "' OR 1=1 --", "", "\u0000", "x" * 5000)
            },
            "no kid": _signed({"alg": "ES256"}, wide, own),
            "a signature of nothing but zeros": _unsigned(header, wide, bytes(64)),
            "an extension that has to be understood": _signed({**header, "crit": ["b64"], "b64": False}, wide, own),
        }
        refused = {
            trick: (answer.status, 'error="invalid_token"' in answer.headers.get("www-authenticate", ""))
            for trick, token in tricks.items()
            for answer in [client.get("/v2/private/x/tags/list", bearer(token))]
        }
        with pytest.raises(BlockingIOError):
            listener.accept()

    assert {trick: said for trick, said in refused.items() if said != (401, True)} == {}
    assert client.get("/v2/team/a/tags/list", bearer(genuine)).status == 404  # let in: it isn't there


async def test_timing_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: a refusal costs the same slow hashes whoever is named, and whether anybody is."""
    users = tmp_path / "users"
    users.write_text(f"ana:{bcrypt.hashpw(b'of ana', bcrypt.gensalt(4)).decode()}\n")
    store, clock, kept = MemoryAccounts(), FrozenClock(), Passwords(FailureLimiter())
    for name, kind, password in (("carol", PrincipalKind.USER, "of carol"), ("ci", PrincipalKind.ROBOT, None)):
        hashed = None if password is None else Secret(hash_password(password))
        await store.put_account(Principal(kind, name), hashed, replace=False, now=clock.now())
    access = Access(
        Policies(), [ApiKeys(store, clock), Accounts(store, kept), HtpasswdFile(users, kept)], FailureLimiter()
    )
    check, counted = passwords.check, Counter[str]()

    def counting(hashed: str, password: str) -> bool:
        counted[hashed[:4]] += 1
        return check(hashed, password)

    monkeypatch.setattr(passwords, "check", counting)
    costs = {}
    for name, password in (
        *(("nobody", "x"), ("ana", "x"), ("carol", "x"), ("ci", "x"), ("", "x"), ("a" * 500, "x")),
        *(("nobody", "rs_0123456789ab_x"), ("ci", "rs_0123456789ab_x"), ("ana", ""), ("nobody", "")),
    ):
        counted.clear()
        with pytest.raises(CredentialsWrongError):
            await access.identify(basic(name, password)["Authorization"], f"192.0.2.{len(costs)}")
        costs[name, password] = dict(counted)

    assert {tuple(sorted(cost.items())) for cost in costs.values()} == {(("$2b$", 1), ("$arg", 1))}, costs


@pytest.mark.parametrize(
    "path",
    [
        f"{CATALOG}?last={{}}&n=1",
        f"{CATALOG}?n={{}}",
        "/v2/team/a/tags/list?last={}&n=1",
        "/v2/team/a/blobs/uploads/?digest={}",
        "/v2/team/a/blobs/uploads/?mount={}&from={}",
        "/v2/team/a/blobs/uploads/?digest-algorithm={}",
        "/v2/team/a/referrers/sha256:" + "0" * 64 + "?artifactType={}",
        "/v2/team/a/manifests/{}",
        "/v2/team/{}/tags/list",
        f"/auth/token?service={SERVICE}&scope={{}}&account={{}}",
        "/auth/token?service={}",
        "/api/v1/tags?repository={}",
        "/{}",
    ],
)
def test_header_injection(server: RoadsteadServer, ana: As, path: str) -> None:
    """Ends of lines in what is said back stay what they are: no header begins with them, and no line of the log."""
    planted = "x\r\nX-Injected: yes\r\n\r\nforged=1"
    for method in ("GET", "POST", "PUT"):
        answer = ana.ask(method, path.replace("{}", quote(planted, safe="")), **{"User-Agent": "x"})

        assert "x-injected" not in answer.headers
        assert all("\r" not in value and "\n" not in value for _, value in answer.all_headers)
    anybody = As(ana.client, basic(planted, "x")).ask("GET", "/v2/")
    assert anybody.status in (401, 429)
    assert not [line for line in server.log.splitlines() if line.startswith(("forged", "X-Injected"))]


@pytest.mark.parametrize("host", ['a",realm="http://evil.test', "evil.test/x?", "a b", "ev\\il", "[::1", ""])
def test_challenge_injection(server: RoadsteadServer, host: str) -> None:
    """A Host header is a name of ours, quoted, or nothing: it adds no parameter to the challenge that is made of it."""
    with Wire(server.host) as wire:
        wire.send(f"GET /v2/team/a/tags/list HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answer = wire.answer()

    assert answer.status in (400, 401, 421)
    for challenge in parse_challenges(answer.every("www-authenticate")):
        assert challenge.parameters.keys() == {"realm", "service", "scope"}
        assert challenge.parameters["realm"].startswith(f"http://{host[:2]}")


@pytest.mark.parametrize(
    "path",
    [
        *("//evil.test", "//evil.test/v2/", "/\\evil.test", "/%5Cevil.test", "/%2F/evil.test/", "/v2//evil.test/"),
        *("/v2?next=http://evil.test", "/?next=//evil.test", "/auth/token?redirect_uri=http://evil.test"),
        *("/api//evil.test", "/api/v1/..//evil.test", "http://evil.test/v2", "/v2/team/a/tags/list/"),
    ],
)
def test_open_redirect(server: RoadsteadServer, path: str) -> None:
    """No answer leads anywhere that a client made up; there is no redirect to a path that begins with two slashes."""
    for method in ("GET", "HEAD", "POST"):
        with Wire(server.host) as wire:
            wire.send_head(method, path, [*ANA.items(), ("Content-Length", "0")])
            answer = wire.answer(method)

        assert answer.status // 100 != 3
        assert "evil" not in answer.headers.get("location", "")
        assert "refresh" not in answer.headers


def test_made_up_hosts(server: RoadsteadServer) -> None:
    """Locations are paths, and headers that a proxy would write count from nobody else."""
    said = {"X-Forwarded-Host": "evil.test", "Forwarded": "host=evil.test;proto=https", "X-Original-URL": CATALOG}
    with closing(Client(server.host)) as client:
        door = client.get("/v2/", said)
        begun = client.post("/v2/team/a/blobs/uploads/", None, {**BOB, **said})
        session = client.get(begun.headers["location"], {**BOB, **said, "Host": "evil.test"})

    assert f'realm="http://{server.host}/auth/token"' in door.headers["www-authenticate"]
    assert begun.headers["location"].startswith("/v2/team/a/blobs/uploads/")
    assert session.headers["location"].startswith("/v2/team/a/blobs/uploads/")


def test_a_blob_is_no_page(ana: As) -> None:
    """Whatever was pushed, and however it is asked for: data to be kept, that no browser takes for a page or a script
    of this host.
    """
    page = b"<!doctype html><script>alert(document.cookie)</script>" + os.urandom(8).hex().encode()
    digest = ana.push_blob("team/pages", page)
    artifact = make_artifact(content=page, annotations={"title": "<script>alert(1)</script>"})
    for data in artifact.blobs.values():
        ana.push_blob("team/pages", data)
    assert ana.put("team/pages", "1", artifact.raw, artifact.media_type).status == 201
    asked = {"Accept": "text/html,*/*", "Sec-Fetch-Dest": "document"}

    answers = [
        ana.ask("GET", f"/v2/team/pages/blobs/{digest}", **asked),
        ana.ask("GET", f"/v2/team/pages/blobs/{digest}", **asked, Range="bytes=0-20"),
        ana.ask("GET", f"/v2/team/pages/blobs/{digest}", **asked, Range="bytes=0-20,30-40"),
        ana.ask("HEAD", f"/v2/team/pages/blobs/{digest}", **asked),
        ana.ask("GET", "/v2/team/pages/manifests/1", **asked),
        ana.ask("GET", f"/v2/team/pages/manifests/{artifact.digest}", **asked),
    ]

    for answer in answers:
        assert answer.status in (200, 206)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "sandbox"
        assert answer.headers["content-disposition"] == "attachment"
        assert not answer.headers["content-type"].startswith(("text/", "image/svg", "application/xhtml"))
    told = [
        ana.ask("GET", "/v2/team/%3Cscript%3Ealert(1)%3C%2Fscript%3E/tags/list", **asked),
        ana.ask("GET", "/v2/team/pages/manifests/%3Cscript%3E", **asked),
        ana.ask("GET", "/api/v1/tags?repository=%3Cscript%3E", **asked),
        ana.ask("GET", "/v2/team/pages/referrers/" + str(artifact.digest), **asked),
        ana.ask("GET", "/v2/team/pages/tags/list", **asked),
    ]
    assert all("json" in answer.headers["content-type"] for answer in told)


def test_cookies_sign_nobody_in(client: Client) -> None:
    """A password or a token in a cookie is nobody's, wherever it is sent; and none is ever given."""
    token = token_for(client, "repository:private/x:pull", headers=ANA)
    cookies = [
        f"Authorization={quote(ANA['Authorization'])}",
        f"session={token}; token={token}; access_token={token}; Bearer={token}",
        f"roadstead={token}",
    ]
    for cookie in cookies:
        for method, path in (
            ("GET", "/v2/private/x/tags/list"),
            ("POST", "/v2/private/x/blobs/uploads/"),
            ("DELETE", "/v2/private/x/manifests/1"),
            ("GET", CATALOG),
            ("GET", "/api/v1/users"),
            ("GET", "/metrics"),
        ):
            answer = client.request(method, path, headers={"Cookie": cookie})
            assert answer.status == 401, (method, path)
            assert "set-cookie" not in answer.headers
    for path in ("/", "/v2/", "/auth/token", "/api/schema"):
        assert "set-cookie" not in client.get(path, ANA).headers


def test_immutable_tags(ana: As) -> None:
    """Made once, by tag or by a parameter of a push by digest; then neither moved nor emptied: not by its name, by the
    digest that it is at, by that of a part of it, nor by that of a blob which a pull needs.
    """
    images = [make_image(layers=1, size=100, seed=f"fixed{number}") for number in range(3)]
    index = make_index(images[:2])
    for image in images:
        for data in image.blobs.values():
            ana.push_blob("fixed/app", data)
        assert ana.put("fixed/app", str(image.digest), image.raw, image.media_type).status == 201
    single, other = images[0], images[2]
    layer = next(digest for digest in images[1].blobs if digest != images[1].config_digest)

    made = [
        ana.put("fixed/app", "v1", single.raw, single.media_type),
        ana.put("fixed/app", f"{index.digest}?tag=v2&tag=latest", index.raw, index.media_type),
        ana.put("fixed/app", "v2", index.raw, index.media_type),
    ]
    refused = [
        ana.put("fixed/app", "v1", other.raw, other.media_type),
        ana.put("fixed/app", f"{other.digest}?tag=v1", other.raw, other.media_type),
        ana.put("fixed/app", f"{other.digest}?tag=fresh&tag=v2", other.raw, other.media_type),
        *(
            ana.ask("DELETE", f"/v2/fixed/app/{what}")
            for what in (
                "manifests/v1",
                "manifests/v2",
                f"manifests/{single.digest}",
                f"manifests/{index.digest}",
                f"manifests/{images[1].digest}",
                f"blobs/{images[1].config_digest}",
                f"blobs/{layer}",
            )
        ),
        ana.ask(
            "POST",
            "/api/v1/tags/restore",
            json.dumps({"repository": "fixed/app", "tag": "v1", "at": "2026-01-01T00:00:00Z"}).encode(),
            **{"Content-Type": "application/json"},
        ),
    ]

    assert [answer.status for answer in made] == [201] * 3
    assert [(answer.status, answer.code) for answer in refused[:-1]] == [(403, "DENIED")] * (len(refused) - 1)
    assert refused[-1].status in (403, 404)  # it never was anywhere else
    assert ana.ask("GET", "/v2/fixed/app/tags/list").json()["tags"] == ["latest", "v1", "v2"]
    assert ana.ask("GET", "/v2/fixed/app/manifests/v1", Accept="*/*").body == single.raw
    assert ana.ask("GET", "/v2/fixed/app/manifests/v2", Accept="*/*").body == index.raw
    assert ana.ask("GET", f"/v2/fixed/app/blobs/{layer}").status == 200
    assert ana.ask("DELETE", f"/v2/fixed/app/manifests/{other.digest}").status == 202
    assert ana.ask("DELETE", f"/v2/fixed/app/blobs/{other.config_digest}").status == 202


def test_no_first_password(client: Client) -> None:
    """Nobody is let in by a name and a password that came with the installation: there are none."""
    for name, word in (("admin", "admin"), ("admin", "Harbor12345"), ("docker", "docker"), ("root", "root"), ("", "")):
        assert client.get("/v2/team/a/tags/list", basic(name, word)).status in (401, 429)
