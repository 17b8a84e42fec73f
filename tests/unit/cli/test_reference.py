"""The pages of docs/reference that are made from the code, or compared with it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from roadstead.cli.main import app
from roadstead.cli.reference import metrics_page, settings_page, with_table
from roadstead.settings.distribution_keys import KEYS
from roadstead.settings.load import keys, load, variable

_REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


@pytest.mark.parametrize(("name", "page"), [("settings.md", settings_page()), ("metrics.md", metrics_page())])
def test_pages_are_current(name: str, page: str) -> None:
    """What is in docs/reference is what the code says; `python -m roadstead.cli.reference docs/reference` renews it."""
    assert (_REFERENCE / name).read_text() == page


def _commands(command: Any, path: tuple[str, ...] = ("roadstead",)) -> Iterator[tuple[str, set[str]]]:
    """Yield each command's whole name, and its options; of a pair the one that isn't the default."""
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from _commands(below, (*path, name))
        return
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    longest = {max(one.secondary_opts if one.default is True else one.opts, key=len) for one in options}
    yield " ".join(path), longest - {"--help"}


def _told_of_commands() -> dict[str, set[str]]:
    """Return the options that the page tells of each command; lines that are indented go on with the one before."""
    page = (_REFERENCE / "README.md").read_text()
    [block] = re.findall(r"^```text\n(roadstead .*?)^```$", page, re.MULTILINE | re.DOTALL)
    told: dict[str, set[str]] = {}
    for line in re.sub(r"\n +", " ", block).splitlines():
        if name := re.match(r"roadstead( [a-z][a-z0-9-]*)+", line):
            told.setdefault(name[0], set()).update(re.findall(r"--[a-z-]+", line))
    return told


def test_the_list_of_commands_is_current() -> None:
    """Every command stands on the page with all its options, and no other."""
    assert _told_of_commands() == dict(_commands(typer.main.get_command(app)))


@pytest.mark.parametrize("key", keys())
def test_every_setting_is_described(key: str) -> None:
    """Each key has its variable and a description on the page."""
    assert variable(key) in settings_page()


def test_the_table_of_distributions_keys_is_current() -> None:
    """It stands in the how-to page as the code has it, every key once."""
    page = (_REFERENCE.parent / "how-to" / "use-a-distribution-config.md").read_text()

    assert with_table(page) == page
    assert all(page.count(f"\n| `{key.path}`") == 1 for key in KEYS)


def test_the_example_of_a_distribution_file_is_read(tmp_path: Path) -> None:
    """Every configuration on the how-to page is fine as it stands there."""
    page = (_REFERENCE.parent / "how-to" / "use-a-distribution-config.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.yml"
        path.write_text(block)
        assert load(path, environment={}).warnings == []
