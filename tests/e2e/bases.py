"""Images as others make them, by the C library that they have: a static busybox, musl's, GNU's, and none."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.mounting import import_files, shared_packages

from roadstead.layers.deb import Package
from roadstead.testing.components import require
from roadstead.testing.dockerd import DockerEngine


@dataclass(frozen=True, slots=True)
class Base:
    """An image with one C library, how it is made, and how a folder is listed and a file copied in it."""

    name: str
    put: Callable[[DockerEngine, str, Path], object]
    list: Callable[[str], tuple[str, ...]]
    copy: Callable[[str, str], tuple[str, ...]]


def _put_busybox(engine: DockerEngine, name: str, _: Path) -> None:
    engine.import_busybox(name, applets=("cat", "ls", "sh"))


def _put_static(engine: DockerEngine, name: str, _: Path) -> None:
    engine.import_busybox(name)


def _put_glibc(engine: DockerEngine, name: str, folder: Path) -> None:
    """Debian's `ls` and `dd` with the libraries they need, where Debian has them."""
    libraries = "lib/x86_64-linux-gnu"
    wanted = {
        "coreutils": ("bin/ls", "bin/dd"),
        "libc6": ("lib64/ld-linux-x86-64.so.2", f"{libraries}/libc.so.6"),
        "libselinux1": (f"{libraries}/libselinux.so.1",),
        "libpcre2-8-0": (f"usr/{libraries}/libpcre2-8.so.0",),
    }
    files = {}
    for package, paths in wanted.items():
        content = Package.read(next(shared_packages("amd64").glob(f"{package}_*.deb")))
        for path in paths:
            files[path] = content.find(path.replace("lib64/", f"{libraries}/")) or b""
    assert all(files.values()), {path: len(found) for path, found in files.items()}
    import_files(engine, name, files, folder)


def _put_musl(engine: DockerEngine, name: str, folder: Path) -> None:
    """A program linked to musl, and musl, whose loader is the library."""
    compiler = require("musl-gcc", install="apt-get install gcc musl-tools")
    source = Path(__file__).with_name("musl_lister.c")
    subprocess.run([compiler, "-O1", "-o", folder / "lister", source], check=True, capture_output=True, timeout=60)
    loader = "lib/ld-musl-x86_64.so.1"
    files = {"bin/lister": (folder / "lister").read_bytes(), loader: Path("/", loader).read_bytes()}
    import_files(engine, name, files, folder)


BASES = (
    Base("busybox", _put_busybox, lambda it: ("ls", "-la", it), lambda it, to: ("busybox", "cp", it, to)),
    Base("musl", _put_musl, lambda it: ("lister", it), lambda it, to: ("lister", it, to)),
    Base("glibc", _put_glibc, lambda it: ("ls", "-la", it), lambda it, to: ("dd", f"if={it}", f"of={to}")),
    Base(
        "static",
        _put_static,
        lambda it: ("/bin/busybox", "ls", "-la", it),
        lambda it, to: ("/bin/busybox", "cp", it, to),
    ),
)
