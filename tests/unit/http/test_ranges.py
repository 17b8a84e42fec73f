"""Range headers, as a table of the registry spec's §1.6 and RFC 9110 §14."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.http.ranges import Part, Unsatisfiable, Whole, parse_content_range, parse_range

TOTAL = 100

CASES = [
    (None, Whole()),
    ("items=0-9", Whole()),
    ("bytes=", Whole()),
    ("bytes=a-b", Whole()),
    ("bytes=-", Whole()),
    ("bytes=0", Whole()),
    ("bytes=+1-5", Whole()),
    ("bytes=\uff11-5", Whole()),  # a digit, but not ASCII's
    ("bytes=0-9", (Part(0, 10),)),
    ("bytes=90-", (Part(90, 10),)),
    ("bytes=90-200", (Part(90, 10),)),
    ("bytes=-10", (Part(90, 10),)),
    ("bytes=-1000", (Part(0, 100),)),
    ("bytes=100-", Unsatisfiable()),
    ("bytes=500-0", Unsatisfiable()),
    ("bytes=5000-10000", Unsatisfiable()),
    ("bytes=-0", Unsatisfiable()),
    ("bytes=0-9,20-29", (Part(0, 10), Part(20, 10))),
    ("bytes=0-9, 10-19", (Part(0, 10), Part(10, 10))),  # neighbours stay apart: containers/image counts parts
    ("bytes=20-29,0-9", Whole()),
    ("bytes=0-50,40-90", Whole()),
    ("bytes=0-9,500-600", (Part(0, 10),)),
    ("bytes=" + ",".join(["0-0"] * 1001), Whole()),
    ("bytes=99999999999999999999-", Whole()),
]


@pytest.mark.parametrize(("text", "expected"), CASES, ids=[str(text)[:40] for text, _ in CASES])
def test_a_range_header_means(text: str | None, expected: object) -> None:
    """Each form of the header is answered as the spec says."""
    assert parse_range(text, TOTAL) == expected


@pytest.mark.parametrize("text", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_an_empty_blob_has_no_range(text: str) -> None:
    """Any range of nothing is unsatisfiable."""
    assert parse_range(text, 0) == Unsatisfiable()


@given(st.text(alphabet="bytes=0123456789-, ", max_size=60), st.integers(0, 1000))
def test_whatever_is_asked_parts_lie_inside(text: str, total: int) -> None:
    """No header makes us read outside the blob, or more than it has."""
    wanted = parse_range("bytes=" + text, total)
    if isinstance(wanted, tuple):
        assert all(part.start >= 0 and part.size > 0 and part.start + part.size <= total for part in wanted)
        assert sum(part.size for part in wanted) <= total


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0-9", (0, 10)),
        ("5-5", (5, 1)),
        ("bytes 0-9/100", (0, 10)),
        ("bytes 0-9/*", (0, 10)),
        ("9-0", None),
        ("-9", None),
        ("0-", None),
        ("a-b", None),
        ("", None),
        ("0-99999999999999999999", None),
    ],
)
def test_a_chunk_says_where_it_stands(text: str, expected: tuple[int, int] | None) -> None:
    """Content-Range of a chunk is read in the spec's form and in HTTP's."""
    assert parse_content_range(text) == expected
