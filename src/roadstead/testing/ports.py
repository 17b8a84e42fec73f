"""Ports for the servers of tests: no two of a run are given the same one, nor is a caller's connection."""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import Final

PORTS: Final = range(10_240, 20_000)
"""Below the ports that a kernel gives by itself (from 32,768 on with Linux, from 49,152 on elsewhere), so that nobody's
own end of a connection is one, nor what listens at port 0; below those of Nomad's and Kubernetes' services, and above
those that browsers refuse."""


def free_port() -> int:
    """Return a TCP port on which nothing listens, and which comes round again only after all the others.

    The kernel's own choice of a free port is free for that moment only: it may choose it again for somebody else
    before our server, or one that is started anew, listens there. So we count, over all processes that share a folder
    for temporary files.
    """
    turns = os.open(Path(tempfile.gettempdir(), f"roadstead-test-ports-{os.getuid()}"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(turns, fcntl.LOCK_EX)
        # Runs with other folders begin elsewhere: else they would follow one another port by port.
        at = int(os.pread(turns, 5, 0) or random.choice(PORTS)) - PORTS.start  # noqa: S311 -- no secret
        for step in range(1, len(PORTS) + 1):
            port = PORTS[(at + step) % len(PORTS)]
            if _is_free(port):
                # Written over, all being of five digits: ext4 has what was cut to nothing on the disk at each closing.
                os.pwrite(turns, str(port).encode(), 0)
                return port
    finally:
        os.close(turns)
    raise OSError(f"something listens on each port from {PORTS.start} to {PORTS.stop - 1}")


def _is_free(port: int) -> bool:
    """Say whether *port* can be bound, whatever address is meant: servers listen on all of them, or on one."""
    with socket.socket() as listener:
        try:
            listener.bind(("", port))
        except OSError:
            return False
        return True
