"""The log: one line an event on standard error, as text or JSON.

Events are constant phrases, facts are fields. structlog carries them; what the standard library's loggers say (the
server's included) takes the same way. Lines are collected for a moment and written by a thread, so that a request
never waits for whoever reads the log; warnings and errors are written at once, behind what came before them.
"""

import atexit
import json
import logging
import os
import re
import stat
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, Final

import msgspec
import structlog

_FLUSH_AFTER_S: Final = 0.02
_MAX_PENDING: Final = 20_000
_PIECE: Final = 4096  # PIPE_BUF on Linux: up to this many bytes a write to a pipe isn't mixed with another process's
_FILE_PIECE: Final = 256 << 10  # files keep writes apart whatever their size, and each lets go of the interpreter

LEVELS: Final[Mapping[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_COLOURS: Final[Mapping[str, str]] = {
    "debug": "\x1b[2m",
    "info": "\x1b[32m",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
    "critical": "\x1b[31;1m",
}
_PLAIN: Final = re.compile(r"[!#-<>-~\u00a1-\uffff]+")  # no blank, quote, equals sign or control character


class LineWriter:
    """Writes lines to a file descriptor from a thread of its own; ``write`` never waits for the reader.

    A reader that stalls costs lines, not requests: beyond 20,000 waiting lines the newest are dropped and counted.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._piece = _FILE_PIECE if stat.S_ISREG(os.fstat(descriptor).st_mode) else _PIECE
        self._pending: deque[bytes] = deque()
        self._wake = threading.Event()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._owner = 0
        self._closed = False
        self.dropped = 0

    def write(self, line: bytes) -> None:
        """Take one line, with its line end, to be written within some milliseconds."""
        if len(self._pending) >= _MAX_PENDING:
            self.dropped += 1
            return
        self._pending.append(line)
        if not self._wake.is_set():
            self._start()
            self._wake.set()

    def write_now(self, line: bytes) -> None:
        """Write one line and everything before it; return when it is written."""
        self._pending.append(line)
        self.flush()

    def flush(self) -> None:
        """Write everything that was taken so far."""
        with self._writing:
            piece: list[bytes] = []
            size = 0
            while self._pending:
                line = self._pending.popleft()
                size += len(line)
                if size > self._piece and piece:
                    self._put(b"".join(piece))
                    piece, size = [], len(line)
                piece.append(line)
            if self.dropped:
                piece.append(b"%d log lines were dropped: standard error is not read fast enough\n" % self.dropped)
                self.dropped = 0
            if piece:
                self._put(b"".join(piece))

    def close(self) -> None:
        """Write what is left and end the thread."""
        self._closed = True
        self._wake.set()
        self.flush()

    def _put(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                # Somebody made the terminal non-blocking; the thread may wait, a caller of write_now must too.
                time.sleep(0.005)
            except OSError:
                return  # Nobody reads any more: there is no place left to complain to.

    def _start(self) -> None:
        # A forked child has the object but not the thread.
        if self._thread is None or self._owner != os.getpid():
            self._owner = os.getpid()
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait()
            # Lines of the next moment go out with this one: fifty writes a second at the most.
            time.sleep(_FLUSH_AFTER_S)
            self._wake.clear()
            self.flush()


class LineLogger:
    """What structlog calls with a rendered line: one method a level."""

    def __init__(self, writer: LineWriter, *, threaded: bool = True) -> None:
        self.debug = self.info = writer.write if threaded else writer.write_now
        self.warning = self.error = self.critical = self.exception = writer.write_now


Event = MutableMapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOutput:
    """Where this process's lines go, and how they look."""

    write: Callable[[bytes], None]  # takes a line of level info
    format: str
    level: str
    colours: bool
    fields: Mapping[str, Any]  # of every line


_output: LogOutput | None = None


def current_output() -> LogOutput | None:
    """Return where lines go as `configure_logging` said last; None where structlog was configured by others."""
    return _output


def add_time(logger: object, method: str, event: Event) -> Event:
    """Put the time (UTC, ISO 8601, milliseconds) and the level first."""
    level = "error" if method == "exception" else method
    return {"time": moment(), "level": level, "event": event.pop("event", ""), **event}


def add_exception(logger: object, method: str, event: Event) -> Event:
    """Turn ``exc_info`` into the text of the traceback, under ``exception``."""
    exc_info = event.pop("exc_info", None)
    if exc_info:
        event["exception"] = _traceback(exc_info)
    return event


def render_json(logger: object, method: str, event: Event) -> bytes:
    """Return the event as one line of JSON."""
    for key, value in event.items():
        if type(value) not in _SIMPLE:
            event[key] = _simple(value)
    try:
        return _ENCODER.encode(event) + b"\n"
    except UnicodeEncodeError:
        # A lone surrogate: bytes of a client or a file name that are no UTF-8.
        return json.dumps(event).encode() + b"\n"


def text_renderer(*, colours: bool) -> Callable[[object, str, Event], bytes]:
    """Return a renderer of lines like ``TIME info  event  key=value``; no value can begin a line of its own."""

    def render(logger: object, method: str, event: Event) -> bytes:
        level = event.pop("level")
        when = event.pop("time")
        phrase = event.pop("event", "")
        exception = event.pop("exception", None)
        fields = [f"{key}={written(value)}" for key, value in event.items()]
        line = " ".join((when, level_shown(level, colours=colours), _phrase(phrase), *fields))
        if exception:
            # The one thing that is better read over several lines; indented, so that none looks like an event.
            line += "\n    " + exception.rstrip().replace("\n", "\n    ")
        return line.encode("utf-8", "backslashreplace") + b"\n"

    return render


def configure_logging(
    *,
    format: str,  # noqa: A002 - the setting's name
    level: str,
    descriptor: int = 2,
    threaded: bool = True,
    fields: Mapping[str, Any] | None = None,
) -> LineWriter:
    """Send structlog's and the standard library's events to `descriptor`; return the writer, to be closed at the end.

    `format` is ``text`` or ``json``, `level` the least important one that is written. Without `threaded` every line
    is written at once: for a process that forks and so must have no other thread. A forked child configures anew.
    Every line carries `fields`, unless the event itself says something under that name.
    """
    global _output  # beside structlog's own, which is one for the process too
    writer = LineWriter(descriptor)
    atexit.register(writer.close)
    colours = os.isatty(descriptor)
    renderer = render_json if format == "json" else text_renderer(colours=colours)
    _output = LogOutput(
        write=writer.write if threaded else writer.write_now,
        format=format,
        level=level,
        colours=colours,
        fields=dict(fields or {}),
    )
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *_always(fields or {}), add_time, add_exception, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: LineLogger(writer, threaded=threaded),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_ToStructlog()]
    # What libraries say below a warning is for whoever works on them.
    root.setLevel(LEVELS[level] if level == "debug" else max(LEVELS[level], logging.WARNING))
    # Its pool tells of a database that went away with a traceback each time; what that meant for us, we say ourselves.
    logging.getLogger("asyncpg").setLevel(logging.ERROR)
    logging.captureWarnings(capture=True)
    return writer


def _always(fields: Mapping[str, Any]) -> Sequence[Callable[[object, str, Event], Event]]:
    """Return the step that puts fields into every event; none where there are none, since it costs every line."""
    return [lambda _logger, _method, event: {**fields, **event}] if fields else []


class _ToStructlog(logging.Handler):
    """Hands records of the standard library's loggers on."""

    def __init__(self) -> None:
        super().__init__()
        self._log = structlog.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a log call with wrong arguments must not end the caller
            message = f"{record.msg} {record.args}"
        level = logging.getLevelName(record.levelno).lower()
        method = getattr(self._log, level if level in LEVELS else "warning")
        method(message, logger=record.name, exc_info=record.exc_info)


def moment() -> str:
    """Return the time as lines show it: UTC, ISO 8601, milliseconds."""
    second, rest = divmod(time.time_ns(), 1_000_000_000)
    return f"{_second(second)}{rest // 1_000_000:03d}Z"


@lru_cache(maxsize=1)
def _second(second: int) -> str:
    """Return a second's text up to the point; busy servers ask for the same one thousands of times."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))


def _simple(value: object) -> object:
    """Return what JSON has a form for; text for the rest: the encoder would open a Secret, which is a dataclass."""
    if type(value) in _SIMPLE:
        return value
    if isinstance(value, Mapping):
        return {str(key): _simple(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_simple(each) for each in value]
    return str(value)


_SIMPLE: Final = frozenset({str, int, float, bool, type(None)})
_ENCODER: Final = msgspec.json.Encoder()


def level_shown(level: str, *, colours: bool) -> str:
    """Return a level as lines of text show it: all as wide, in its colour on a terminal."""
    shown = f"{level:<8}"
    return f"{_COLOURS[level]}{shown}\x1b[0m" if colours else shown


def json_fields(fields: Mapping[str, Any]) -> bytes:
    """Return the members of a JSON object, each with a comma behind it."""
    if not fields:
        return b""
    return _ENCODER.encode({key: _simple(value) for key, value in fields.items()})[1:-1] + b","


def _phrase(phrase: object) -> str:
    text = str(phrase)
    return text if text.isprintable() else json.dumps(text)


def written(value: object) -> str:
    """Return a field's value as lines of text show it, in quotes where it could be taken for more than one value."""
    if type(value) is int or value is None:
        return str(value)
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=not text.isprintable())


ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def _traceback(exc_info: object) -> str:
    if isinstance(exc_info, BaseException):
        error: BaseException | None = exc_info
    elif isinstance(exc_info, tuple):
        error = exc_info[1]
    else:
        error = sys.exc_info()[1]
    return "".join(traceback.format_exception(error)) if error is not None else ""
