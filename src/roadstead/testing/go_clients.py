"""Programs written in Go, built once from their modules at pinned versions: crane, regctl, oras, helm, and others.

Debian has none of them. The first test that asks builds the program into the user's cache directory
(``$XDG_CACHE_HOME/roadstead/go-clients``), a minute or two each on two cores; every later run finds it there. The Go
module proxy and its checksum database give the sources; nothing else is fetched.
"""

import fcntl
import os
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from roadstead.testing.components import ComponentMissingError, require

GO_INSTALL: Final = "a package of Go 1.26 or newer from https://go.dev/dl, its bin directory on the path"
BUILD_TIMEOUT: Final = timedelta(minutes=20)

# The line `go` has the graph of modules pruned: what no package needs isn't looked for.
_GO_MOD: Final = """\
module clients

go 1.26

require {client.module} {client.version}
"""


@dataclass(frozen=True, slots=True)
class GoClient:
    """A program, the package it is built from, and the version of the module that has the package."""

    name: str
    module: str
    package: str  # below the module; empty for the module's own
    version: str
    sums: tuple[str, ...] = ()  # lines of go.sum, for files that are frozen here; the checksum database has the others

    @property
    def target(self) -> str:
        """Return the package's import path."""
        return f"{self.module}/{self.package}".rstrip("/")

    @property
    def path(self) -> Path:
        """Return where it is kept; another version is another file."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "roadstead" / "go-clients" / f"{self.name}-{self.version}" / self.name


CRANE: Final = GoClient("crane", "github.com/google/go-containerregistry", "cmd/crane", "v0.22.1")
REGCTL: Final = GoClient("regctl", "github.com/regclient/regclient", "cmd/regctl", "v0.11.7")
ORAS: Final = GoClient("oras", "oras.land/oras", "cmd/oras", "v1.2.3")
DISTRIBUTION: Final = GoClient("registry", "github.com/distribution/distribution/v3", "cmd/registry", "v3.1.1")
"""Docker's registry of today: a server, but built as the clients are. Debian's has no driver for S3."""

COSIGN: Final = GoClient("cosign", "github.com/sigstore/cosign/v2", "cmd/cosign", "v2.6.1")
"""Some two thousand packages: its build takes as long as all others together, so only long tests ask for it."""

NOTATION: Final = GoClient("notation", "github.com/notaryproject/notation", "cmd/notation", "v1.3.2")
HELM: Final = GoClient("helm", "helm.sh/helm/v3", "cmd/helm", "v3.22.0")


def find_or_build(client: GoClient) -> Path:
    """Return the program's path; processes that ask at the same time wait for the one that builds.

    Raises ComponentMissingError where Go is missing, or can't build it.
    """
    if client.path.exists():
        return client.path
    go = require("go", install=GO_INSTALL)
    client.path.parent.mkdir(parents=True, exist_ok=True)
    # One build at a time, of whatever program: each takes all cores, and they share packages that need no second build.
    with (client.path.parents[1] / "build.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not client.path.exists():
            _build(go, client)
    return client.path


def _build(go: Path, client: GoClient) -> None:
    """Build into a file beside the program's place and move it there, so that nobody runs half a program."""
    with tempfile.TemporaryDirectory(dir=client.path.parent) as folder:
        built = Path(folder) / client.name
        # A module of our own that needs theirs: `go install PACKAGE@VERSION` would ask the proxy for more than that.
        (Path(folder) / "go.mod").write_text(_GO_MOD.format(client=client))
        (Path(folder) / "go.sum").write_text("".join(f"{line}\n" for line in client.sums))
        done = subprocess.run(
            [go, "build", "-mod=mod", "-ldflags=-s -w", "-o", built, client.target],
            cwd=folder,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT.total_seconds(),
        )
        if done.returncode != 0:
            reason = done.stderr.strip().rpartition("\n")[2]
            raise ComponentMissingError(
                client.name, f"go build {client.target}@{client.version} (here it said: {reason})"
            )
        built.replace(client.path)
