"""Ways in that somebody tried who meant harm, on the real server: each of them was open once."""

import io
import json
import tarfile
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlencode

import pytest
from tests.integration.container_api import JSON, ask, asked, path_of, pulled
from tests.integration.container_api import push as push_to
from tests.integration.test_container_rights import BODY, CONFIG, IMAGE, PASSWORD, Serving, Signed, basic
from tests.integration.test_signing import CONFIG as POLICIES
from tests.integration.test_signing import get, name_in, new_key, private_pem, public_pem, push, sign

from roadstead.oci.digest import Digest
from roadstead.signatures import names
from roadstead.signatures.keys import SigningKey
from roadstead.testing.client import Client
from roadstead.testing.images import make_image
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import wait_until


@pytest.fixture(scope="module")
def trusted() -> SigningKey:
    """The key that the policies of the server trust."""
    return new_key()


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory, trusted: SigningKey) -> Iterator[RoadsteadServer]:
    """A server whose images have to be signed."""
    directory = tmp_path_factory.mktemp("signing")
    (directory / "ours.key").write_text(private_pem(new_key()))
    (directory / "trusted.pub").write_text(public_pem(trusted))
    with RoadsteadServer(directory, config=POLICIES, workers=1) as server:
        yield server


@pytest.fixture(scope="module")
def controlled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server with accounts, policies and tokens of its own."""
    with Serving(tmp_path_factory.mktemp("controlled"), config=CONFIG, workers=1) as running:
        running.user("maker", "makers")
        running.user("root", "admins")
        with Signed(running.host, "root") as root:
            push_to(root, "team/app", IMAGE, "1")
        yield running


# Images that have to be signed


def test_an_unsigned_manifest_is_not_given_as_a_blob(signing: RoadsteadServer) -> None:
    """What a policy refuses among the manifests isn't to be had among the blobs; below as-pushed/ it is, as there."""
    name, image = name_in("signed"), make_image(seed="as a blob")
    with signing.client() as client:
        push(client, name, image)
        path = f"{name}/blobs/{image.digest}"
        answer = client.get(f"/v2/{path}")

        assert (answer.status, answer.code) == (403, "DENIED")
        assert client.get(f"/v2/as-pushed/{path}").status == 200
        strict = name_in("strict")
        push(client, strict, image)
        assert client.get(f"/v2/as-pushed/{strict}/blobs/{image.digest}").status == 403


def test_layers_that_are_only_called_signatures_free_no_image(signing: RoadsteadServer) -> None:
    """podman unpacks what is a tar, whatever its type says: an image isn't a signature by calling its layers so."""
    name = name_in("signed")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("{"))  # begins as JSON does
    image = make_image(seed="disguised")
    with signing.client() as client:
        for layer in (packed.getvalue(), *image.blobs.values()):
            client.push_blob(name, layer)
        for media_type in (names.SIMPLE_SIGNING, "application/cose", "application/vnd.dsse.envelope.v1+json"):
            for layer in (packed.getvalue(), image.layers[0].raw):
                document = json.loads(image.raw)
                document["layers"] = [{"mediaType": media_type, "digest": str(Digest.of(layer)), "size": len(layer)}]
                raw = json.dumps(document).encode()
                client.push_manifest(name, "v1", raw, image.media_type)

                assert get(client, name, "v1").status == 403, media_type


def test_a_signature_that_is_gone_counts_no_more_below_a_token(signing: RoadsteadServer, trusted: SigningKey) -> None:
    """By tag and by digest alike, as everywhere else; also where containerd asks for it among the blobs."""
    name, image = name_in("signed"), make_image(seed="below a token")
    with signing.client() as client:
        push(client, name, image)
        sign(client, name, image.descriptor(), trusted, "tag")
        wanted = {"containerImage": f"{name}:v1", "containerConfig": {"env": ["A=b"]}}
        told = asked(client, wanted)
        target, digest = told["targetImage"], told["targetDigest"]
        pulled(client, target)
        client.delete(f"/v2/{name}/manifests/{names.signature_tag(image.digest)}")
        by_digest = f"{target.removesuffix(':v1')}@{digest}"

        assert client.get(path_of(target)).status == 403
        assert client.get(path_of(by_digest)).status == 403
        assert client.get(path_of(by_digest, "blobs")).status == 403


