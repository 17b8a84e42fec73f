"""What a process tree asked the kernel to do with files below a directory, recorded with strace(1) and read back."""

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from roadstead.testing.components import require
from roadstead.testing.servers import ServerNotReadyError

INSTALL = "apt-get install strace"

_CALLS: Final = (
    "openat,creat,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,copy_file_range,sendfile,"
    "fsync,fdatasync,sync_file_range,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,"
    "mkdir,mkdirat,rmdir"
)
_LINE: Final = re.compile(r"(\d+) +(\d+\.\d+) (.*)", re.DOTALL)
_RESUMED: Final = re.compile(r"<\.\.\. (\w+) resumed>(.*)", re.DOTALL)
_CALL: Final = re.compile(r"(\w+)\((.*)\) += (-?\d+)", re.DOTALL)
_DESCRIPTOR: Final = re.compile(r"-?\w+<([^>]*)>(\(deleted\))?")
_ESCAPED: Final = "\\x"
_UNFINISHED: Final = " <unfinished ...>"
_NOT_FILES: Final = ("write", "writev", "sendfile")  # of sockets, pipes and logs, which nobody asks about
_NO_PROMISE: Final = ("sync_file_range",)  # it begins to write and makes nothing durable (sync_file_range(2), Warning)


class TraceError(Exception):
    """The trace holds a call that can't be read, or that the model of the disk doesn't know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One finished call on a file or folder. Calls come in the order in which they ended."""

    name: str  # create, write, truncate, flush, rename, unlink, mkdir; nothing: it counts, and is left out
    path: str  # absolute; for `flush` a file's or a folder's
    target: str = ""  # rename: the new path
    data: bytes = b""
    position: int = 0  # write: where to; truncate: the new size
    began_at: float  # seconds since 1970
    began_after: int  # how many of these calls had ended when it began

    def __str__(self) -> str:
        """Return a line for a person."""
        what = f" {len(self.data)} bytes at {self.position}" if self.name == "write" else ""
        return f"{self.name} {self.path}{what}{' -> ' + self.target if self.target else ''}"


def recorder(output: Path) -> tuple[str, ...]:
    """Return the words before a command that have its calls recorded.

    The tracer runs beside the command, not above it, so that its process id and its signals are the command's own.
    """
    strace = require("strace", install=INSTALL)
    options = "-D", "-f", "--seccomp-bpf", "-y", "-xx", "-ttt", "-s", str(1 << 24), "-e", "signal=none"
    return (str(strace), *options, "-e", f"trace={_CALLS}", "-o", str(output))


def wait_written(output: Path, pid: int, *, timeout_s: float = 20) -> None:
    """Return once the trace tells of the end of the process `pid`, which is when all of it is there."""
    end = re.compile(rb"^%d +\d+\.\d+ \+\+\+ (exited|killed)" % pid, re.MULTILINE)
    deadline = time.monotonic() + timeout_s
    while not end.search(output.read_bytes()[-(1 << 16) :]):
        if time.monotonic() > deadline:
            raise ServerNotReadyError("strace", "didn't finish its trace", "")
        time.sleep(0.02)


def read_trace(output: Path, below: Path) -> list[Call]:
    """Return the calls that changed something below the directory, or made it durable."""
    calls: list[Call] = []
    with output.open(encoding="ascii") as lines:
        for began_at, began_after, text in _whole(lines, calls):
            call = _parse(text, began_at, began_after, f"{below}/")
            if call is not None:
                calls.append(call)
    return calls


def _whole(lines: Iterable[str], done: list[Call]) -> Iterator[tuple[float, int, str]]:
    """Yield each call when it ended: (began at, how many had ended then, text)."""
    unfinished: dict[str, tuple[float, int, str]] = {}
    for line in lines:
        match = _LINE.match(line.rstrip("\n"))
        if match is None:
            raise TraceError(f"a line of the trace can't be read: {line[:200]}")
        thread, at, text = match[1], float(match[2]), match[3]
        if text.endswith(_UNFINISHED):
            unfinished[thread] = at, len(done), text.removesuffix(_UNFINISHED)
        elif resumed := _RESUMED.match(text):
            began_at, began_after, beginning = unfinished.pop(thread)
            yield began_at, began_after, beginning + resumed[2]
        elif not text.startswith(("+++", "---")):
            yield at, len(done), text


def _parse(text: str, began_at: float, began_after: int, below: str) -> Call | None:
    match = _CALL.match(text)
    if match is None:  # a call that its process didn't live to see the end of
        return None
    name, arguments, result = match[1], match[2], int(match[3])
    if result < 0:
        return None
    first, *rest = arguments.split(", ")
    if name == "openat":
        return _open(rest, began_at, began_after, below)
    if first.startswith('"'):
        return _by_path(name, [_text(first), *rest], began_at, began_after, below)
    path, is_deleted = _descriptor(first)
    if not f"{path}/".startswith(below) or is_deleted or name in (*_NOT_FILES, *_NO_PROMISE):
        return None
    match name:
        case "pwrite64":
            data = _unescaped(rest[0])[:result]
            return Call(
                name="write",
                path=path,
                data=data,
                position=int(rest[2]),
                began_at=began_at,
                began_after=began_after,
            )
        case "ftruncate":
            return Call(name="truncate", path=path, position=int(rest[0]), began_at=began_at, began_after=began_after)
        case "fsync" | "fdatasync":
            return Call(name="flush", path=path, began_at=began_at, began_after=began_after)
    raise TraceError(f"the model of the disk doesn't know {name} on {path}")


def _open(rest: list[str], began_at: float, began_after: int, below: str) -> Call | None:
    path, flags = _text(rest[0]), rest[1]
    if not path.startswith(below) or "O_CREAT" not in flags:
        return None
    if "O_TRUNC" in flags:
        raise TraceError(f"the model of the disk doesn't know O_TRUNC on {path}")
    return Call(name="create", path=path, began_at=began_at, began_after=began_after)


def _by_path(name: str, arguments: list[str], began_at: float, began_after: int, below: str) -> Call | None:
    path = arguments[0]
    if not path.startswith(below):
        return None
    target = ""
    if name == "rename":
        target = _text(arguments[1])
    elif name == "rmdir":
        name = "unlink"
    elif name not in ("unlink", "mkdir"):
        raise TraceError(f"the model of the disk doesn't know {name} on {path}")
    return Call(name=name, path=path, target=target, began_at=began_at, began_after=began_after)


def _descriptor(text: str) -> tuple[str, bool]:
    match = _DESCRIPTOR.match(text)
    if match is None:
        return "", False
    path = bytes.fromhex(match[1].replace(_ESCAPED, "")).decode() if match[1].startswith(_ESCAPED) else match[1]
    return path, match[2] is not None or path.endswith(" (deleted)")


def _text(quoted: str) -> str:
    return _unescaped(quoted).decode()


def _unescaped(quoted: str) -> bytes:
    return bytes.fromhex(quoted.strip('"').replace(_ESCAPED, ""))
