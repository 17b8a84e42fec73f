"""The line of a request: what structlog would write, without its chain."""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from roadstead.telemetry import logs
from roadstead.telemetry.logs import configure_logging
from roadstead.telemetry.request_log import RequestLine, request_log

TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

AGENTS = (None, "docker/27.0", 'a "quoted" one', "line\nfeed", "blank space", "", "ünï=cöde", "\udcff lone", "k=v")


@pytest.fixture(scope="module", autouse=True)
def undone() -> Iterator[None]:
    """Leave logging as it was."""
    root = logging.getLogger()
    before = (root.handlers, root.level)
    yield
    root.handlers, root.level = before
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    logs._output = None


def both_ways(form: str, fields: Mapping[str, object], line: RequestLine, level: str = "info") -> tuple[bytes, bytes]:
    """Return what is written by hand, and by structlog."""
    readable, writable = os.pipe()
    try:
        writer = configure_logging(format=form, level=level, descriptor=writable, threaded=False, fields=fields)
        request_log()(line)
        structlog.get_logger().info(
            "request",
            **{name: value for name in line.__struct_fields__ if (value := getattr(line, name)) is not UNSET},
        )
        writer.close()
    finally:
        os.close(writable)
        with os.fdopen(readable, "rb") as file:
            written = file.read()
    first, _, second = TIME.sub(b"TIME", written).partition(b"\n")
    return first, second.rstrip(b"\n")


texts = st.one_of(st.sampled_from([agent for agent in AGENTS if agent is not None]), st.text(max_size=20))


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "fields", [{}, {"service": "registry", "site": "a b"}, {"path": "of the operator's"}, {"number": 1, "list": [1]}]
)
@given(
    line=st.builds(
        RequestLine,
        st.sampled_from(["GET", "HEAD", "BREW"]),
        texts,
        st.integers(100, 599),
        st.floats(0, 1000).map(lambda value: round(value, 6)),
        st.integers(0, 1 << 40),
        st.integers(0, 1 << 40),
        st.one_of(st.none(), st.just("127.0.0.1"), st.just("::1")),
        st.one_of(st.none(), texts),
        st.one_of(st.just(UNSET), st.just("BlobUnknownError")),
    )
)
def test_it_is_the_line_that_structlog_writes(form: str, fields: Mapping[str, object], line: RequestLine) -> None:
    """Whatever a client sends: the same bytes, but for the time."""
    by_hand, by_structlog = both_ways(form, fields, line)

    assert by_hand == by_structlog
    assert b"TIME" in by_hand


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_request_is_of_level_info(form: str) -> None:
    """Who wants warnings only gets none of it."""
    line = RequestLine("GET", "/v2/", 200, 0.5, 0, 2, None, None)

    assert both_ways(form, {}, line, level="warning") == (b"", b"")


def test_lines_of_many_requests_are_whole(tmp_path: Path) -> None:
    """What was taken is written when the writer is closed, in order, none lost."""
    descriptor = os.open(tmp_path / "log", os.O_CREAT | os.O_RDWR | os.O_APPEND)
    writer = configure_logging(format="text", level="info", descriptor=descriptor)
    write: Callable[[RequestLine], None] = request_log()

    for number in range(5000):
        write(RequestLine("GET", f"/{number}", 200, 0.001, 0, 1, "::1", "a"))
    writer.close()
    os.close(descriptor)

    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.split(" path=/")[1].split()[0] for line in lines] == [str(number) for number in range(5000)]
