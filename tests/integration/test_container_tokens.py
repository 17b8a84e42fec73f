"""Container tokens against the real server with two workers: asked for as curl does, pulled as an engine does."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.integration.container_api import ACCEPT, JSON, ask, asked, layer_object, path_of, pulled, push
from typer.testing import CliRunner

from roadstead.augment.container_token import ContainerTokenEndedError
from roadstead.cli.main import app
from roadstead.testing.client import Client
from roadstead.testing.images import make_image, make_index, make_layer
from roadstead.testing.registry_peer import RegistryPeer
from roadstead.testing.server import RoadsteadServer
from roadstead.testing.servers import wait_until

UPSTREAM = "up.example"
LAYER = make_layer({"foo.txt": b"Hello from a layer\n"})
IMAGE = make_image(layers=2, seed="tokens", config={"Entrypoint": ["/bin/tool"]})
THERE = make_image(layers=1, seed="upstream")
CONFIG = """
[augment]
token_lifetime = "36h"

[[augment.rules]]
match = "ruled/*"
env = ["BY=rule"]

[[upstreams]]
host = "up.example"
url = "PEER"
default_for = ["library/*"]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, registry_peer: RegistryPeer) -> Iterator[RoadsteadServer]:
    """A server without access control, two images of its own and one of an upstream."""
    with Client(registry_peer.host) as there:
        push(there, "library/tokens", THERE, "1")
    config = CONFIG.replace("PEER", registry_peer.url)
    with RoadsteadServer(tmp_path_factory.mktemp("tokens"), config=config) as running:
        client = running.client()
        push(client, "team/app", IMAGE, "1")
        push(client, "ruled/app", IMAGE, "1")
        yield running


@pytest.fixture
def client(server: RoadsteadServer) -> Iterator[Client]:
    """A connection of the test's own."""
    with Client(server.host) as client:
        yield client


def wanted(image: str = "team/app:1", **config: Any) -> dict[str, Any]:
    return {"containerImage": image, "containerConfig": {"layers": [layer_object(LAYER)], **config}}


def served(client: Client, path: str) -> str:
    answer = client.head(path, ACCEPT)
    assert answer.status == 200
    return answer.headers["docker-content-digest"]


# The documented requests


def test_a_token_for_an_image(client: Client, server: RoadsteadServer) -> None:
    """The first documented request: an image alone, with a platform's access token that nobody here asks about."""
    body = {"containerImage": "team/app:1", "towerAccessToken": "eyJ0aWQiOiAxfS40ZGE4", "towerWorkspaceId": None}
    answer = asked(client, body)

    token = answer["containerToken"]
    assert re.fullmatch(r"[0-9a-z]{26,64}", token)
    assert answer["targetImage"] == f"{server.host}/wt/{token}/team/app:1"
    assert served(client, path_of(answer["targetImage"])) == str(IMAGE.digest)
    config, layers = pulled(client, answer["targetImage"])
    assert json.loads(IMAGE.config) == config
    assert set(layers) == {str(layer.digest) for layer in IMAGE.layers}


def test_a_token_for_an_image_with_layers(client: Client) -> None:
    """The second: a layer is on top, its bytes are those that were sent; the tag itself stays as it was."""
    answer = asked(client, wanted(env=["K=V"], workingDir="/work", cmd=["run"]))

    config, layers = pulled(client, answer["targetImage"])
    assert config["rootfs"]["diff_ids"][-1] == str(LAYER.diff_id)
    assert layers[str(LAYER.digest)] == LAYER.raw
    assert "K=V" in config["config"]["Env"]
    assert (config["config"]["WorkingDir"], config["config"]["Cmd"]) == ("/work", ["run"])
    assert config["config"]["Entrypoint"] == ["/bin/tool"]
    assert served(client, "/v2/team/app/manifests/1") == str(IMAGE.digest)


def test_every_worker_knows_every_token(client: Client, server: RoadsteadServer) -> None:
    """A token that one worker gives is good at once with each, and all give the same bytes."""
    target = asked(client, wanted(env=["WORKERS=all"]))["targetImage"]

    workers = [server.client_of(pid) for pid in server.workers]
    assert len({served(worker, path_of(target)) for worker in workers}) == 1


