"""The quickstart and the tutorial do what they say: their commands are run as they stand there.

What differs here: a port of our own, the checkout's `roadstead`, and, since no image hub is reachable, a busybox made
from Debian's in place of the one that is pulled.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from roadstead.testing.dockerd import DockerEngine
from roadstead.testing.server import RoadsteadServer

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SERVES = re.compile(r"make run(?: ARGS=\"(?P<config>[^\"]+)\")?")
HUB_IMAGE = "busybox:stable"


class Reader:
    """Somebody who follows a page, block by block, in an empty directory."""

    def __init__(self, directory: Path, engine: DockerEngine) -> None:
        self.directory = directory
        self.printed = ""
        self._engine = engine
        self._server: RoadsteadServer | None = None

    def follow(self, page: str) -> None:
        """Do what each block of the page says."""
        for language, text in BLOCK.findall(page):
            if language == "toml":
                (self.directory / "roadstead.toml").write_text(text)
            elif language == "sh" and (serves := SERVES.fullmatch(text.strip())):
                self._serve(serves["config"])
            elif language == "sh":
                self._type(text)

    def leave(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.stop()

    def _serve(self, config: str | None) -> None:
        self.leave()
        text = (self.directory / config).read_text() if config else '[storage]\npath = "roadstead-data"\n'
        self._server = RoadsteadServer(self.directory, config=text).start()

    def _type(self, text: str) -> None:
        assert self._server is not None, "the page serves before it does anything else"
        if f"docker pull {HUB_IMAGE}\n" in text:
            self._engine.import_busybox(HUB_IMAGE, applets=("cat", "ls", "sh"))
        script = text.replace(f"docker pull {HUB_IMAGE}\n", "").replace("localhost:5000", self._server.host)
        script = script.replace(".venv/bin/roadstead", f"{sys.executable} -m roadstead")
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
