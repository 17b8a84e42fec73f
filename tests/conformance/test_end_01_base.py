"""``/v2/`` and what every answer has (distribution-spec end-1; registry spec §1.2, §1.3, §1.5)."""

import pytest
from tests.conformance.documents import CONFIG, push_image
from tests.conformance.stores import WITHOUT_STORES

from roadstead.oci.digest import Digest
from roadstead.testing.client import Client

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
def test_the_base_says_that_this_is_a_registry(client: Client, path: str) -> None:
    """end-1: 200 with exactly ``{}``, with and without the slash: a redirect would lose credentials."""
    answer = client.get(path)

    assert (answer.status, answer.body) == (200, b"{}")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == "2"


# Every path of the API, with the methods it is served for.
ALLOWED = [
    ("/v2/", "GET, HEAD"),
    ("/v2/_catalog", "GET, HEAD"),
    ("/v2/a/tags/list", "GET, HEAD"),
    (f"/v2/a/blobs/{DIGEST}", "DELETE, GET, HEAD"),
    ("/v2/a/blobs/uploads/", "POST"),
    ("/v2/a/blobs/uploads", "POST"),
    ("/v2/a/blobs/uploads/session", "DELETE, GET, HEAD, PATCH, PUT"),
    ("/v2/a/manifests/latest", "DELETE, GET, HEAD, PUT"),
    (f"/v2/a/referrers/{DIGEST}", "GET, HEAD"),
]


@WITHOUT_STORES
@pytest.mark.parametrize(("path", "allowed"), ALLOWED)
@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "REPORT"])
def test_other_methods_are_told_which_are_served(client: Client, path: str, allowed: str, method: str) -> None:
    """A path that exists answers another method with 405 and Allow, also a method that nobody knows."""
    answer = client.request(method, path)

    assert (answer.status, answer.headers["allow"], answer.code) == (405, allowed, "UNSUPPORTED")


@WITHOUT_STORES
@pytest.mark.parametrize(("path", "allowed"), ALLOWED)
def test_options_tells_which_methods_are_served(client: Client, path: str, allowed: str) -> None:
    """Browsers ask before they let a page of another origin read; what it may read, `server.headers` says."""
    answer = client.request("OPTIONS", path)

    assert (answer.status, answer.headers["allow"], answer.body) == (200, allowed, b"")


UNROUTABLE = [
    "/v2/_unknown",
    "/v2/a",
    "/v2/a/blobs",
    "/v2/a/manifests",
    "/v2/a/tags",
    "/v2/a/tags/lists",
    "/v2/manifests/latest",
    "/v2/_oci/nothing/here",
    "/v1/_ping",
    "/V2/",
    "/nothing",
]


@WITHOUT_STORES
@pytest.mark.parametrize("path", UNROUTABLE)
def test_an_unknown_path_is_told_in_json(client: Client, path: str) -> None:
    """What isn't served is 404 with an error document, never a page or plain text (§1.3)."""
    answer = client.get(path)

    assert (answer.status, answer.headers["content-type"]) == (404, "application/json")
    assert answer.code is not None


ANSWERS = [
    ("GET", "/v2/", 200),
    ("GET", "/v2/_catalog", 200),
    ("GET", "/v2/{name}/manifests/latest", 200),
    ("GET", "/v2/{name}/manifests/none", 404),
    ("GET", "/v2/{name}/manifests/sha256:x", 400),
    ("GET", f"/v2/{{name}}/blobs/{Digest.of(CONFIG)}", 200),
    ("GET", f"/v2/{{name}}/blobs/{DIGEST}", 404),
    ("GET", "/v2/{name}/tags/list", 200),
    ("GET", "/v2/unknown/tags/list", 404),
    ("GET", f"/v2/{{name}}/referrers/{DIGEST}", 200),
    ("GET", "/v2/Upper/tags/list", 400),
    ("GET", "/v2/a/b", 404),
    ("GET", "/v2/{name}/blobs/uploads/none", 404),
    ("PUT", "/v2/", 405),
    ("GET", "/v2/" + "a" * 9000, 414),
]


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
def test_every_answer_tells_the_api_version(client: Client, name: str, method: str, path: str, status: int) -> None:
    """``Docker-Distribution-Api-Version`` is on successes and on every error; lengths are exact (§1.2)."""
    push_image(client, name, "latest")

    answer = client.request(method, path.format(name=name))

    assert answer.status == status
    assert answer.every("docker-distribution-api-version") == ["registry/2.0"]
    assert answer.every("content-length") == [str(len(answer.body))]
    assert "content-encoding" not in answer.headers
    assert "transfer-encoding" not in answer.headers


@pytest.mark.parametrize("path", [path for method, path, _ in ANSWERS if method == "GET"])
def test_head_says_what_get_says(client: Client, name: str, path: str) -> None:
    """HEAD has every header of GET, the length included, and no body; on errors too (§1.6, §1.8)."""
    push_image(client, name, "latest")
    got = client.get(path.format(name=name))

    answer = client.head(path.format(name=name))

    assert (answer.status, answer.body) == (got.status, b"")
    assert _without_date(answer.all_headers) == _without_date(got.all_headers)


def _without_date(headers: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    return sorted(pair for pair in headers if pair[0] != "date")


@pytest.mark.parametrize("accept", ["gzip", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5", "identity;q=0, br"])
def test_contents_are_never_encoded(client: Client, name: str, accept: str) -> None:
    """What a client offers to decode doesn't matter: a digest is that of the bytes as they come (§1.2)."""
    image = push_image(client, name, "latest")
    headers = {"Accept-Encoding": accept}

    blob = client.get(f"/v2/{name}/blobs/{Digest.of(CONFIG)}", headers)
    manifest = client.get(f"/v2/{name}/manifests/latest", headers)

    assert (blob.body, manifest.body) == (CONFIG, image.raw)