def test_an_image_of_an_upstream(client: Client, server: RoadsteadServer) -> None:
    """By its host, by a default name and by a single word; the name below the token has no host."""
    for image in (f"{UPSTREAM}/library/tokens:1", "library/tokens:1", "tokens:1"):
        answer = asked(client, wanted(image))
        assert answer["targetImage"] == f"{server.host}/wt/{answer['containerToken']}/library/tokens:1"
        assert answer["containerImage"] == f"{UPSTREAM}/library/tokens:1"
        _, layers = pulled(client, answer["targetImage"])
        assert set(layers) == {str(layer.digest) for layer in (*THERE.layers, LAYER)}


def test_our_own_host_before_a_name(client: Client, server: RoadsteadServer) -> None:
    """An image may be named as it is pulled."""
    answer = asked(client, wanted(f"{server.host}/team/app:1"))
    assert answer["targetImage"].endswith("/team/app:1")
    answer = asked(client, wanted(f"{server.host}/library/tokens:1"))
    assert answer["containerImage"] == f"{UPSTREAM}/library/tokens:1"


def test_the_second_version_of_the_api(client: Client) -> None:
    """It answers with what its clients look at, and is told to be done at once."""
    answer = ask(client, wanted(), path="/v1alpha2/container").json()

    assert (answer["freeze"], answer["mirror"], answer["succeeded"]) == (False, False, True)
    assert answer["requestId"] == answer["containerToken"]
    assert not {"buildId", "cached", "scanId"} & answer.keys()
    status = client.get(f"/v1alpha2/container/{answer['requestId']}/status").json()
    assert (status["status"], status["succeeded"]) == ("DONE", True)


def test_the_first_version_says_no_more_than_it_did(client: Client) -> None:
    """What only the second has is left out."""
    assert not {"freeze", "mirror", "succeeded", "cached", "buildId"} & asked(client, wanted()).keys()


def test_each_request_gets_another_token(client: Client) -> None:
    """Two tokens for one request differ, and their images don't."""
    one, two = asked(client, wanted()), asked(client, wanted())
    assert one["containerToken"] != two["containerToken"]
    assert one["targetDigest"] == two["targetDigest"] == served(client, path_of(two["targetImage"]))


def test_a_pinned_image(client: Client, server: RoadsteadServer) -> None:
    """An image by digest is augmented too, and its new name is pinned to what it became."""
    answer = asked(client, wanted(f"team/app:1@{IMAGE.digest}"))

    assert answer["targetImage"] == (f"{server.host}/wt/{answer['containerToken']}/team/app@{answer['targetDigest']}")
    assert answer["targetDigest"] != str(IMAGE.digest)
    config, _ = pulled(client, answer["targetImage"])
    assert config["rootfs"]["diff_ids"][-1] == str(LAYER.diff_id)
    original = path_of(answer["targetImage"]).replace(answer["targetDigest"], str(IMAGE.digest))
    assert client.get(original, ACCEPT).body == IMAGE.raw


def test_platforms_are_chosen(client: Client) -> None:
    """Of an index those are left that were asked for; without a word all are augmented."""
    arms, amds = (make_image(seed="index", platform=platform) for platform in ("linux/arm64", "linux/amd64"))
    push(client, "team/index", make_index([amds, arms]), "1")

    def platforms(body: Mapping[str, Any]) -> list[str]:
        manifest = client.get(path_of(asked(client, body)["targetImage"]), ACCEPT).json()
        return [entry["platform"]["architecture"] for entry in manifest["manifests"]]

    assert platforms(wanted("team/index:1")) == ["amd64", "arm64"]
    assert platforms({**wanted("team/index:1"), "containerPlatform": "arm64"}) == ["arm64"]
    assert platforms({**wanted("team/index:1"), "containerPlatform": "linux/amd64,linux/arm64"}) == ["amd64", "arm64"]
    assert ask(client, {**wanted("team/index:1"), "containerPlatform": "linux/s390x"}).status == 400


def test_a_tokens_plan_comes_before_rules(client: Client) -> None:
    """A rule that matches the image adds nothing to what a token gives, with a plan of its own or without."""
    config, _ = pulled(client, asked(client, wanted("ruled/app:1", env=["BY=token"]))["targetImage"])
    assert [text for text in config["config"]["Env"] if text.startswith("BY=")] == ["BY=token"]
    plain = asked(client, {"containerImage": "ruled/app:1"})
    assert plain["targetDigest"] == str(IMAGE.digest)


