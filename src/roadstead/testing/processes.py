"""What Linux tells about processes and their connections, read from /proc (proc(5))."""

from collections.abc import Iterable, Iterator
from pathlib import Path

_LISTENING = "0A"  # the kernel's TCP_LISTEN, as /proc/net/tcp writes it


def children(pid: int) -> list[int]:
    """Return the process ids of the children, the oldest first; none where the process is gone."""
    found: list[int] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    except OSError:
        return found
    return found


def group_members(group: int) -> list[int]:
    """Return the process ids of a process group's living members; those that are dead and not waited for are none."""
    found: list[int] = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                fields = (path / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            if int(fields[2]) == group and fields[0] not in "ZX":
                found.append(int(path.name))
    return found


def listeners(port: int) -> set[int]:
    """Return who listens on a TCP port of 127.0.0.1: process ids."""
    inodes = {inode for local, _, state, inode in _connections() if local == port and state == _LISTENING}
    return {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and _sockets(path) & inodes}


def connection_owner(port: int, remote_port: int, candidates: Iterable[int]) -> int | None:
    """Return which process has the server's end of the connection from `remote_port`; None: none of these."""
    inodes = {inode for local, remote, _, inode in _connections() if (local, remote) == (port, remote_port)}
    for pid in candidates:
        if _sockets(Path(f"/proc/{pid}")) & inodes:
            return pid
    return None


def proportional_memory(pid: int) -> int:
    """Return a process's memory in bytes, what it shares with others counted in part (Pss)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    raise ValueError(f"the kernel doesn't tell the memory of process {pid}")


def _connections() -> Iterator[tuple[int, int, str, int]]:
    """Yield (local port, remote port, state, inode) of every TCP connection over IPv4."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        yield int(fields[1].rpartition(":")[2], 16), int(fields[2].rpartition(":")[2], 16), fields[3], int(fields[9])


def _sockets(process: Path) -> set[int]:
    """Return the inodes of a process's sockets; none where it has ended or is somebody else's."""
    found: set[int] = set()
    try:
        for entry in (process / "fd").iterdir():
            target = str(entry.readlink())
            if target.startswith("socket:["):
                found.add(int(target[8:-1]))
    except OSError:
        return found
    return found
