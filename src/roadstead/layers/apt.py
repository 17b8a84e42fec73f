"""Fetching packages, and all that they depend on, with the machine's own apt and the sources it is set to.

apt keeps its state in a folder of ours and believes that nothing is installed, so that it fetches everything, for any
architecture, and leaves the machine as it was. It checks the signatures.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from roadstead.layers.errors import DownloadFailedError

_TIMEOUT_S = 600


def fetch(packages: Sequence[str], architecture: str, folder: Path) -> list[Path]:
    """Put the newest *packages* and their dependencies into *folder*, and return the files, sorted. Blocking.

    DownloadFailedError when there is no apt, or it fails.
    """
    program = shutil.which("apt-get")
    if program is None:
        raise DownloadFailedError("there is no apt-get here")
    with tempfile.TemporaryDirectory(prefix="roadstead-apt-") as home:
        state = Path(home)
        for name in ("state/lists/partial", "cache/archives/partial"):
            (state / name).mkdir(parents=True)
        (state / "status").touch()
        (state / "apt.conf").write_text(_configuration(state, architecture))
        # Read before the machine's own files, so that these are still read, for their proxies and sources.
        environment = os.environ | {"APT_CONFIG": str(state / "apt.conf"), "LC_ALL": "C.UTF-8"}
        flags = ("--quiet", "--yes", "--no-install-recommends", "--download-only")
        for command in (("update", "--quiet"), (*flags, "install", *packages)):
            done = subprocess.run(  # noqa: S603  -- apt, by its path, with names of our own
                [program, *_overrides(state, architecture), *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
            if done.returncode != 0:
                raise DownloadFailedError(_last_error(done.stderr) or f"apt-get ended with status {done.returncode}")
        fetched = sorted((state / "cache/archives").glob("*.deb"))
        return [Path(shutil.move(path, folder / path.name)) for path in fetched]


def _configuration(state: Path, architecture: str) -> str:
    return f'Dir::State "{state}/state";\nAPT::Architectures {{ "{architecture}"; }};\nAPT::Sandbox::User "root";\n'


def _overrides(state: Path, architecture: str) -> list[str]:
    """Return what has to win over the machine's own configuration, which the command line does."""
    values = {
        "APT::Architecture": architecture,
        "Acquire::Languages": "none",
        "Dir::Cache": f"{state}/cache",
        "Dir::State": f"{state}/state",
        "Dir::State::status": f"{state}/status",
    }
    return [word for name, value in values.items() for word in ("-o", f"{name}={value}")]


def _last_error(text: str) -> str:
    return next((line[2:].strip() for line in reversed(text.splitlines()) if line.startswith("E:")), "")