# What is seen of it


def test_what_a_token_derives_is_seen_below_it_alone(client: Client) -> None:
    """Neither its manifest nor its config nor its layer can be had from the repository, or by another token."""
    body = wanted(env=["SECRET=1"])
    answer, other = asked(client, body), asked(client, wanted(env=["OTHER=1"]))
    manifest = client.get(path_of(answer["targetImage"]), ACCEPT)
    digest, config = answer["targetDigest"], manifest.json()["config"]["digest"]

    paths = [f"manifests/{digest}", f"blobs/{config}", f"blobs/{LAYER.digest}", f"blobs/{digest}"]
    below = path_of(other["targetImage"]).rpartition("/manifests/")[0]
    names = ["/v2/team/app", "/v2/as-pushed/team/app"]
    found = {f"{name}/{path}": client.head(f"{name}/{path}").status for name in names for path in paths}
    found |= {f"{below}/{path}": client.head(f"{below}/{path}").status for path in (paths[0], paths[1])}
    assert set(found.values()) == {404}, found
    mounted = client.post(f"/v2/team/thief/blobs/uploads/?mount={config}&from=team/app")
    assert mounted.status == 202
    listed = client.get("/v2/_catalog?n=1000").json()["repositories"]
    assert not any(name.startswith("wt") for name in listed)


def test_distributions_tree_knows_nothing_of_tokens(client: Client, server: RoadsteadServer) -> None:
    """Links are written for what is pushed, and none for what a token has derived before."""
    asked(client, wanted(env=["LINKS=none"]))
    push(client, "team/linked", IMAGE, "1")

    tree = server.data / "docker" / "registry" / "v2" / "repositories"
    link = tree / "team" / "linked" / "_manifests" / "tags" / "1" / "current" / "link"
    assert wait_until(link.exists, timeout=timedelta(seconds=10))
    assert not (tree / "wt").exists()
    assert not (tree / "team" / "app" / "_layers" / "sha256" / LAYER.digest.encoded).exists()


def test_the_space_of_a_token_has_no_name(client: Client, server: RoadsteadServer) -> None:
    """Where the derived things are kept is reached by no name that reads, and none that mounts."""
    for name in ("as-pushed/wt/x", "as-of/2026-01-01/wt/x"):
        assert client.get(f"/v2/{name}/manifests/1").status == 400
    answer = client.post(f"/v2/team/app/blobs/uploads/?mount={LAYER.digest}&from=wt/{'0' * 64}")
    assert answer.status == 202


def test_lists_below_a_token(client: Client) -> None:
    """Tags are those of the image's repository, page by page; what was derived has its provenance."""
    push(client, "team/app", IMAGE, "2")
    target = asked(client, wanted())["targetImage"]
    name = path_of(target).removeprefix("/v2/").partition("/manifests/")[0]

    listed = client.get(f"/v2/{name}/tags/list").json()
    assert (listed["name"], set(listed["tags"])) == (name, {"1", "2"})
    assert list(client.pages(f"/v2/{name}/tags/list?n=1", "tags")) == [["1"], ["2"]]
    digest = served(client, path_of(target))
    (said,) = client.get(f"/v2/{name}/referrers/{digest}").json()["manifests"]
    assert said["artifactType"] == "application/vnd.in-toto+json"
    assert client.get(f"/v2/{name}/manifests/{said['digest']}").status == 200
    assert client.get(f"/v2/team/app/manifests/{said['digest']}").status == 404
    assert client.get(f"/v2/{name}/referrers/{IMAGE.digest}").status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "blobs/uploads/"),
        ("PUT", "manifests/1"),
        ("DELETE", "manifests/1"),
        ("DELETE", f"blobs/{LAYER.digest}"),
        ("PATCH", "blobs/uploads/x"),
    ],
)
def test_pushes_below_a_token_are_refused(client: Client, method: str, path: str) -> None:
    """405, with the methods that are served, whether the token is good or not."""
    token = asked(client, wanted())["containerToken"]
    for name in (f"wt/{token}/team/app", f"wt/{'a' * 32}/team/app"):
        answer = client.request(method, f"/v2/{name}/{path}")
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_another_image_below_a_token(client: Client) -> None:
    """400 with what the token is for."""
    token = asked(client, wanted())["containerToken"]
    answer = client.get(f"/v2/wt/{token}/ruled/app/manifests/1")
    assert (answer.status, answer.code) == (400, "NAME_INVALID")
    assert "team/app" in answer.json()["errors"][0]["message"]


