"""Every boundary of every script, with every way to share out what others do: SQLite and PostgreSQL.

Nothing is drawn. tests/integration/test_collection_pauses.py has a part of this for every run of the tests.
"""

from collections.abc import Callable, Iterator
from itertools import combinations

import pytest
from tests.integration.standstill import (
    RIVALS,
    Site,
    collector_at_every_boundary,
    site_of,
    worker_and_rival,
    worker_at_every_boundary,
)
from tests.integration.stepwise import SCRIPTS, Case, Script

SIZES = (2_000, 100_000)  # bytes; the larger ones are staged on their way in

every_script = pytest.mark.parametrize("script", SCRIPTS, ids=str)
every_size = pytest.mark.parametrize("size", SIZES)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server for all scripts of this file."""
    with site_of(request.param, tmp_path_factory.mktemp("boundaries") / "site", request) as site:
        yield site


@pytest.mark.soak
@every_size
@every_script
async def test_a_worker_at_every_boundary(site: Site, script: Script, size: int) -> None:
    """Collection does some of its steps before the script, some while the worker stands still, and some after."""
    steps = ("sweep", *script.steps)
    splits = list(combinations(range(len(steps) + 1), 2))
    scene = await worker_at_every_boundary(site, script, size, splits, steps)
    print(f"\n{script} of {size} bytes, {len(splits)} splits: {scene.summary()}")
    assert scene.hit["word of COMMIT"] == scene.hit["COMMIT"] >= len(splits)


@pytest.mark.soak
@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.__name__)
@every_size
@every_script
async def test_a_worker_and_a_rival(site: Site, script: Script, size: int, rival: Callable[[Case], None]) -> None:
    """Another worker's client does something with the same image meanwhile."""
    scene = await worker_and_rival(site, script, size, rival)
    print(f"\n{script} of {size} bytes, {rival.__name__}: {scene.summary()}")
    assert scene.hit["COMMIT"] > 0


@pytest.mark.soak
@every_size
@every_script
async def test_a_collector_at_every_boundary(site: Site, script: Script, size: int) -> None:
    """A client goes on while it stands still, and comes back where it is told to."""
    scene = await collector_at_every_boundary(site, script, size)
    print(f"\ncollector, {script} of {size} bytes: {scene.summary()}")
    assert scene.hit["word of COMMIT"] > 0
