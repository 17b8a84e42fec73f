"""The log: one line an event."""

import json
import logging
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from roadstead.secret import Secret
from roadstead.telemetry.logs import LineWriter, configure_logging

Lines = Callable[[], list[str]]
Configure = Callable[..., Lines]


@pytest.fixture
def configure(tmp_path: Path) -> Iterator[Configure]:
    """Configure logging into a file; what it gives returns the lines so far. Undone afterwards."""
    root = logging.getLogger()
    before = (root.handlers, root.level)
    descriptor = os.open(tmp_path / "log", os.O_CREAT | os.O_RDWR | os.O_APPEND)
    writers: list[LineWriter] = []

    def begin(form: str, level: str = "info", *, threaded: bool = True, **fields: str) -> Lines:
        writers.append(
            configure_logging(format=form, level=level, descriptor=descriptor, threaded=threaded, fields=fields)
        )

        def lines() -> list[str]:
            writers[-1].flush()
            return (tmp_path / "log").read_text().rstrip("\n").split("\n")

        return lines

    yield begin
    for writer in writers:
        writer.close()
    os.close(descriptor)
    root.handlers, root.level = before
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def test_fields_of_every_line(configure: Configure) -> None:
    """They come behind the event; what an event says itself under that name goes before them."""
    lines = configure("json", service="registry", site="here")

    structlog.get_logger().info("request", status=200, site="there")

    [line] = lines()
    event = json.loads(line)
    assert list(event)[:3] == ["time", "level", "event"]
    assert (event["service"], event["site"], event["status"]) == ("registry", "there", 200)


def test_json_lines_carry_facts(configure: Configure) -> None:
    """Time, level and event come first; secrets show as `***`."""
    lines = configure("json")

    structlog.get_logger().info("request", method="GET", status=200, duration_s=0.25, token=[Secret("hunter2")])

    [line] = lines()
    event = json.loads(line)
    assert list(event) == ["time", "level", "event", "method", "status", "duration_s", "token"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event.pop("time"))
    assert event == {
        "level": "info",
        "event": "request",
        "method": "GET",
        "status": 200,
        "duration_s": 0.25,
        "token": ["***"],
    }


def test_text_lines_are_read_by_people(configure: Configure) -> None:
    """`key=value`, quoted where it must be, without colours in a file."""
    lines = configure("text")

    structlog.get_logger().warning("disk is nearly full", path="/a b", free=12, ratio=0.5, tag="é", missing=None)

    [line] = lines()
    assert re.fullmatch(r"\S+Z warning  disk is nearly full path=\"/a b\" free=12 ratio=0.5 tag=é missing=None", line)


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "hostile", ["a\n2026-01-01T00:00:00Z error forged", "a\r\x1b[2J", 'a" level="error', "\x85a\u2028b", "\udcff"]
)
def test_no_value_begins_a_line_of_its_own(configure: Configure, form: str, hostile: str) -> None:
    """What clients send can't forge a line or move the terminal's cursor."""
    lines = configure(form)

    structlog.get_logger().info(hostile, agent=hostile)

    [line] = lines()
    assert "\x1b" not in line
    assert form == "text" or json.loads(line)["agent"] == hostile


def test_levels_below_the_chosen_one_are_left_out(configure: Configure) -> None:
    """Ours from the level on; of libraries, warnings and what is worse."""
    lines = configure("text", "info")

    structlog.get_logger().debug("not this")
    structlog.get_logger().info("this")
    logging.getLogger("library").info("nor this")
    logging.getLogger("library").warning("but %s", "this")

    assert [line.split(" ", 2)[2].strip() for line in lines()] == ["this", "but this logger=library"]


def test_exceptions_are_told_with_their_traceback(configure: Configure) -> None:
    """As one field in JSON, as indented lines in text; from structlog and from the standard library alike."""
    for form in ("json", "text"):
        lines = configure(form)
        try:
            raise ValueError("broken")
        except ValueError:
            structlog.get_logger().exception("first failed")
            logging.getLogger("library").exception("second failed")
        told = lines()
    assert sum("ValueError: broken" in line for line in told) == 4
    assert "ValueError: broken" in json.loads(told[0])["exception"]
    assert "    ValueError: broken" in told


def test_wrong_arguments_of_a_log_call_end_nothing(configure: Configure) -> None:
    """A library's mistake in a log call is no reason to fail."""
    lines = configure("json")

    logging.getLogger("library").warning("%d files", "many")

    assert "many" in lines()[0]


def test_warnings_go_the_same_way(configure: Configure) -> None:
    """Python's warnings are lines of the log."""
    lines = configure("json")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)

    assert "DeprecationWarning: old" in lines()[0]


def test_a_reader_that_stalls_costs_lines_not_time() -> None:
    """Nobody waits for a full pipe; what was dropped is counted, and told when the reader is back."""
    readable, writable = os.pipe()
    writer = LineWriter(writable)
    for _ in range(30_000):
        writer.write(b"x" * 99 + b"\n")
    assert writer.dropped > 0

    received = bytearray()
    done = threading.Event()

    def read() -> None:
        while b"were dropped" not in received:
            received.extend(os.read(readable, 1 << 16))
        done.set()

    reader = threading.Thread(target=read)
    reader.start()
    writer.flush()

    assert done.wait(20)
    reader.join()
    writer.close()
    os.close(writable)
    os.close(readable)


def test_nothing_is_lost_at_the_end() -> None:
    """Closing writes what is left, in order."""
    readable, writable = os.pipe()
    writer = LineWriter(writable)
    for number in range(100):
        writer.write(b"%d\n" % number)
    writer.close()
    os.close(writable)

    with os.fdopen(readable) as pipe:
        assert [int(line) for line in pipe] == list(range(100))


def test_a_closed_log_ends_nothing() -> None:
    """When nobody reads any more, writing goes nowhere and raises nothing."""
    readable, writable = os.pipe()
    os.close(readable)
    writer = LineWriter(writable)

    writer.write_now(b"into the void\n")

    writer.close()
    os.close(writable)