def test_a_source_that_is_deleted_is_gone_below_its_tokens(client: Client) -> None:
    """What was derived of an image isn't given out any more once the image was deleted."""
    image = make_image(seed="deleted")
    push(client, "team/deleted", image, "1")
    answer = asked(client, wanted("team/deleted:1"))
    below = path_of(answer["targetImage"]).rpartition("/")[0]
    assert client.get(f"{below}/{answer['targetDigest']}", ACCEPT).status == 200

    assert client.delete(f"/v2/team/deleted/manifests/{image.digest}").status == 202

    assert client.get(f"{below}/{answer['targetDigest']}", ACCEPT).status == 404
    assert client.get(path_of(answer["targetImage"]), ACCEPT).status == 404


def test_a_tag_that_moves_is_followed(client: Client) -> None:
    """A token names a tag: what was pushed there since is augmented alike."""
    old, new = make_image(seed="old"), make_image(seed="new")
    push(client, "team/moving", old, "1")
    answer = asked(client, wanted("team/moving:1"))
    push(client, "team/moving", new, "1")

    _, layers = pulled(client, answer["targetImage"])
    assert set(layers) == {str(layer.digest) for layer in (*new.layers, LAYER)}


# What tokens tell, and their end


def test_what_a_token_tells(client: Client) -> None:
    """The request without the bytes of its layers, the image's digest and what it became."""
    answer = asked(client, {**wanted(), "fingerprint": "f", "towerAccessToken": "secret-of-the-platform"})
    told = client.get(f"/container-token/{answer['containerToken']}")

    record = told.json()
    assert record["token"] == answer["containerToken"]
    assert record["expiration"] == answer["expiration"]
    assert record["request"]["containerConfig"]["layers"][0]["location"] == "data:DATA+OMITTED"
    assert record["request"]["fingerprint"] == "f"
    assert record["source"] == {"image": "team/app:1", "digest": str(IMAGE.digest)}
    assert record["wave"] == {"image": answer["targetImage"], "digest": answer["targetDigest"]}
    assert b"secret-of-the-platform" not in told.body
    flat = client.get(f"/v1alpha2/container/{answer['containerToken']}").json()
    assert (flat["id"], flat["sourceDigest"]) == (answer["containerToken"], str(IMAGE.digest))


def test_a_token_is_ended(client: Client) -> None:
    """Once: then nobody pulls by it, and its end is told to whoever has it."""
    answer = asked(client, wanted())
    token = answer["containerToken"]

    assert client.delete(f"/container-token/{token}").status == 200
    assert client.delete(f"/container-token/{token}").status == 404
    refused = client.get(path_of(answer["targetImage"]))
    assert (refused.status, refused.code) == (404, "MANIFEST_UNKNOWN")
    assert "ended at" in refused.json()["errors"][0]["message"]
    assert client.get(f"/container-token/{token}").status == 404


def test_unknown_tokens(client: Client) -> None:
    """404 in both forms of error, and what to do."""
    unknown = "b" * 32
    below = client.get(f"/v2/wt/{unknown}/team/app/manifests/1")
    assert (below.status, below.code) == (404, "MANIFEST_UNKNOWN")
    for path in (f"/container-token/{unknown}", f"/v1alpha2/container/{unknown}", "/container-token/UPPER"):
        answer = client.get(path)
        assert answer.status == 404
        assert "unknown" in answer.json()["message"]


def test_tokens_are_in_no_log(client: Client, server: RoadsteadServer) -> None:
    """Each request leaves its line, and none has a token in it."""
    answer = asked(client, wanted())
    token = answer["containerToken"]
    pulled(client, answer["targetImage"])
    client.get(f"/container-token/{token}")
    client.get(f"/v1alpha2/container/{token}/status")
    client.get(f"/v2/as-pushed/wt/{token}/team/app/manifests/1")
    client.request("PUT", f"/v2/wt/{token}/team/app/manifests/1")
    client.delete(f"/container-token/{token}")

    assert wait_until(lambda: server.log.count("/wt/***/team/app/manifests/1") >= 2, timeout=timedelta(seconds=20))
    assert token not in server.log
    assert "/container-token/***" in server.log


