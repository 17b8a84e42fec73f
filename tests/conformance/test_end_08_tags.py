"""Listing tags and repositories (distribution-spec end-8; Docker's _catalog; registry spec §1.11, §1.12)."""

import secrets
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.conformance.documents import CONFIG, manifest, push, push_image
from tests.conformance.stores import WITHOUT_STORES

from roadstead.oci.digest import Digest
from roadstead.testing.client import Answer, Client

# In the order of their bytes, which is no language's order.
TAGS = ["0", "1.10", "1.2", "A", "B", "Z", "_", "a", "a-", "a-b", "a.b", "a_b", "aa", "b", "latest", "v1", "v10", "v2"]
RAW = manifest()


@pytest.fixture
def tagged(client: Client, name: str) -> str:
    """A repository with all of TAGS, pushed in another order."""
    client.push_blob(name, CONFIG)
    query = "&".join(f"tag={tag}" for tag in reversed(TAGS))
    push(client, name, f"{Digest.of(RAW)}?{query}", RAW)
    return name


def _list(client: Client, name: str, query: str = "") -> Answer:
    return client.get(f"/v2/{name}/tags/list{query}")


@pytest.mark.parametrize("path", ["/v2/{0}/tags/list", "/v2/{0}/tags/list/"])
def test_all_tags_are_listed_in_order(client: Client, tagged: str, path: str) -> None:
    """end-8a: without ``n`` all of them, in the order of their bytes, with the repository's name."""
    answer = client.get(path.format(tagged))

    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == {"name": tagged, "tags": TAGS}
    assert "link" not in answer.headers


def test_the_head_of_a_list_is_that_of_its_get(client: Client, tagged: str) -> None:
    """HEAD of a listing: the same headers, Link included."""
    got = _list(client, tagged, "?n=3")

    head = client.head(f"/v2/{tagged}/tags/list?n=3")

    assert (head.status, head.body, {**head.headers, "date": ""}) == (200, b"", {**got.headers, "date": ""})


@pytest.mark.parametrize("n", [1, 2, 5, 17, 18, 19, 1000])
def test_tags_come_in_pages(client: Client, tagged: str, n: int) -> None:
    """end-8b: Link leads from page to page until all were given once, in order."""
    pages = list(client.pages(f"/v2/{tagged}/tags/list?n={n}", "tags"))

    assert [tag for page in pages for tag in page] == TAGS
    assert all(len(page) == n for page in pages[:-1])


def test_a_link_says_how_to_go_on(client: Client, tagged: str) -> None:
    """Link is path-absolute, ``rel="next"``, its parameters in distribution's order (RFC 8288)."""
    link = _list(client, tagged, "?n=9&other=x").headers["link"]

    assert link == f'</v2/{tagged}/tags/list?last=a-&n=9>; rel="next"'


@pytest.mark.parametrize(
    ("last", "following"),
    [
        ("", "0"),
        ("0", "1.10"),
        ("1.10", "1.2"),
        ("1.3", "A"),  # a tag that isn't there has its place all the same
        ("a-", "a-b"),
        ("v", "v1"),
        ("zzz", None),
        ("%C3%A9", None),
        ("a%00", "a-"),
        ("%0d%0aX: y", "0"),
        ("%FF", None),
        ("/", "0"),
        ("sha256:abc", "v1"),
        ("x" * 4000, None),
    ],
)
def test_last_is_where_a_page_starts(client: Client, tagged: str, last: str, following: str | None) -> None:
    """``last`` is any text: what comes behind it bytewise is listed."""
    answer = _list(client, tagged, f"?n=1&last={last.replace(' ', '%20')}")

    assert (answer.status, answer.json()["tags"]) == (200, [following] if following else [])
    assert "x" not in answer.headers


def test_no_tags_asked_none_given(client: Client, tagged: str) -> None:
    """``n=0`` is an empty list without a Link."""
    answer = _list(client, tagged, "?n=0")

    assert (answer.status, answer.json()["tags"]) == (200, [])
    assert "link" not in answer.headers


@pytest.mark.parametrize("n", ["1001", "1000000", "2147483648", "9223372036854775807", "9223372036854775808"])
def test_a_huge_n_is_cut(client: Client, tagged: str, n: str) -> None:
    """More than a page holds is as good as a page (CVE-2023-2253)."""
    assert _list(client, tagged, f"?n={n}").json()["tags"] == TAGS


NOT_NUMBERS = [
    "-1",
    "-0",
    "+1",
    "1e3",
    "1.0",
    "0x10",
    "1_0",
    "abc",
    "%205",
    "5%20",
    "5%0a",
    "%EF%BC%91",  # a full-width one: Python's int() would take it
    "%D9%A1",
    "%00",
    "NaN",
    "1" * 30,
    "5%0d%0aX-Injected:%20yes",
]


@WITHOUT_STORES
@pytest.mark.parametrize("n", NOT_NUMBERS)
@pytest.mark.parametrize("path", ["/v2/{0}/tags/list", "/v2/_catalog", "/v2/{0}/referrers/sha256:" + "0" * 64])
def test_what_isnt_a_number_is_refused(client: Client, name: str, path: str, n: str) -> None:
    """PAGINATION_NUMBER_INVALID, and nothing of the text becomes a header."""
    answer = client.get(f"{path.format(name)}?n={n}")

    assert (answer.status, answer.code) == (400, "PAGINATION_NUMBER_INVALID")
    assert "x-injected" not in answer.headers


