"""The table of routes: paths are read from their right end (registry spec §1.1)."""

import pytest

from roadstead.http.routes import (
    MAX_PATH,
    REMEMBERED,
    MethodUnknownError,
    PathTooLongError,
    PathUnknownError,
    Router,
)
from roadstead.http.v2.table import ROUTES
from roadstead.web.table import ROUTES as PAGES

ROUTER = Router([*ROUTES, *PAGES])
DIGEST = "sha256:" + "a" * 64

CASES = [
    ("GET", "/", "home", {}),
    ("GET", "/v2/", "end-1", {}),
    ("GET", "/v2", "end-1", {}),
    ("GET", "/v2/_catalog", "catalog", {}),
    ("GET", f"/v2/a/blobs/{DIGEST}", "end-2", {"name": "a", "digest": DIGEST}),
    ("HEAD", "/v2/a/b/c/manifests/1.0", "end-3", {"name": "a/b/c", "reference": "1.0"}),
    (
        "POST",
        "/v2/a/blobs/uploads/",
        "end-4",
        {
            "name": "a",
        },
    ),
    ("POST", "/v2/a/blobs/uploads", "end-4", {"name": "a"}),
    ("PATCH", "/v2/a/blobs/uploads/x", "end-5", {"name": "a", "upload_id": "x"}),
    ("PUT", "/v2/a/blobs/uploads/x", "end-6", {"name": "a", "upload_id": "x"}),
    ("GET", "/v2/a/blobs/uploads/x", "end-13", {"name": "a", "upload_id": "x"}),
    ("DELETE", "/v2/a/blobs/uploads/x", "end-14", {"name": "a", "upload_id": "x"}),
    ("GET", "/v2/a/tags/list", "end-8", {"name": "a"}),
    ("GET", "/v2/a/tags/list/", "end-8", {"name": "a"}),
    ("GET", f"/v2/a/referrers/{DIGEST}", "end-12", {"name": "a", "digest": DIGEST}),
    # Keywords are lawful components of a name.
    ("GET", "/v2/a/blobs/uploads/b/manifests/1", "end-3", {"name": "a/blobs/uploads/b", "reference": "1"}),
    ("GET", f"/v2/blobs/blobs/{DIGEST}", "end-2", {"name": "blobs", "digest": DIGEST}),
    ("GET", "/v2/tags/list/tags/list", "end-8", {"name": "tags/list"}),
    ("PATCH", "/v2/blobs/uploads/blobs/uploads/x", "end-5", {"name": "blobs/uploads", "upload_id": "x"}),
    ("POST", "/v2/a/blobs/uploads/blobs/uploads/", "end-4", {"name": "a/blobs/uploads"}),
]


@pytest.mark.parametrize(("method", "path", "name", "found"), CASES)
def test_a_path_finds_its_route(method: str, path: str, name: str, found: dict[str, str]) -> None:
    """Each endpoint is found, with what its path says."""
    route, said = ROUTER.match(method, path)

    assert (route.name, {key: said[key] for key in found}) == (name, found)


@pytest.mark.parametrize(
    "path", ["/v2/a", "/v2/manifests/1", "/v2/a/b", "/v1/", "/v2/a/tags/other", "//v2/_catalog", "/V2/", "/v2//"]
)
def test_what_is_no_route_is_unknown(path: str) -> None:
    """A path that nothing serves raises PathUnknownError, never another route."""
    with pytest.raises(PathUnknownError):
        ROUTER.match("GET", path)


def test_a_method_that_is_not_served_is_told_what_is() -> None:
    """405 carries the methods that the path has, over all its lines of the table."""
    with pytest.raises(MethodUnknownError) as caught:
        ROUTER.match("POST", f"/v2/a/blobs/{DIGEST}")

    assert caught.value.allowed == ("DELETE", "GET", "HEAD")


def test_an_endless_path_is_refused_before_it_is_read() -> None:
    """The length is looked at first."""
    with pytest.raises(PathTooLongError):
        ROUTER.match("GET", "/v2/" + "a/" * MAX_PATH)


def test_paths_that_were_asked_for_before() -> None:
    """They are answered the same, however many others came between; what is remembered has a bound."""
    router = Router(ROUTES)
    first = router.match("GET", "/v2/a/manifests/first")

    for number in range(2 * REMEMBERED + 1):
        _, said = router.match("GET", f"/v2/a/manifests/{number}")
        assert said["reference"] == str(number)

    assert router.match("GET", "/v2/a/manifests/first") == first
    assert router.match("PUT", "/v2/a/manifests/first")[0].name == "end-7"
    assert len(router._known) <= REMEMBERED
    with pytest.raises(MethodUnknownError):
        router.match("PATCH", "/v2/a/manifests/first")