def test_guesses_are_limited(tmp_path: Path) -> None:
    """Who tries many unknown tokens has to wait, in all workers; a token that is known still works."""
    with RoadsteadServer(tmp_path) as server:
        client = server.client()
        push(client, "team/app", IMAGE, "1")
        target = asked(client, wanted())["targetImage"]
        for worker in server.workers:
            assert server.client_of(worker).head(path_of(target)).status == 200
        clients = [server.client_of(worker) for worker in server.workers]
        statuses = [
            clients[number % 2].get(f"/v2/wt/{number:032d}/team/app/manifests/1").status for number in range(70)
        ]
        assert statuses[0] == 404
        assert statuses[-1] == 429
        late = clients[0].get(f"/container-token/{'c' * 32}")
        assert late.status == 429
        assert int(late.headers["retry-after"]) >= 1
        assert {one.head(path_of(target)).status for one in clients} == {200}


# Errors


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, "containerImage"),
        ({"containerImage": ""}, 400, "containerImage"),
        ({"containerImage": "https://quay.io/org/img"}, 400, "scheme"),
        ({"containerImage": "team/app:1 "}, 400, "blanks"),
        ({"containerImage": "TEAM/app"}, 400, "TEAM"),
        ({"containerImage": 5}, 400, "containerImage"),
        ({"containerImage": "unknown.example/team/app"}, 400, "unknown.example"),
        ({"containerImage": "team/nowhere:1"}, 400, "team/nowhere:1"),
        ({"containerImage": "up.example/library/nowhere:1"}, 400, "nowhere"),
        ({"containerImage": "wt/x/team/app:1"}, 400, "wt/"),
        ({"containerImage": "team/app:1", "containerPlatform": "mars"}, 400, "mars"),
        ({"containerImage": "team/app:1", "containerConfig": {"env": ["NOTHING"]}}, 400, "NOTHING"),
        ({"containerImage": "team/app:1", "containerConfig": {"workingDir": "here"}}, 400, "workdir"),
        ({"containerImage": "team/app:1", "containerConfig": {"layers": [{}]}}, 400, "location is missing"),
        ({"containerImage": "team/app:1", "containerFile": "RlJPTSBhCg=="}, 400, "containerFile"),
        ({"containerFile": "RlJPTSBhCg=="}, 501, "containerFile"),
        ({"containerImage": "team/app:1", "freeze": True}, 501, "freeze"),
        ({"containerImage": "team/app:1", "mirror": True}, 400, "mirror"),
        ({"containerImage": "team/app:1", "packages": {}}, 400, "packages"),
        ({"containerImage": "team/app:1", "containerIncludes": ["a"]}, 400, "name its registry"),
        ({"containerImage": "team/app:1", "containerIncludes": ["up.example/a:1"] * 11}, 400, "containerIncludes"),
        ({"containerImage": "team/app:1", "dryRun": True}, 501, "targetDigest"),
        ({"containerImage": "team/app:1", "scanMode": "required"}, 501, "scanMode"),
    ],
)
def test_requests_that_get_no_token(client: Client, body: Mapping[str, Any], status: int, said: str) -> None:
    """One reason with its status, in Wave's form."""
    answer = ask(client, body)
    assert (answer.status, answer.json().keys()) == (status, {"message"}), answer.body
    assert said in answer.json()["message"]


@pytest.mark.parametrize("field", ["packages", "mirror"])
def test_what_the_second_version_takes_is_not_done_here(client: Client, field: str) -> None:
    """501 there, where the first refuses it."""
    body = {"packages": {"type": "CONDA"}} if field == "packages" else {"containerImage": "team/app:1", "mirror": True}
    assert ask(client, body, path="/v1alpha2/container").status == 501


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"location": "/etc/passwd"}, "not taken"),
        ({"location": "file:///etc/passwd"}, "not taken"),
        ({"location": "s3://bucket/key"}, "not taken"),
        ({"location": "data:!!!"}, "base64"),
        ({"location": "data:application/gzip;base64,AAAA"}, "data URL"),
        ({"gzipSize": 1}, "1 bytes"),
        ({"gzipSize": -1}, "gzipSize"),
        ({"gzipDigest": f"sha256:{'0' * 64}"}, "its digest is"),
        ({"gzipDigest": "sha256:0"}, "gzipDigest"),
        ({"gzipDigest": f"sha512:{'0' * 128}"}, "sha256:"),
        ({"tarDigest": f"sha256:{'0' * 64}"}, "the tar inside"),
        ({"tarDigest": None}, "tarDigest is missing"),
    ],
)
def test_layers_that_are_not_what_they_say(client: Client, changed: Mapping[str, Any], said: str) -> None:
    """400 that names the layer and what is wrong with it."""
    body = {"containerImage": "team/app:1", "containerConfig": {"layers": [layer_object(LAYER, **changed)]}}
    answer = ask(client, body)
    assert answer.status == 400, answer.body
    assert answer.json()["message"].startswith("layer 1: ")
    assert said in answer.json()["message"]


