"""Where the specs leave a choice: reserved names, settings that close a door (design decisions 6, 9; spec §10)."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from tests.conformance.documents import CONFIG, descriptor, index, manifest, push, push_image
from tests.conformance.stores import WITHOUT_STORES

from roadstead.oci.digest import Digest
from roadstead.oci.mediatypes import OCI_INDEX, OCI_MANIFEST
from roadstead.registry.history import format_moment
from roadstead.testing.client import Client
from roadstead.testing.server import RoadsteadServer

# Reserved names


def test_as_pushed_shows_the_original(client: Client, name: str) -> None:
    """``as-pushed/NAME`` reads like NAME: manifests, blobs, tags."""
    image = push_image(client, name, "latest")
    layer = client.push_blob(name, CONFIG)

    assert client.get(f"/v2/as-pushed/{name}/manifests/latest").body == image.raw
    assert client.get(f"/v2/as-pushed/{name}/blobs/{layer}").body == CONFIG
    assert client.get(f"/v2/as-pushed/{name}/tags/list").json()["tags"] == ["latest"]


def test_a_tag_as_it_was(client: Client, name: str) -> None:
    """``as-of/TIME/NAME`` reads like NAME did: by tag what it pointed at then, by digest what that is."""
    first = push_image(client, name, "latest", text="first")
    between = datetime.now(UTC)
    second = push_image(client, name, "latest", text="second")
    then = f"as-of/{format_moment(between)}/{name}"

    answer = client.get(f"/v2/{then}/manifests/latest")
    headed = client.head(f"/v2/{then}/manifests/latest")

    assert client.get(f"/v2/{name}/manifests/latest").body == second.raw
    assert (answer.status, answer.body) == (200, first.raw)
    assert answer.headers["docker-content-digest"] == headed.headers["docker-content-digest"] == str(first.digest)
    assert answer.headers["cache-control"] == "no-cache"
    assert client.get(f"/v2/{then}/manifests/{first.digest}").body == first.raw
    assert client.get(f"/v2/{then}/blobs/{Digest.of(CONFIG)}").body == CONFIG


def test_what_a_tag_never_was(client: Client, name: str) -> None:
    """404 says which: not yet pushed, removed, still to come, deleted since; what isn't a time is 400."""
    before = datetime.now(UTC)
    image = push_image(client, name, "latest")
    pushed = datetime.now(UTC)
    client.delete(f"/v2/{name}/manifests/latest")
    removed = datetime.now(UTC)

    def told(when: str) -> tuple[int, str | None, str]:
        answer = client.get(f"/v2/as-of/{when}/{name}/manifests/latest")
        return answer.status, answer.code, "" if answer.status == 200 else answer.json()["errors"][0]["message"]

    assert told(format_moment(pushed))[0] == 200
    cases = {
        format_moment(before): "never pushed by then",
        format_moment(removed): "was removed then",
        "2999-01-01": "yet to come",
    }
    for when, reason in cases.items():
        status, code, message = told(when)
        assert (status, code) == (404, "MANIFEST_UNKNOWN")
        assert reason in message
    assert client.delete(f"/v2/{name}/manifests/{image.digest}").status == 202
    assert "was deleted since" in told(format_moment(pushed))[2]
    assert told("yesterday")[:2] == (400, "NAME_INVALID")
    assert client.get("/v2/as-of/2026-11-22/manifests/latest").code == "NAME_INVALID"


def test_names_that_only_read_list_the_tags_of_now(client: Client, name: str) -> None:
    """Clients that inspect an image by such a name ask for the list, and give up without one."""
    push_image(client, name, "latest")

    for prefix in ("as-pushed/", "as-of/2026-11-22/"):
        answer = client.get(f"/v2/{prefix}{name}/tags/list")
        assert answer.json() == {"name": f"{prefix}{name}", "tags": ["latest"]}


WRITES = [
    ("POST", "/v2/{0}/blobs/uploads/"),
    ("PUT", "/v2/{0}/manifests/latest"),
    ("DELETE", "/v2/{0}/manifests/latest"),
    ("DELETE", "/v2/{0}/blobs/sha256:" + "0" * 64),
]


