"""The S3 mount's layer for the tests, made once for a whole run from packages that apt fetched once for this user.

They stay in ``$XDG_CACHE_HOME/roadstead/debian-packages``, as the programs built from Go do beside them: once they are
there, the tests need no network. Remove the folder for newer ones.
"""

import fcntl
import hashlib
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

from roadstead.layers import apt, s3_mount
from roadstead.layers.errors import DownloadFailedError
from roadstead.testing.components import ComponentMissingError
from roadstead.testing.dockerd import DockerEngine

LAYER = "s3-mount.tar.gz"


def shared_packages(architecture: str) -> Path:
    """Return the folder with the packages of an architecture, fetched by whichever process asks first."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "roadstead" / "debian-packages"
    cache.mkdir(parents=True, exist_ok=True)
    wanted = hashlib.sha256(" ".join(s3_mount.PACKAGES).encode()).hexdigest()[:12]
    folder = cache / f"{architecture}-{wanted}"
    with (cache / "fetch.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            try:
                apt.fetch(s3_mount.PACKAGES, architecture, unfinished)
            except DownloadFailedError as error:
                raise ComponentMissingError("Debian's packages", f"apt, with sources that answer: {error}") from error
            unfinished.rename(folder)
    return folder


def device_for_all(folder: Path) -> str:
    """Return what ``docker run --device`` takes for a /dev/fuse that every user may open, as udev makes it."""
    device = Path("/dev/fuse").stat()
    if device.st_mode & 0o006 == 0o006:
        return "/dev/fuse"
    if os.geteuid() != 0:
        raise ComponentMissingError("a /dev/fuse that all may open", "sudo chmod 666 /dev/fuse")
    node = folder / "fuse"
    os.mknod(node, stat.S_IFCHR, device.st_rdev)
    node.chmod(0o666)
    return f"{node}:/dev/fuse"


def shared_layer(run_directory: Path) -> Path:
    """Return the layer for amd64, made by the command by whichever process of the run asks first."""
    packages, layer = shared_packages("amd64"), run_directory / LAYER
    with (run_directory / f"{LAYER}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not layer.exists():
            command = [sys.executable, "-m", "roadstead", "layer", "s3-mount", "--output", str(layer)]
            subprocess.run([*command, "--packages", str(packages)], check=True, capture_output=True, timeout=300)
    return layer


def import_files(engine: DockerEngine, name: str, files: Mapping[str, bytes], folder: Path, *changes: str) -> None:
    """Make an image of files that may all be run; *changes* are lines of a Containerfile."""
    with tarfile.open(folder / "root.tar", "w") as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    words = [word for change in changes for word in ("--change", change)]
    engine.docker("import", *words, str(folder / "root.tar"), name)