def test_bodies_that_are_no_requests(client: Client) -> None:
    """What isn't JSON, and what is far too large."""
    assert client.post("/container-token", b"{", JSON).status == 400
    assert client.post("/container-token", b"[]", JSON).status == 400
    assert client.post("/container-token", None, {**JSON, "Content-Length": str(64 << 20)}).status == 413
    assert client.get("/container-token").status == 405


def test_pages_of_others_ask_for_nothing(client: Client) -> None:
    """A browser that is on another origin's page gets no token for it."""
    answer = ask(client, wanted(), {"Origin": "https://evil.example"})
    assert answer.status == 403


def test_service_info(client: Client) -> None:
    """The version, as Wave tells it."""
    assert client.get("/service-info").json()["serviceInfo"].keys() == {"version", "commitId"}


# Registries of others


@pytest.mark.parametrize(
    "registry",
    [
        "127.0.0.1:1",
        "localhost",
        "http://localhost:1",
        "169.254.169.254",
        "10.0.0.1:5000",
        "[::1]:5000",
        "no-such-host.invalid",
        "a b",
    ],
)
def test_credentials_for_what_is_not_asked(client: Client, registry: str) -> None:
    """One answer for all that may not be asked, whatever is there."""
    body = {"userName": "u", "password": "p", "registry": registry}
    answer = client.post("/validate-creds", json.dumps(body).encode(), JSON)
    assert answer.status == 400
    assert "can't be asked from here" in answer.json()["message"]


@pytest.mark.parametrize(
    "body", [{}, {"userName": "u", "password": "p"}, {"userName": " ", "password": "p", "registry": "r"}]
)
def test_credentials_that_are_not_all_there(client: Client, body: Mapping[str, str]) -> None:
    """400 that says what is missing."""
    assert client.post("/validate-creds", json.dumps(body).encode(), JSON).status == 400


def test_credentials_for_a_configured_registry(client: Client) -> None:
    """A registry that settings name is asked although its address is private; both forms and versions of the call."""
    body = {"userName": "u", "password": "p", "registry": UPSTREAM}
    flat, wrapped = json.dumps(body), json.dumps({"request": body})
    for path, said in (("/validate-creds", flat), ("/validate-creds", wrapped), ("/v1alpha2/validate-creds", flat)):
        answer = client.post(path, said.encode(), JSON)
        assert (answer.status, answer.json()) == (200, True)


def inspected(client: Client, server: RoadsteadServer, name: str, reference: str) -> tuple[Any, Any]:
    """Return what the command says of an image, beside the server, and what the API says."""
    words = ["inspect", f"{name}:{reference}", str(server.directory / "roadstead.toml"), "--data", str(server.data)]
    ran = CliRunner().invoke(app, [*words, "--json"])
    assert ran.exit_code == 0, ran.output
    answer = client.get(f"/api/v1/image?repository={name}&reference={reference}")
    assert answer.status == 200, answer.body
    return json.loads(ran.stdout), answer.json()


