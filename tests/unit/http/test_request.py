"""What a request says, as handlers ask for it."""

from collections.abc import Sequence
from typing import Any

import pytest

from roadstead.http.asgi import MAX_PARAMETERS, ParametersTooManyError, Request


async def nothing() -> dict[str, Any]:
    """The body of a request that has none."""
    raise AssertionError("nobody asks for a body that isn't announced")


def request(headers: Sequence[tuple[bytes, bytes]] = (), query: bytes = b"", client: Any = None) -> Request:
    """A request with these headers."""
    scope = {"method": "GET", "path": "/", "headers": list(headers), "query_string": query, "client": client}
    return Request(scope, nothing)


def test_the_first_header_of_a_name_counts() -> None:
    """Where there are several, `headers` has them all in their order."""
    asked = request([(b"accept", b"a"), (b"if-match", b"x"), (b"accept", b"b")])

    assert asked.header(b"accept") == "a"
    assert asked.headers(b"accept") == ["a", "b"]
    assert (asked.header(b"if-match"), asked.headers(b"if-match")) == ("x", ["x"])
    assert (asked.header(b"range"), asked.headers(b"range")) == (None, [])


@pytest.mark.parametrize(
    ("headers", "announced", "is_over"),
    [
        ([], 0, True),
        ([(b"content-length", b"0")], 0, True),
        ([(b"content-length", b"7")], 7, False),
        ([(b"transfer-encoding", b"chunked")], None, False),
    ],
)
async def test_a_request_without_a_body_is_over(
    headers: Sequence[tuple[bytes, bytes]], announced: int | None, is_over: bool
) -> None:
    """Nothing is waited for then; any other is read or cut before its connection goes on."""
    asked = request(headers)

    assert (asked.announced, asked.is_over) == (announced, is_over)
    if is_over:
        assert await asked.drain()


def test_parameters_are_read_once_and_counted() -> None:
    """A name may come several times; more than any request needs are refused."""
    asked = request(query=b"tag=a&n=1&tag=b&last=")

    assert asked.query == {"tag": ["a", "b"], "n": ["1"], "last": [""]}
    assert asked.query is asked.query
    assert (asked.parameter("tag"), asked.parameter("missing")) == ("a", None)
    with pytest.raises(ParametersTooManyError):
        _ = request(query=b"&".join([b"a=1"] * (MAX_PARAMETERS + 1))).query
