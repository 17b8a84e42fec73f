"""What stands before our paths, and what an operator adds to every answer."""

import pytest

from roadstead.http.outside import Outside
from roadstead.http.routes import PathUnknownError

LOCATION = (b"location", b"/v2/a/blobs/uploads/x")
LINK = (b"link", b'</v2/_catalog?last=a&n=1>; rel="next"')


def test_nothing_is_changed_by_default() -> None:
    """Paths and headers stay as the handlers wrote them."""
    outside = Outside()

    assert outside.inside("/v2/a/tags/list") == "/v2/a/tags/list"
    assert outside.dressed([LOCATION, LINK]) == [LOCATION, LINK]


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/r/v2/", "/v2/"),
        ("/r/v2/r/v2/tags/list", "/v2/r/v2/tags/list"),
        ("/r/", "/"),
        ("/", "/"),
        ("/readyz", "/readyz"),
    ],
)
def test_a_prefix_is_taken_off(path: str, inside: str) -> None:
    """It goes once; health is found without it too."""
    assert Outside(prefix="/r/").inside(path) == inside


@pytest.mark.parametrize("path", ["/v2/", "/v2", "/v2/a/tags/list"])
def test_the_api_needs_its_prefix(path: str) -> None:
    """It has one address, not two."""
    with pytest.raises(PathUnknownError):
        Outside(prefix="/r/").inside(path)


@pytest.mark.parametrize(
    ("outside", "base"),
    [
        (Outside(prefix="/r/"), b"/r"),
        (Outside(origin="https://h:1"), b"https://h:1"),
        (Outside(prefix="/r/s/", origin="https://h"), b"https://h/r/s"),
    ],
)
def test_locations_and_links_lead_back(outside: Outside, base: bytes) -> None:
    """Both begin with what stands before our paths; other headers stay, and other places too."""
    elsewhere = (b"location", b"https://elsewhere/x")

    dressed = outside.dressed([LOCATION, LINK, elsewhere, (b"etag", b'"/v2/"')])

    assert dressed == [
        (b"location", base + b"/v2/a/blobs/uploads/x"),
        (b"link", b"<" + base + b'/v2/_catalog?last=a&n=1>; rel="next"'),
        elsewhere,
        (b"etag", b'"/v2/"'),
    ]


def test_headers_are_added_once() -> None:
    """A second value of a header comes behind the first, the same one isn't said twice."""
    outside = Outside(headers=[(b"x-content-type-options", b"nosniff"), (b"vary", b"Origin")])

    dressed = outside.dressed([(b"x-content-type-options", b"nosniff"), (b"vary", b"Accept")])

    assert dressed == [(b"x-content-type-options", b"nosniff"), (b"vary", b"Accept"), (b"vary", b"Origin")]
