"""A containerd of one's own, in a temporary directory: for ``ctr``, which pushes and pulls as Kubernetes' nodes do."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from roadstead.testing.components import ComponentMissingError, require
from roadstead.testing.servers import Process

INSTALL = "apt-get install containerd"
COMMAND_TIMEOUT = timedelta(minutes=2)

# Kubernetes' part wants a network and cgroups of the host; ctr needs neither.
_CONFIG = """\
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
"""


@dataclass(frozen=True, slots=True)
class Containerd:
    """A running daemon behind a Unix socket."""

    socket: Path

    def ctr(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``ctr ARGUMENTS`` against this daemon; AssertionError when *check* is set and the command fails."""
        done = subprocess.run(
            [require("ctr", install=INSTALL), "--address", self.socket, *arguments],
            # Layers are unpacked by copying: overlay file systems can't be stacked everywhere.
            env={**os.environ, "CONTAINERD_SNAPSHOTTER": "native"},
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT.total_seconds(),
        )
        if check and done.returncode != 0:
            words = " ".join(arguments)
            raise AssertionError(f"ctr {words} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        return done


@contextmanager
def open_containerd() -> Iterator[Containerd]:
    """Run a daemon until the block is left. It needs root. Raises ComponentMissingError, ServerNotReadyError."""
    program = require("containerd", install=INSTALL)
    require("ctr", install=INSTALL)
    if os.geteuid() != 0:
        raise ComponentMissingError("root, for containerd", "sudo")
    with tempfile.TemporaryDirectory(prefix="roadstead-containerd-") as folder:
        home = Path(folder)
        (home / "config.toml").write_text(_CONFIG)
        daemon = Containerd(home / "containerd.sock")
        flags = [f"--config={home}/config.toml", f"--root={home}/root", f"--state={home}/state"]
        command = [str(program), *flags, f"--address={daemon.socket}"]
        with Process(command, log=home / "log", directory=home) as process:
            process.wait_ready(lambda: daemon.ctr("version", check=False).returncode == 0)
            yield daemon
