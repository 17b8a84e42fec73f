"""podman, skopeo and buildah, kept apart from what the machine's user has."""

import os
import subprocess
from pathlib import Path

from roadstead.testing.components import require

APT = "apt-get install --no-install-recommends podman skopeo buildah busybox-static"


class Containers:
    """podman, skopeo and buildah with a storage of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._environment = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(directory / "run"),
            "HOME": str(directory),
            "REGISTRIES_CONFIG_PATH": str(directory / "registries.conf"),
            "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
            "BUILDAH_ISOLATION": "chroot",
        }
        (directory / "run").mkdir(mode=0o700)
        (directory / "registries.conf").write_text("unqualified-search-registries = []\n")
        (directory / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\nrunroot = "{directory}/run"\ngraphroot = "{directory}/graph"\n'
        )
        policy = directory / ".config" / "containers" / "policy.json"
        policy.parent.mkdir(parents=True)
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')

    def run(self, program: str, *arguments: str) -> str:
        """Run one of the programs and return what it printed."""
        command = [str(require(program, install=APT)), *arguments]
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout
