"""Who may ask for container tokens, and what becomes of a token when its creator's rights go."""

import asyncio
import random
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.integration.container_api import ask, asked, layer_object, path_of, pulled, push
from typer.testing import CliRunner

from roadstead.auth.api_keys import NewKey, make_key
from roadstead.auth.caller import Action, RepositoryGlob, Scope
from roadstead.auth.passwords import hash_password
from roadstead.auth.ports import AccountStore
from roadstead.auth.principal import Principal, PrincipalKind
from roadstead.cli.main import app
from roadstead.cli.pushing_layers import LayerNotPushedError
from roadstead.db.engine import open_database
from roadstead.secret import Secret
from roadstead.testing.client import Answer, Client
from roadstead.testing.images import make_image, make_layer
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import wait_until

LAYER = make_layer({"foo.txt": b"rights\n"})
IMAGE = make_image(seed="rights")
BODY = {"containerImage": "team/app:1", "containerConfig": {"layers": [layer_object(LAYER)]}}
OTHER = {**BODY, "containerImage": "other/app:1"}
PASSWORD = "a password of all"
HASHED = Secret(hash_password(PASSWORD))
CONFIG = """
[auth]
accounts = true

[auth.issue]

[[auth.policies]]
subjects = ["group:makers"]
repositories = ["team/*"]
actions = ["pull", "push", "augment"]

[[auth.policies]]
subjects = ["user:reader"]
repositories = ["team/*"]
actions = ["pull"]

[[auth.policies]]
subjects = ["group:admins"]
repositories = ["**"]
actions = ["admin", "pull", "push"]

[[auth.policies]]
subjects = ["anonymous"]
repositories = ["public/*"]
actions = ["pull", "augment"]
"""


class Serving(RoadsteadServer):
    """A server whose accounts are changed beside it, as the commands do."""

    def _changed(self, change: Callable[[AccountStore], Awaitable[object]]) -> None:
        async def run() -> None:
            database = await open_database(f"sqlite:///{self.data}/roadstead.db", migrate=True)
            try:
                await change(database.accounts)
            finally:
                await database.close()

        self.data.mkdir(exist_ok=True)
        asyncio.run(run())

    def user(self, name: str, group: str, *, password: bool = True) -> None:
        """Have an account in one group; without a new password it keeps the one that it has."""
        principal, hashed = Principal(PrincipalKind.USER, name, frozenset({group})), HASHED if password else None
        self._changed(lambda accounts: accounts.put_account(principal, hashed, replace=True, now=datetime.now(UTC)))

    def remove_user(self, name: str) -> None:
        """Remove an account."""
        self._changed(lambda accounts: accounts.remove_account(name))

    def key(self, name: str, *actions: Action) -> NewKey:
        """Make a key for a user."""
        scope = Scope((RepositoryGlob.parse("**"),), frozenset(actions))
        owner = Principal(PrincipalKind.USER, name)
        key = make_key(owner, scope, now=datetime.now(UTC), expires_at=None)
        self._changed(lambda accounts: accounts.put_key(key.row))
        return key

    def revoke(self, key: NewKey) -> None:
        """Revoke a key."""
        self._changed(lambda accounts: accounts.remove_key(key.row.key_id))


class Signed(Client):
    """A client that signs each request."""

    def __init__(self, host: str, name: str) -> None:
        super().__init__(host)
        self._name = name

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request with credentials."""
        return super().request(method, path, body, {**basic(self._name), **(headers or {})})


def basic(name: str, secret: str = "") -> Mapping[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{name}:{secret or PASSWORD}'.encode()).decode()}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server with accounts, policies and tokens of its own, and an image in three repositories."""
    with Serving(tmp_path_factory.mktemp("rights"), config=CONFIG) as running:
        for name, group in (("maker", "makers"), ("second", "makers"), ("root", "admins"), ("reader", "readers")):
            running.user(name, group)
        with Signed(running.host, "root") as root:
            for name in ("team/app", "other/app", "public/app"):
                push(root, name, IMAGE, "1")
        yield running


@pytest.fixture
def client(server: RoadsteadServer) -> Iterator[Client]:
    """A connection of the test's own."""
    with Client(server.host) as client:
        yield client


def test_a_creator_needs_two_rights(client: Client) -> None:
    """To pull and to augment: who has neither, or only one, gets no token; nor does who isn't known."""
    assert ask(client, BODY, basic("maker")).status == 200
    assert ask(client, BODY, basic("reader")).status == 403
    assert ask(client, OTHER, basic("maker")).status == 403
    nowhere = {**OTHER, "containerImage": "other/nowhere:1"}
    assert ask(client, nowhere, basic("maker")).json() != ask(client, OTHER, basic("maker")).json()
    assert ask(client, nowhere, basic("maker")).status == 403
    refused = ask(client, BODY)
    assert refused.status == 401
    assert refused.headers["www-authenticate"].startswith("Basic ")  # programs ask here, not engines
    assert ask(client, BODY, basic("maker", "wrong")).status == 401


def test_a_token_needs_no_signing_in(client: Client) -> None:
    """Whoever has it pulls by it, and nothing else; caches that many share keep nothing of it."""
    target = asked(client, BODY, basic("maker"))["targetImage"]
    pulled(client, target)
    assert client.get("/v2/team/app/manifests/1").status == 401
    answer = client.get(path_of(target))
    blob = client.get(path_of(target).replace("manifests/1", f"blobs/{LAYER.digest}"))
    assert answer.headers["cache-control"] == "no-cache"
    assert blob.headers["cache-control"].startswith("private")


