"""What the kernel knows of a server: processor time and memory of a process and all that came of it (proc(5))."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_MEMORY = re.compile(r"^Vm(HWM|RSS):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of one process, in bytes."""

    now: int
    peak: int


def cpu_s(pid: int) -> float:
    """Return the processor seconds, user and system, of a process and of its descendants, ended ones included."""
    return sum(_cpu_ticks(each) for each in tree(pid)) / _TICKS


def memory(pid: int) -> list[Memory]:
    """Return the memory of a process and of its living descendants, the largest first."""
    found = []
    for each in tree(pid):
        with suppress(OSError):
            kib = {name: int(value) for name, value in _MEMORY.findall(_read(each, "status"))}
            found.append(Memory(kib["RSS"] << 10, kib["HWM"] << 10))
    return sorted(found, key=lambda memory: memory.now, reverse=True)


def tree(pid: int) -> Iterator[int]:
    """Yield a process and its living descendants, whichever of its threads started them."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            for child in (thread / "children").read_text().split():
                yield from tree(int(child))


def _cpu_ticks(pid: int) -> int:
    try:
        fields = _read(pid, "stat").rpartition(")")[2].split()
    except OSError:
        return 0  # It ended since; its parent has its time now.
    # Of stat's fields 14 to 17 (utime, stime, cutime, cstime); the list begins with field 3.
    return sum(map(int, fields[11:15]))


def _read(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()
