"""Every boundary of every script, with every way to share out what others do: SQLite and PostgreSQL.

Nothing is drawn. tests/integration/test_collection_pauses.py has a part of this for every run of the tests.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import combinations, count

import pytest
from tests.integration.standstill import (
    RIVALS,
    CollectorProcess,
    Site,
    collector_stopped,
    opened,
    site_of,
    worker_stopped,
    worker_stopped_by_a_rival,
)
from tests.integration.stepwise import SCRIPTS, Case, Script, ground

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
    async with opened(site) as scene:
        ground(scene.case(str(script), size))
        for split in splits:
            for at in count(1):
                if not await worker_stopped(scene, script, size, at, split, steps):
                    break
        await scene.look(f"{script}/")
    print(f"\n{script} of {size} bytes, {len(splits)} splits: {scene.summary()}")
    assert scene.hit["word of COMMIT"] == scene.hit["COMMIT"] >= len(splits)


@pytest.mark.soak
@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.__name__)
@every_size
@every_script
async def test_a_worker_and_a_rival(site: Site, script: Script, size: int, rival: Callable[[Case], None]) -> None:
    """Another worker's client does something with the same image meanwhile."""
    async with opened(site) as scene:
        for at in count(1):
            if not await worker_stopped_by_a_rival(scene, script, size, at, rival, ("sweep", *script.steps)):
                break
        await scene.look(f"{script}-")
    print(f"\n{script} of {size} bytes, {rival.__name__}: {scene.summary()}")
    assert scene.hit["COMMIT"] > 0


@pytest.mark.soak
@every_size
@every_script
async def test_a_collector_at_every_boundary(site: Site, script: Script, size: int) -> None:
    """A client goes on while it stands still, and comes back where it is told to."""
    async with opened(site) as scene:
        ground(scene.case(str(script), size))
        with closing(CollectorProcess(site)) as collector:
            for at in count(1):
                if not await collector_stopped(scene, collector, script, size, at):
                    break
        await scene.look(f"{script}/")
    print(f"\ncollector, {script} of {size} bytes: {scene.summary()}")
    assert scene.hit["word of COMMIT"] > 0
