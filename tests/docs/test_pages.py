"""The pages hold together: links lead somewhere and configuration examples can be read."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("changes/*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")
TOML_BLOCK = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    """Every relative link of a page leads to a file of the project."""
    targets = LINK.findall(page.read_text())

    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_configuration_examples_are_toml(page: Path) -> None:
    """Every configuration example is TOML that can be read."""
    for block in TOML_BLOCK.findall(page.read_text()):
        tomllib.loads(block)


def test_every_page_is_reached_from_the_readme() -> None:
    """From the README links lead to every page: what can't be found isn't read."""
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            waiting += [(page.parent / target).resolve() for target in LINK.findall(page.read_text())]

    fragments = {page for page in PAGES if re.search(r"\.(added|changed|fixed|removed|security)\.md$", page.name)}
    assert [str(page.relative_to(ROOT)) for page in PAGES if page not in reached | fragments] == []
