"""The pinned versions are names and versions only, and cover what pyproject.toml asks for."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==[0-9A-Za-z.+!]+")


def normalised(name: str) -> str:
    """Return a distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> list[str]:
    """Return the lines of the constraints file that aren't comments."""
    lines = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_pins_are_names_and_versions() -> None:
    """No line names an address, a hash or an option, so that every package index serves; no name stands twice."""
    assert [line for line in pins() if PIN.fullmatch(line) is None] == []
    names = [normalised(line.partition("==")[0]) for line in pins()]
    assert len(names) == len(set(names))


def test_every_dependency_is_pinned() -> None:
    """What the package and its extras name has a pin."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    names = {normalised(re.split(r"[\[<>=!~; ]", requirement)[0]) for requirement in wanted} - {"roadstead"}

    assert names <= {normalised(line.partition("==")[0]) for line in pins()}
