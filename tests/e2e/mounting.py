"""The S3 mount's layer for the tests, made once for a whole run from packages that apt fetches."""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

from roadstead.layers import apt, s3_mount
from roadstead.testing.components import ComponentMissingError

LAYER = "s3-mount.tar.gz"


def shared_packages(run_directory: Path, architecture: str) -> Path:
    """Return the folder with the packages of an architecture, fetched by whichever process of the run asks first."""
    folder = run_directory / f"packages-{architecture}"
    with (run_directory / f"packages-{architecture}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            if shutil.which("apt-get") is None:
                raise ComponentMissingError("apt-get", "these tests need Debian's package sources")
            unfinished = folder.with_suffix(".unfinished")
            unfinished.mkdir()
            apt.fetch(s3_mount.PACKAGES, architecture, unfinished)
            unfinished.rename(folder)
    return folder


def shared_layer(run_directory: Path) -> Path:
    """Return the layer for amd64, made by the command by whichever process of the run asks first."""
    packages, layer = shared_packages(run_directory, "amd64"), run_directory / LAYER
    with (run_directory / f"{LAYER}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not layer.exists():
            command = [sys.executable, "-m", "roadstead", "layer", "s3-mount", "--output", str(layer)]
            subprocess.run([*command, "--packages", str(packages)], check=True, capture_output=True, timeout=300)
    return layer