def test_an_unknown_repository_has_no_list(client: Client, name: str) -> None:
    """code-9, with the name as detail."""
    answer = _list(client, name)

    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")
    assert answer.json()["errors"][0]["detail"] == {"name": name}


def test_a_repository_without_tags_has_an_empty_list(client: Client, name: str) -> None:
    """Untagged manifests make a repository; its list is ``[]``, never null."""
    client.push_blob(name, CONFIG)
    push(client, name, str(Digest.of(RAW)), RAW)

    assert _list(client, name).json() == {"name": name, "tags": []}


@WITHOUT_STORES
@pytest.mark.parametrize(
    "bad", ["Upper", "a..b", "a/", "-a", "a--", "%2e%2e/etc", "a%5cb", "a%00b", "a%0ab", "%E2%80%AE"]
)
def test_a_malformed_name_is_refused(client: Client, bad: str) -> None:
    """code-8."""
    answer = client.get(f"/v2/{bad}/tags/list")

    assert (answer.status, answer.code) == (400, "NAME_INVALID")


# Repositories


@pytest.fixture
def above() -> str:
    """A first component of names that sorts behind what other tests make, and that no other test has."""
    return f"zz{secrets.token_hex(6)}"


# Component by component: a/b comes before a-b, though "-" is a smaller byte than "/".
BELOW = ["", "/a", "/a/b", "/a/b/c", "/a/c", "/a-b", "/a.b", "/a0", "/aa", "/b", "-b", "-b/a", ".c", "0"]


@pytest.fixture
def repositories(client: Client, above: str) -> list[str]:
    """Repositories, pushed in another order than theirs."""
    names = [above + rest for rest in BELOW]
    for repository in reversed(names):
        push_image(client, repository, "latest")
    return names


@pytest.mark.parametrize("n", [1, 3, 1000])
def test_repositories_are_listed_component_by_component(
    client: Client, above: str, repositories: list[str], n: int
) -> None:
    """The order of distribution's walk, in pages of any size."""
    found = [repository for repository in _everything(client, n) if repository.startswith(above)]

    assert found == repositories


def _everything(client: Client, n: int) -> Iterator[str]:
    """All names from "zz" on, page by page."""
    for page in client.pages(f"/v2/_catalog?n={n}&last=zz", "repositories"):
        assert len(page) <= n
        yield from page


@pytest.mark.parametrize("position", [0, 3, 7, len(BELOW) - 2])
def test_a_catalog_goes_on_behind_last(client: Client, repositories: list[str], position: int) -> None:
    """``last`` is a name of the page before; what follows it in that order is next."""
    answer = client.get(f"/v2/_catalog?n=1&last={repositories[position].replace('/', '%2F')}")

    assert answer.json()["repositories"] == [repositories[position + 1]]


def test_a_catalogs_link_is_encoded(client: Client, repositories: list[str]) -> None:
    """Slashes in ``last`` are encoded, and decoded again on the way back."""
    answer = client.get(f"/v2/_catalog?n=1&last={repositories[0]}")
    link = answer.headers["link"]

    assert link.endswith('>; rel="next"')
    parts = urlsplit(link[1 : link.index(">")])
    assert parts.path == "/v2/_catalog"
    assert parse_qs(parts.query) == {"last": [repositories[1]], "n": ["1"]}


@pytest.mark.parametrize("n", ["1001", "100000", "9223372036854775807", "9223372036854775808"])
def test_a_catalog_of_too_many_is_refused(client: Client, n: str) -> None:
    """More than the largest page is an error here, as in distribution."""
    answer = client.get(f"/v2/_catalog?n={n}")

    assert (answer.status, answer.code) == (400, "PAGINATION_NUMBER_INVALID")


def test_an_empty_page_of_the_catalog(client: Client) -> None:
    """``n=0`` and a place behind everything give an empty list, never null, without a Link."""
    for query in ("n=0", "last=zzzzzzzzzzzzzzz", "last=%FF%00"):
        answer = client.get(f"/v2/_catalog?{query}")
        assert (answer.status, answer.json()) == (200, {"repositories": []})
        assert "link" not in answer.headers


def test_a_repository_is_listed_while_it_holds_a_manifest(client: Client, above: str) -> None:
    """Blobs alone aren't listed; with its last manifest a repository leaves the catalog (§1.10)."""

    def listed() -> list[str]:
        return client.get(f"/v2/_catalog?n=1&last={above[:-1]}").json()["repositories"]

    client.push_blob(above, CONFIG)
    before = above in listed()
    image = push_image(client, above, "latest")
    between = above in listed()
    client.delete(f"/v2/{above}/manifests/{image.digest}")

    assert (before, between, above in listed()) == (False, True, False)


@pytest.mark.parametrize(
    "path",
    [
        "//v2/_catalog",
        "/v2/_catalog/",
        "/v2//_catalog",
        "/v2/./_catalog",
        "/v2/x/../_catalog",
        "/V2/_catalog",
        "/v2/_Catalog",
    ],
)
def test_no_other_path_is_the_catalog(client: Client, repositories: list[str], path: str) -> None:
    """Variants of the path aren't a way around whoever guards it (CVE-2020-29662)."""
    answer = client.get(path)

    assert (answer.status, answer.code is not None) == (404, True)
    assert b"repositories" not in answer.body


@pytest.mark.parametrize("path", ["/v2/%5Fcatalog", "/%76%32/_catalog"])
def test_an_encoded_catalog_is_the_catalog(client: Client, path: str) -> None:
    """What is decoded to the path is the path, for every guard too: it is decoded before anybody looks."""
    assert list(client.get(path).json()) == ["repositories"]