def test_anonymous_tokens_on_loopback(client: Client) -> None:
    """Where policies let everybody augment, and the server is for this machine, nobody has to sign in."""
    body = {**BODY, "containerImage": "public/app:1"}
    assert ask(client, body).status == 200


def test_a_key_where_waves_clients_put_theirs(client: Client, server: Serving) -> None:
    """`towerAccessToken` may be an API key; it stops with the key, and a key that is limited gives no more."""
    key, weak = server.key("maker", Action.PULL, Action.AUGMENT), server.key("maker", Action.PULL)
    target = asked(client, {**BODY, "towerAccessToken": key.text.reveal()})["targetImage"]
    assert ask(client, {**BODY, "towerAccessToken": weak.text.reveal()}).status == 403
    assert ask(client, {**BODY, "towerAccessToken": "eyJ0aWQiOiAxfQ"}).status == 401
    assert client.head(path_of(target)).status == 200

    server.revoke(key)

    for worker in server.workers:
        assert server.client_of(worker).head(path_of(target)).status == 404


def test_a_large_layer_needs_the_right_to_push(client: Client, server: Serving, tmp_path: Path) -> None:
    """The command pushes it with the key that it asks with; without the right it says which one is missing."""
    large = make_layer({"noise": random.Random(5).randbytes(2 << 20)})
    (tmp_path / "layer.tar.gz").write_bytes(large.raw)
    key_file = tmp_path / "key"
    words = ["augment", "team/app:1", "--service", server.url, "--layer", str(tmp_path / "layer.tar.gz")]

    key_file.write_text(server.key("maker", Action.PULL, Action.AUGMENT).text.reveal())
    refused = CliRunner().invoke(app, [*words, "--key-file", str(key_file)])
    assert isinstance(refused.exception, LayerNotPushedError)
    assert "team/app" in str(refused.exception)
    assert "--action push" in refused.exception.advice()

    key_file.write_text(server.key("maker", Action.PULL, Action.AUGMENT, Action.PUSH).text.reveal())
    done = CliRunner().invoke(app, [*words, "--key-file", str(key_file)])
    assert done.exit_code == 0, done.output
    assert pulled(client, done.stdout.strip())[1][str(large.digest)] == large.raw


def test_a_creator_who_lost_the_right(client: Client, server: Serving) -> None:
    """A token stops in all workers with the right of who made it, and is good again with it; so it is by digest."""
    answer = asked(client, BODY, basic("second"))
    by_tag = path_of(answer["targetImage"])
    by_digest = f"{by_tag.rpartition('/')[0]}/{answer['targetDigest']}"

    def statuses() -> set[int]:
        clients = [server.client_of(worker) for worker in server.workers]
        return {one.head(path).status for one in clients for path in (by_tag, by_digest)}

    assert statuses() == {200}
    server.user("second", "readers")
    assert statuses() == {404}
    assert client.get(f"/container-token/{answer['containerToken']}").status == 404
    server.user("second", "makers")
    assert statuses() == {200}
    server.remove_user("second")
    assert statuses() == {404}


def test_who_may_end_a_token(client: Client) -> None:
    """Who made it, and administrators; others are asked to sign in, or refused."""

    def ended(by: Mapping[str, str]) -> int:
        token = asked(client, BODY, basic("maker"))["containerToken"]
        answer = client.request("DELETE", f"/container-token/{token}", headers=by)
        if answer.status == 401:
            assert answer.headers["www-authenticate"]
        return answer.status

    assert [ended(by) for by in ({}, basic("reader"), basic("maker"), basic("root"))] == [401, 403, 200, 200]


def test_inspecting_needs_the_right_to_pull(client: Client) -> None:
    """Nobody learns of an image that they may not pull."""
    body = b'{"containerImage": "team/app:1"}'
    assert client.post("/v1alpha1/inspect", body).status == 401
    assert client.post("/v1alpha1/inspect", body, basic("reader")).status == 200
    assert client.post("/v1alpha1/inspect", b'{"containerImage": "other/app:1"}', basic("reader")).status == 403


def test_where_nobody_can_sign_in(tmp_path: Path) -> None:
    """A word opens tokens to everybody, or closes them; who gets none is told of it."""
    for word, status in (("false", 403), ("true", 200)):
        config = f"[augment]\nanonymous_tokens = {word}\n"
        with RoadsteadServer(tmp_path / word, config=config, workers=1) as server:
            client = server.client()
            push(client, "team/app", IMAGE, "1")
            answer = ask(client, BODY)
            assert answer.status == status
            assert status == 200 or "anonymous_tokens" in answer.json()["message"]


def test_tokens_end(tmp_path: Path) -> None:
    """After the time that settings say, in every worker and also by digest."""
    with RoadsteadServer(tmp_path, config='[augment]\ntoken_lifetime = "2s"\n') as server:
        client = server.client()
        push(client, "team/app", IMAGE, "1")
        answer = asked(client, BODY)
        path = path_of(answer["targetImage"])
        assert client.get(path).status == 200
        assert wait_until(lambda: client.get(path).status == 404, timeout=timedelta(seconds=10))
        refused = client.get(path)
        assert "ended at" in refused.json()["errors"][0]["message"]
        by_digest = f"{path.rpartition('/')[0]}/{answer['targetDigest']}"
        assert {server.client_of(worker).get(by_digest).status for worker in server.workers} == {404}