def test_inspecting_by_token(client: Client, server: RoadsteadServer) -> None:
    """Below a token an image is shown as its pulls have it, with what was added to it; without one it is as it was."""
    answer = asked(client, wanted(env=["INSPECTED=yes"]))
    name = answer["targetImage"].partition("/")[2].rpartition(":")[0]

    for found in inspected(client, server, name, "1"):
        assert (found["digest"], found["repository"]) == (answer["targetDigest"], "team/app")
        augmented = found["augmented"]
        assert augmented["source"] == str(IMAGE.digest)
        assert augmented["plan"]["env"] == ["INSPECTED=yes"]
        added = augmented["difference"].get("added_layers") or [
            one["digest"] for one in augmented["difference"]["addedLayers"]
        ]
        assert added == [str(LAYER.digest)]
        assert augmented["difference"]["env"]["INSPECTED"] == {"before": None, "after": "yes"}
        assert [one["kind"] for one in found["referrers"]] == ["provenance (SLSA)"]
    remote = CliRunner().invoke(app, ["inspect", answer["targetImage"], "--json"])
    assert json.loads(remote.stdout)["digest"] == answer["targetDigest"]

    assert client.delete(f"/container-token/{answer['containerToken']}").status == 200
    assert client.get(f"/api/v1/image?repository={name}&reference=1").status == 404
    words = ["inspect", f"{name}:1", str(server.directory / "roadstead.toml"), "--data", str(server.data)]
    assert isinstance(CliRunner().invoke(app, words).exception, ContainerTokenEndedError)


def test_inspecting_an_upstreams_image(client: Client, server: RoadsteadServer, registry_peer: RegistryPeer) -> None:
    """A name without a host that an upstream has by default is that upstream's image, and is said to be."""
    there = make_image(seed="not pulled")
    with Client(registry_peer.host) as peer:
        push(peer, "library/bare", there, "1")
    assert client.head("/v2/library/bare/manifests/1", ACCEPT).status == 200
    by_data, by_api = inspected(client, server, "library/bare", "1")  # first the command: nobody has its config yet
    assert (by_data["config"], by_data["notes"]) == (
        None,
        ["its config is not here, so layers and settings are not shown"],
    )
    assert by_api["config"]["digest"] == str(there.config_digest)
    assert client.get("/v2/library/tokens/manifests/1", ACCEPT).status == 200
    for name in ("library/tokens", f"{UPSTREAM}/library/tokens", "as-pushed/library/tokens"):
        for found in inspected(client, server, name, "1"):
            assert (found["digest"], found["repository"]) == (str(THERE.digest), f"{UPSTREAM}/library/tokens")
            assert found["origin"] == f"pulled through from {UPSTREAM}"
    assert client.get("/api/v1/image?repository=library/none&reference=1").status == 404


def test_inspecting_a_platform(client: Client) -> None:
    """Of an index one image is shown, that of the platform that was asked for; 404 names those that there are."""
    images = [make_image(seed="shown", platform=one) for one in ("linux/amd64", "linux/arm64")]
    push(client, "team/shown", make_index(images), "1")
    for query, expected in (("", images[0]), ("&platform=linux/arm64", images[1])):
        shown = client.get(f"/api/v1/image?repository=team/shown&reference=1{query}").json()
        assert (shown["manifest"], shown["config"]["digest"]) == (str(expected.digest), str(expected.config_digest))
        assert [one["platform"] for one in shown["platforms"]] == ["linux/amd64", "linux/arm64"]
    answer = client.get("/api/v1/image?repository=team/shown&reference=1&platform=linux/s390x")
    assert (answer.status, "linux/arm64" in answer.json()["detail"]) == (404, True)


def test_inspect(client: Client) -> None:
    """An image's config and manifest; of an index what it lists, or the image of a platform."""

    def inspected(image: str, query: str = "") -> Any:
        answer = client.post(f"/v1alpha1/inspect{query}", json.dumps({"containerImage": image}).encode(), JSON)
        return answer.json() if answer.status == 200 else answer.status

    container = inspected("team/app:1")["container"]
    assert (container["digest"], container["config"]) == (str(IMAGE.digest), json.loads(IMAGE.config))
    assert (container["oci"], container["v1"]) == (True, False)
    assert inspected("tokens:1")["container"]["digest"] == str(THERE.digest)
    arm = make_image(seed="inspected", platform="linux/arm64")
    push(client, "team/inspected", make_index([arm]), "1")
    assert inspected("team/inspected:1")["index"]["manifests"][0]["digest"] == str(arm.digest)
    assert inspected("team/inspected:1", "?platform=linux/arm64")["container"]["digest"] == str(arm.digest)
    assert inspected("team/inspected:1", "?platform=linux/amd64,linux/arm64") == 400
    assert inspected("team/inspected:1", "?platform=linux/s390x") == 404
    assert inspected("team/nowhere:1") == 404
    assert inspected("127.0.0.1:1/team/app:1") == 400
    assert inspected("") == 400
