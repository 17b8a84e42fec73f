"""A Docker engine to push from and pull with: the one that runs here, or one of our own in a temporary directory."""

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from roadstead.testing.components import ComponentMissingError, require
from roadstead.testing.servers import Process

INSTALL = "apt-get install docker.io"
BUSYBOX_INSTALL = "apt-get install busybox-static"
DEFAULT_SOCKET = "unix:///var/run/docker.sock"
COMMAND_TIMEOUT = timedelta(minutes=3)


@dataclass(frozen=True, slots=True)
class DockerEngine:
    """A running engine behind a Unix socket. Registries on 127.0.0.0/8 may be spoken to without TLS."""

    host: str  # unix://…/docker.sock

    def docker(
        self,
        *arguments: str,
        check: bool = True,
        configuration: Path | None = None,
        timeout: timedelta = COMMAND_TIMEOUT,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``docker ARGUMENTS`` against this engine and return what it printed.

        *configuration* is the client's folder, where ``docker login`` keeps credentials; without one the client sees
        an empty one, never the caller's. Raises DockerCommandError when *check* is set and the command fails.
        """
        with tempfile.TemporaryDirectory(prefix="roadstead-docker-") as empty:
            done = subprocess.run(
                [find("docker"), *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout.total_seconds(),
                env=self.environment(configuration or Path(empty)),
            )
        if check and done.returncode != 0:
            raise DockerCommandError(arguments, done)
        return done

    def environment(self, configuration: Path) -> Mapping[str, str]:
        """Return the environment in which any Docker client talks to this engine."""
        # The classic builder: BuildKit's is a plug-in that isn't installed everywhere.
        return os.environ | {"DOCKER_HOST": self.host, "DOCKER_CONFIG": str(configuration), "DOCKER_BUILDKIT": "0"}

    def import_busybox(self, name: str, *, applets: Sequence[str] = ()) -> str:
        """Make the image *name*: an empty root with a static busybox in it; return its id, ``sha256:<hex>``.

        *applets* are commands of busybox that can be called by their own names.

        No network is needed. Its command prints one line, so ``docker run NAME`` shows that it works.
        """
        busybox = require("busybox", install=BUSYBOX_INSTALL)
        with tempfile.TemporaryDirectory(prefix="roadstead-image-") as folder:
            archive = Path(folder) / "root.tar"
            archive.write_bytes(_tar(dict.fromkeys(map("bin/{}".format, ("busybox", *applets)), busybox.read_bytes())))
            command = 'CMD ["/bin/busybox", "echo", "roadstead"]'
            return self.docker("import", "--change", command, str(archive), name).stdout.strip()

    def answers(self) -> bool:
        """Say whether the engine answers on its socket."""
        return self.docker("version", check=False).returncode == 0


class DockerCommandError(AssertionError):
    """A ``docker`` command failed; shows what it printed."""

    def __init__(self, arguments: tuple[str, ...], done: subprocess.CompletedProcess[str]) -> None:
        words = " ".join(arguments)
        super().__init__(f"docker {words} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        self.done = done


@contextmanager
def open_docker_engine() -> Iterator[DockerEngine]:
    """Give the engine that runs here, or run one until the block is left.

    Our own needs root. It touches neither the firewall nor bridges of the host, so its containers have no network
    but ``--network host``. Raises ComponentMissingError, ServerNotReadyError.
    """
    running = find_engine()
    if running is not None:
        yield running
        return
    with open_own_engine() as engine:
        yield engine


@contextmanager
def open_own_engine(before: Sequence[str] = (), *, mirror: str | None = None) -> Iterator[DockerEngine]:
    """Run an engine of our own until the block is left, whatever else runs here.

    *before* are the words of a program that becomes the one named behind them (``unshare --mount``). *mirror* is the
    address that Docker Hub's images are asked for at first. It needs root.
    Raises ComponentMissingError, ServerNotReadyError.
    """
    home = Path(tempfile.mkdtemp(prefix="roadstead-dockerd-"))
    engine = DockerEngine(f"unix://{home}/docker.sock")
    try:
        command: list[str | Path] = [*before, find("dockerd"), *_flags(home, engine)]
        if mirror is not None:
            command.append(f"--registry-mirror={mirror}")
        with Process(command, log=home / "log", directory=home) as process:
            process.wait_ready(engine.answers, timeout=timedelta(minutes=1))
            yield engine
    finally:
        _unmount_below(home)
        shutil.rmtree(home)


def find_engine() -> DockerEngine | None:
    """Return the engine that runs here, or None where one can be started.

    Raises ComponentMissingError when neither is so.
    """
    find("docker")
    running = DockerEngine(DEFAULT_SOCKET)
    if running.answers():
        return running
    find("dockerd")
    find("containerd")
    if os.geteuid() != 0:
        raise ComponentMissingError("a running Docker engine", "sudo systemctl start docker, as a member of its group")
    return None


def find(program: str) -> Path:
    """Return the path of one of Docker's programs."""
    return require(program, install=INSTALL)


def _flags(home: Path, engine: DockerEngine) -> list[str]:
    """Return dockerd's flags; everything it writes stays below *home*, its containerd included."""
    return [
        f"--data-root={home}/data",
        f"--exec-root={home}/exec",
        f"--pidfile={home}/dockerd.pid",
        f"--host={engine.host}",
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        "--insecure-registry=127.0.0.0/8",
        "--shutdown-timeout=2",
        "--log-level=warn",
    ]


def _unmount_below(home: Path) -> None:
    """Unmount what a stopped dockerd left: at the least its network namespace, ``exec/netns/default``."""
    mounts = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{home}/")), reverse=True):
        subprocess.run(["umount", mount], check=True, stdin=subprocess.DEVNULL, timeout=20)


def _tar(files: Mapping[str, bytes]) -> bytes:
    """Return a tar of executable *files*."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
