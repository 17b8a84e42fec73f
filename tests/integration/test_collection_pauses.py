"""Server processes that stand still before each of their steps, while others go on: SQLite and PostgreSQL.

The boundaries are counted, not drawn: the first, the second, … until there are no more. What lies between requests is
in test_collection_orders.py. Here each boundary is stopped at with a whole collection meanwhile; all ways to share out
collection's steps among before, within and after, and more scripts, are in tests/soak/test_boundaries.py.
"""

from collections.abc import Callable, Iterator

import pytest
from tests.integration.standstill import (
    RIVALS,
    Site,
    collector_at_every_boundary,
    site_of,
    worker_and_rival,
    worker_at_every_boundary,
)
from tests.integration.stepwise import SCRIPTS, Case, Script, mount, move_tag_and_back, push, with_another

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
    scene = await worker_at_every_boundary(site, script, size, [(0, len(steps))], steps)
    print(f"\n{script} {size}: {scene.summary()}")
    assert scene.hit["COMMIT"] > 0
    assert scene.hit["word of COMMIT"] == scene.hit["COMMIT"]


@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.__name__)
async def test_a_worker_and_a_rival(site: Site, rival: Callable[[Case], None]) -> None:
    """Another worker's client does something with the same image meanwhile: what a tag names then is whole."""
    script = Script(push, Case.idle, 2)
    scene = await worker_and_rival(site, script, SMALL, rival)
    print(f"\n{rival.__name__}: {scene.summary()}")
    assert scene.hit["COMMIT"] > 0


@pytest.mark.parametrize("script", [Script(mount, Case.idle, 3), Script(move_tag_and_back, with_another, 2)], ids=str)
async def test_a_collector_at_every_boundary(site: Site, script: Script) -> None:
    """A client goes on while it stands still, and comes back where it is told to."""
    scene = await collector_at_every_boundary(site, script, SMALL)
    print(f"\ncollector, {script}: {scene.summary()}")
    assert scene.hit["unlink in blobs"] > 0
