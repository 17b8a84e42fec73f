"""The pages of docs/reference that are made from the code."""

import re
from pathlib import Path

import pytest

from roadstead.cli.reference import metrics_page, settings_page, with_table
from roadstead.settings.distribution_keys import KEYS
from roadstead.settings.load import keys, load, variable

_REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


@pytest.mark.parametrize(("name", "page"), [("settings.md", settings_page()), ("metrics.md", metrics_page())])
def test_pages_are_current(name: str, page: str) -> None:
    """What is in docs/reference is what the code says; `python -m roadstead.cli.reference docs/reference` renews it."""
    assert (_REFERENCE / name).read_text() == page


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
