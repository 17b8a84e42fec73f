"""Range headers, as a table of the registry spec's §1.6 and RFC 9110 §14."""

from collections.abc import AsyncGenerator
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadstead.http.ranges import (
    Part,
    Stretch,
    Unsatisfiable,
    Whole,
    cut,
    parse_content_range,
    parse_range,
    together,
)

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


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=12),
    st.lists(st.integers(1, 25), min_size=1, max_size=30),
    st.integers(1, 40),
)
async def test_parts_are_cut_out_of_what_is_read(steps: list[tuple[int, int]], sizes: list[int], near: int) -> None:
    """However the bytes come, each part begins once, in order, and gets exactly its bytes; few reads do."""
    parts, end = [], 0
    for gap, size in steps:
        parts.append(Part(end + gap, size))
        end += gap + size
    blob = bytes(index % 251 for index in range(end))

    async def read(stretch: Stretch) -> AsyncGenerator[bytes, None]:
        position, lengths = stretch.start, cycle(sizes)
        while position < stretch.start + stretch.size:
            piece = blob[position : min(position + next(lengths), stretch.start + stretch.size)]
            position += len(piece)
            yield piece

    stretches = together(parts, near=near)
    begun: list[Part] = []
    found: list[bytes] = []
    for stretch in stretches:
        async for part, piece in cut(stretch, read(stretch)):
            if piece is None:
                begun.append(part)
                found.append(b"")
            else:
                found[-1] += piece

    assert begun == parts
    assert found == [blob[part.start : part.start + part.size] for part in parts]
    assert len(stretches) == 1 + sum(gap >= near for gap, _ in steps[1:])
