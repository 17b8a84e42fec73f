"""The pages of docs/reference that are made from the code."""

from pathlib import Path

import pytest

from roadstead.cli.reference import metrics_page, settings_page
from roadstead.settings.load import keys, variable

_REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


@pytest.mark.parametrize(("name", "page"), [("settings.md", settings_page()), ("metrics.md", metrics_page())])
def test_pages_are_current(name: str, page: str) -> None:
    """What is in docs/reference is what the code says; `python -m roadstead.cli.reference docs/reference` renews it."""
    assert (_REFERENCE / name).read_text() == page


@pytest.mark.parametrize("key", keys())
def test_every_setting_is_described(key: str) -> None:
    """Each key has its variable and a description on the page."""
    assert variable(key) in settings_page()
