"""Which kind of file system a path lies on, read from the kernel's table of mounts (proc(5), mountinfo)."""

import re
from pathlib import Path

_MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")
_NETWORK = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "smb3",
        "smbfs",
        "virtiofs",
    }
)
_NETWORK_FUSE = frozenset({"ceph", "gcsfuse", "glusterfs", "goofys", "mount-s3", "rclone", "s3fs", "sshfs"})


def filesystem_of(path: Path, mountinfo: str | None = None) -> str | None:
    """Return the type of the file system that `path` lies on (``ext4``, ``nfs4``); None where it can't be told.

    The path need not exist yet. `mountinfo` is the table's text, by default the kernel's own.
    """
    if mountinfo is None:
        try:
            mountinfo = _MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return None
    resolved = path.resolve()
    best: tuple[int, str] | None = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if not after or len(fields) < 5:
            continue
        point = Path(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        # Of two mounts on one point the later one covers the earlier.
        if resolved.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = (len(point.parts), after.split(" ")[0])
    return best[1] if best else None


def is_network(filesystem: str) -> bool:
    """Say whether a type of file system lies on other machines, where locks and mmap can't be relied on."""
    kind, _, implementation = filesystem.partition(".")
    return kind in _NETWORK or (kind == "fuse" and implementation in _NETWORK_FUSE)