# People who come after others


def refresh_token(client: Client, name: str) -> str:
    """Return what docker keeps in the place of a password."""
    form = {"grant_type": "password", "username": name, "password": PASSWORD, "access_type": "offline",
            "client_id": "x"}  # fmt: skip
    found: str = client.post("/auth/token", urlencode(form).encode()).json()["refresh_token"]
    return found


def refreshed(client: Client, token: str) -> int:
    """Return the status of an attempt to get a token with it."""
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "x"}
    return client.post("/auth/token", urlencode(form).encode()).status


def test_who_gets_a_name_that_was_freed_is_somebody_else(controlled: Serving) -> None:
    """What the one before had, refresh tokens and container tokens, isn't the new one's."""
    controlled.user("ana", "makers")
    with controlled.client() as client:
        text = refresh_token(client, "ana")
        target = asked(client, BODY, basic("ana"))["targetImage"]
        assert refreshed(client, text) == 200
        pulled(client, target)

        controlled.remove_user("ana")
        controlled.user("ana", "makers")

        assert refreshed(client, text) == 401
        assert client.get(path_of(target)).status == 404


def test_a_new_password_ends_what_the_old_one_opened(controlled: Serving) -> None:
    """Somebody who knew the old one keeps no refresh token; new groups alone end none."""
    controlled.user("bea", "makers")
    with controlled.client() as client:
        text = refresh_token(client, "bea")
        controlled.user("bea", "makers", password=False)
        assert refreshed(client, text) == 200

        controlled.user("bea", "makers")

        assert refreshed(client, text) == 401


# What is sent


@pytest.mark.parametrize("path", ["/container-token", "/v1alpha2/container", "/validate-creds", "/v1alpha1/inspect"])
def test_json_that_is_too_deep_is_refused(controlled: Serving, path: str) -> None:
    """With 400, and no trace of an error that somebody had to look at."""
    deep = b'{"request":' * 5000 + b"{}" + b"}" * 5000
    within = b'{"other":' + b"[" * 30_000 + b"]" * 30_000 + b"}"
    with controlled.client() as client:
        for body in (deep, within):
            assert client.post(path, body, {**JSON, **basic("maker")}).status == 400


@pytest.mark.parametrize(
    "more",
    [
        {"fingerprint": "x" * 1_000_000},
        {"timestamp": "x" * 1_000_000},
        {"towerEndpoint": "x" * 1_000_000},
        {"containerPlatform": ",".join(["linux/amd64"] * 100_000)},
        {"containerConfig": {"env": ["A=" + "x" * 1_000_000]}},
        {"containerConfig": {"env": [f"A{number}=" for number in range(100_000)]}},
        {"containerConfig": {"entrypoint": ["x"] * 300_000}},
        {"towerWorkspaceId": 10**4000},
    ],
)
def test_a_token_keeps_little(controlled: Serving, more: dict[str, object]) -> None:
    """Of each request a row stays for days: what nobody needs so large is refused, and a database doesn't fill."""
    with controlled.client() as client:
        answer = ask(client, {"containerImage": "team/app:1", "containerConfig": {"env": ["A=b"]}, **more},
                     basic("maker"))  # fmt: skip

    assert answer.status == 400


def test_no_token_is_logged(controlled: Serving) -> None:
    """Not of a path with a slash too many, nor of one that nothing is served at."""
    with controlled.client() as client:
        told = asked(client, BODY, basic("maker"))
        text = told["containerToken"]
        for path in ("/container-token//{}", "/v2/wt//{}/team/app/manifests/1",
                     "/v2/wt/{}/none", "/wt/{}", "/v1alpha2/container//{}/status", "/v2/as-pushed/wt/{}/a/manifests/1",
                     "//container-token/{}"):  # fmt: skip
            client.get(path.format(text))
        client.get("/v2/the/last/manifests/one")
    assert wait_until(lambda: "/v2/the/last" in controlled.log, timeout=timedelta(seconds=10))

    assert [line for line in controlled.log.splitlines() if text in line] == []
