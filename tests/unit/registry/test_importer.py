"""An import that is interrupted goes on; one that is run again changes nothing."""

from pathlib import Path

import pytest

from roadstead.clock import SystemClock
from roadstead.db.engine import Database, open_database
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.registry.importer import Gate, Importer, ImportRunningError, Report, must_rebuild, open_gate
from roadstead.registry.ports import ImportState
from roadstead.storage import keys
from roadstead.storage.drivers.memory import MemoryDriver
from roadstead.testing.contracts.driver import put
from roadstead.testing.images import make_image

NAMES = [RepositoryName(f"team/app{number}") for number in range(5)]
CLOCK = SystemClock()


@pytest.fixture
async def database(tmp_path: Path):
    database = await open_database(f"sqlite:///{tmp_path}/roadstead.db", migrate=True)
    yield database
    await database.close()


@pytest.fixture
async def driver() -> MemoryDriver:
    """A tree with an image in each of five repositories."""
    driver = MemoryDriver()
    for name in NAMES:
        image = make_image(seed=name.value)
        digest = str(image.digest).encode()
        await put(driver, keys.blob(image.digest), image.raw)
        await put(driver, keys.revision_link(name, image.digest), digest)
        await put(driver, keys.tag_link(name, Tag("1")), digest)
        await put(driver, keys.tag_index_link(name, Tag("1"), image.digest), digest)
        for blob, data in image.blobs.items():
            await put(driver, keys.blob(blob), data)
            await put(driver, keys.layer_link(name, blob), str(blob).encode())
    return driver


async def test_it_goes_on_where_it_was_interrupted(database: Database, driver: MemoryDriver) -> None:
    """What is here whole isn't read again; until all is, the gate stays closed."""

    class KilledError(Exception):
        """As good as a kill."""

    def kill(where: str, _: Report) -> None:
        if where == NAMES[2].value:
            raise KilledError

    with pytest.raises(KilledError):
        await Importer(database.imports, driver, CLOCK, progress=kill).run()
    status = await database.imports.status()
    gate = await open_gate(database.imports)
    assert (status.state, status.after) == (ImportState.RUNNING, NAMES[1].value)
    with pytest.raises(ImportRunningError):
        await gate.check()
    assert await must_rebuild(database.imports, driver, CLOCK.now())

    report = await Importer(database.imports, driver, CLOCK).run()

    await gate.check()
    assert gate.is_open
    assert report.repositories == 3
    for name in NAMES:
        image = make_image(seed=name.value)
        found = await database.manifests.find_by_tag(name, Tag("1"))
        assert found is not None
        assert found.digest == image.digest
        assert await database.blobs.find(name, image.layers[0].digest) is not None


async def test_running_it_again_changes_nothing(database: Database, driver: MemoryDriver) -> None:
    """The same report, one line in the journal of each tag."""
    first = await Importer(database.imports, driver, CLOCK).run()
    again = await Importer(database.imports, driver, CLOCK).run()

    assert again.as_json() == first.as_json()
    assert len(await database.journal.tag_changes(NAMES[0], Tag("1"), limit=10)) == 1


async def test_only_an_empty_database_is_built_anew(database: Database, driver: MemoryDriver) -> None:
    """And only from a tree that isn't empty."""
    assert not await must_rebuild(database.imports, MemoryDriver(), CLOCK.now())
    assert isinstance(await open_gate(database.imports), Gate)

    await database.imports.add_repository(RepositoryName("mine"), now=CLOCK.now())

    assert not await must_rebuild(database.imports, driver, CLOCK.now())
    assert (await open_gate(database.imports)).is_open