@WITHOUT_STORES
@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize("prefix", ["as-pushed/", "as-of/2026-11-22/", "wt/"])
def test_reserved_names_take_no_writes(client: Client, name: str, prefix: str, method: str, path: str) -> None:
    """405 with what is allowed; the repository behind the name is as it was."""
    image = push_image(client, name, "latest")

    answer = client.request(method, path.format(prefix + name), manifest(), {"Content-Type": OCI_MANIFEST})

    assert (answer.status, answer.code, answer.headers["allow"]) == (405, "UNSUPPORTED", "GET, HEAD")
    assert client.get(f"/v2/{name}/manifests/latest").body == image.raw


# Settings


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoadsteadServer]:
    """A server that deletes nothing, takes sparse indexes, and has small limits."""
    config = """
        [storage]
        path = "data"
        delete = false

        [registry]
        sparse_indexes = true
        max_manifest_bytes = 2000
        tags_page_max = 3
        catalog_page = 2
        catalog_page_max = 4
        max_tags_per_push = 4
        """
    with RoadsteadServer(tmp_path_factory.mktemp("strict"), config=config, workers=1) as running:
        yield running


@pytest.fixture
def strictly(strict: RoadsteadServer) -> Iterator[Client]:
    """A client of that server."""
    with Client(strict.host) as connected:
        yield connected


def test_nothing_is_deleted_where_deleting_is_off(strictly: Client, name: str) -> None:
    """405 for blobs, manifests and tags alike (CVE-2026-41888); an upload can still be cancelled."""
    image = push_image(strictly, name, "latest")
    blob = strictly.push_blob(name, CONFIG)
    upload = strictly.post(f"/v2/{name}/blobs/uploads/").headers["location"]

    paths = [f"/v2/{name}/manifests/latest", f"/v2/{name}/manifests/{image.digest}", f"/v2/{name}/blobs/{blob}"]
    answers = [strictly.delete(path) for path in paths]

    assert [(answer.status, answer.code) for answer in answers] == [(405, "UNSUPPORTED")] * 3
    assert all("GET" in answer.headers["allow"] for answer in answers)
    assert [strictly.get(path).status for path in paths] == [200] * 3
    assert strictly.delete(upload).status == 204


def test_a_sparse_index_is_taken_where_that_is_set(strictly: Client, name: str) -> None:
    """Children may be missing then; what is here is still checked."""
    absent = descriptor(b"absent", OCI_MANIFEST)

    listed = push(strictly, name, "latest", index([absent]), OCI_INDEX)

    assert strictly.get(f"/v2/{name}/manifests/latest").body == listed.raw


def test_limits_are_settings(strictly: Client, name: str) -> None:
    """Manifest size, tags of a push and page sizes are what the configuration says."""
    strictly.push_blob(name, CONFIG)
    large = manifest(annotations={"x": "x" * 2000})
    image = push_image(strictly, name, "latest")
    tagged = {
        count: strictly.put(
            f"/v2/{name}/manifests/{image.digest}?" + "&".join(f"tag=t{n}" for n in range(count)),
            image.raw,
            {"Content-Type": OCI_MANIFEST},
        ).status
        for count in (4, 5)
    }

    refused = strictly.put(f"/v2/{name}/manifests/large", large, {"Content-Type": OCI_MANIFEST})
    page = strictly.get(f"/v2/{name}/tags/list?n=1000")

    assert tagged == {4: 201, 5: 414}
    assert refused.status == 413
    assert page.json()["tags"] == ["latest", "t0", "t1"]
    assert page.headers["link"] == f'</v2/{name}/tags/list?last=t1&n=3>; rel="next"'
    assert [tag for one in strictly.pages(f"/v2/{name}/tags/list?n=9", "tags") for tag in one][-1] == "t3"
    assert strictly.get("/v2/_catalog?n=4").status == 200
    assert strictly.get("/v2/_catalog?n=5").code == "PAGINATION_NUMBER_INVALID"
