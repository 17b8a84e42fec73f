"""Server processes that stand still before each of their steps, while others go on: SQLite and PostgreSQL.

The boundaries are counted, not drawn: the first, the second, … until there are no more. What lies between requests is
in test_collection_orders.py. Here each boundary is stopped at with a whole collection meanwhile; all ways to share out
collection's steps among before, within and after, and more scripts, are in tests/soak/test_boundaries.py.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count

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
from tests.integration.stepwise import SCRIPTS, Case, Script, ground, mount, move_tag_and_back, push, with_another

SMALL, STAGED = 2_000, 100_000  # bytes; the larger ones are staged on their way in

PLACES = [(script, SMALL) for script in SCRIPTS] + [(script, STAGED) for script in SCRIPTS[:1]]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server for all scripts of this file."""
    with site_of(request.param, tmp_path_factory.mktemp("pauses") / "site", request) as site:
        yield site


@pytest.mark.parametrize(("script", "size"), PLACES, ids=lambda value: str(value))
async def test_a_worker_at_every_boundary(site: Site, script: Script, size: int) -> None:
    """A whole collection passes while it stands still: what is acknowledged then is here, and nothing else is."""
    steps = ("sweep", *script.steps)
    async with opened(site) as scene:
        ground(scene.case(str(script), size))
        for at in count(1):
            if not await worker_stopped(scene, script, size, at, (0, len(steps)), steps):
                break
        await scene.look(f"{script}/")
    print(f"\n{script} {size}: {scene.summary()}")
    assert scene.hit["COMMIT"] > 0
    assert scene.hit["word of COMMIT"] == scene.hit["COMMIT"]


@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.__name__)
async def test_a_worker_and_a_rival(site: Site, rival: Callable[[Case], None]) -> None:
    """Another worker's client does something with the same image meanwhile: what a tag names then is whole."""
    script = Script(push, Case.idle, 2)
    async with opened(site) as scene:
        for at in count(1):
            if not await worker_stopped_by_a_rival(scene, script, SMALL, at, rival, ("sweep", *script.steps)):
                break
        await scene.look(f"{script}-")
    print(f"\n{rival.__name__}: {scene.summary()}")
    assert scene.hit["COMMIT"] > 0


@pytest.mark.parametrize("script", [Script(mount, Case.idle, 3), Script(move_tag_and_back, with_another, 2)], ids=str)
async def test_a_collector_at_every_boundary(site: Site, script: Script) -> None:
    """A client goes on while it stands still, and comes back where it is told to."""
    async with opened(site) as scene:
        ground(scene.case(str(script), SMALL))
        with closing(CollectorProcess(site)) as collector:
            for at in count(1):
                if not await collector_stopped(scene, collector, script, SMALL, at):
                    break
        await scene.look(f"{script}/")
    print(f"\ncollector, {script}: {scene.summary()}")
    assert scene.hit["unlink in blobs"] > 0
