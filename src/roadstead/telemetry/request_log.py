"""The line that each request leaves in the log.

It is the line that structlog would write, byte for byte but for the time (a test compares them). It is put together
here because it comes with every request: structlog's chain of steps took a sixth of the time of a small answer.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec
import structlog

from roadstead.telemetry.logs import LEVELS, LogOutput, current_output, json_fields, level_shown, moment, written

PHRASE: Final = "request"
_LEVEL: Final = "info"
_FIRST: Final = ("time", "level", "event")  # of every line; what the event itself tells comes behind them
_REMEMBERED: Final = 512


class RequestLine(msgspec.Struct, gc=False):
    """What the line tells, in this order."""

    method: str
    path: str
    status: int
    duration_s: float
    received: int
    sent: int
    client: str | None
    agent: str | None
    error: str | msgspec.UnsetType = msgspec.UNSET  # left out where nothing went wrong


WriteRequest = Callable[[RequestLine], None]


def request_log() -> WriteRequest:
    """Return what writes the lines, as logging is configured now; through structlog where that isn't our doing."""
    output = current_output()
    if output is None or _FIELDS.keys() & output.fields.keys():  # a field of the operator's that we tell as well
        return _structlog()
    if LEVELS[output.level] > LEVELS[_LEVEL]:
        return _not_at_all
    return _json_log(output) if output.format == "json" else _text_log(output)


def _json_log(output: LogOutput) -> WriteRequest:
    head = f'","level":"{_LEVEL}","event":"{PHRASE}",'.encode() + json_fields(output.fields)
    encode = msgspec.json.Encoder().encode
    write, by_structlog = output.write, _structlog()

    def log(line: RequestLine) -> None:
        try:
            told = encode(line)
        except UnicodeEncodeError:  # a lone surrogate: bytes of a client that are no UTF-8
            by_structlog(line)
        else:
            write(b'{"time":"%b%b%b\n' % (moment().encode(), head, told[1:]))

    return log


def _text_log(output: LogOutput) -> WriteRequest:
    fields = "".join(f"{key}={written(value)} " for key, value in output.fields.items())
    head = f" {level_shown(_LEVEL, colours=output.colours)} {PHRASE} {fields}"
    write = output.write

    def log(line: RequestLine) -> None:
        duration = f"{line.duration_s:.6f}".rstrip("0").rstrip(".")
        error = "" if line.error is msgspec.UNSET else f" error={written(line.error)}"
        text = (
            f"{moment()}{head}method={_few(line.method)} path={written(line.path)} status={line.status} "
            f"duration_s={duration} received={line.received} sent={line.sent} "
            f"client={_few(line.client)} agent={_few(line.agent)}{error}\n"
        )
        write(text.encode("utf-8", "backslashreplace"))

    return log


@lru_cache(maxsize=_REMEMBERED)
def _few(value: str | None) -> str:
    """Return a value's text; remembered, for there are few methods, clients and programs at any time."""
    return written(value)


def _not_at_all(_: RequestLine) -> None:
    pass


def _structlog() -> WriteRequest:
    write = structlog.get_logger()

    def log(line: RequestLine) -> None:
        write.info(PHRASE, **_told(line))

    return log


def _told(line: RequestLine) -> Mapping[str, Any]:
    told = msgspec.structs.asdict(line)
    return {key: value for key, value in told.items() if value is not msgspec.UNSET}


_FIELDS: Final = dict.fromkeys((*_FIRST, *RequestLine.__struct_fields__))
