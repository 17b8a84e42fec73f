"""Links follow the facts, whatever the order of the notes and whoever else writes."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from roadstead.clock import SystemClock
from roadstead.db.engine import Database, open_database
from roadstead.oci.digest import Digest
from roadstead.oci.reference import Tag
from roadstead.registry.links import Links
from roadstead.registry.ports import BlobRecord
from roadstead.storage import keys
from roadstead.storage.drivers.memory import MemoryDriver
from roadstead.storage.ports import Bytes, Key
from roadstead.testing.contracts.driver import collect, listed, put
from roadstead.testing.contracts.registry_stores import APP, LATEST, NOW, layer, new_manifest


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:///{tmp_path}/roadstead.db", migrate=True)
    await database.links.switch_on(complete=True)
    yield database
    await database.close()


@pytest.fixture
def driver() -> MemoryDriver:
    return MemoryDriver()


@pytest.fixture
def links(database: Database, driver: MemoryDriver) -> Links:
    return Links(database.links, driver, SystemClock())


async def stored(driver: MemoryDriver, data: bytes, key: Key | None = None) -> BlobRecord:
    digest = Digest.of(data)
    record = BlobRecord(digest, len(data), key or keys.blob(digest))
    await put(driver, record.key, data)
    return record


async def read(driver: MemoryDriver, key: Key) -> str:
    return (await collect(driver.read(key))).decode()


async def test_a_push_becomes_links(database: Database, driver: MemoryDriver, links: Links) -> None:
    """Of the layer, the manifest and the tag, and the manifest's bytes among the blobs."""
    blob = await stored(driver, b"layer")
    manifest = new_manifest("image", [layer(blob)])
    await database.blobs.commit(APP, blob, upload=None, now=NOW)
    await database.manifests.put(APP, manifest, [LATEST], now=NOW)

    assert await links.catch_up() == 3

    assert await read(driver, keys.layer_link(APP, blob.digest)) == str(blob.digest)
    assert await read(driver, keys.revision_link(APP, manifest.digest)) == str(manifest.digest)
    assert await read(driver, keys.tag_link(APP, LATEST)) == str(manifest.digest)
    assert await read(driver, keys.tag_index_link(APP, LATEST, manifest.digest)) == str(manifest.digest)
    assert await read(driver, keys.blob(manifest.digest)) == "image"
    assert await links.catch_up() == 0


async def test_what_is_deleted_leaves_no_link(database: Database, driver: MemoryDriver, links: Links) -> None:
    """Nor a folder of the tag; the bytes are collection's."""
    blob = await stored(driver, b"layer")
    manifest = new_manifest("image", [layer(blob)])
    await database.blobs.commit(APP, blob, upload=None, now=NOW)
    await database.manifests.put(APP, manifest, [LATEST, Tag("v1")], now=NOW)
    await links.catch_up()

    await database.manifests.delete(APP, manifest.digest, now=NOW)
    await database.blobs.unlink(APP, blob.digest, now=NOW)
    await links.catch_up()

    assert set(await listed(driver)) == {blob.key, keys.blob(manifest.digest)}


async def test_a_tag_that_moved_twice_is_where_it_is(database: Database, driver: MemoryDriver, links: Links) -> None:
    """Notes of one tag are worked off together; everywhere it has been is kept."""
    manifests = [new_manifest(str(number)) for number in range(3)]
    for manifest in manifests:
        await database.manifests.put(APP, manifest, [LATEST], now=NOW)
    await links.catch_up()

    assert await read(driver, keys.tag_link(APP, LATEST)) == str(manifests[2].digest)
    for manifest in manifests:
        assert await read(driver, keys.tag_index_link(APP, LATEST, manifest.digest)) == str(manifest.digest)


async def test_a_damaged_link_is_mended(database: Database, driver: MemoryDriver, links: Links) -> None:
    """What a link says counts, not that it is there."""
    manifest = new_manifest("image")
    await put(driver, keys.tag_link(APP, LATEST), b"\0" * 71)
    await put(driver, keys.blob(manifest.digest), b"")
    await database.manifests.put(APP, manifest, [LATEST], now=NOW)
    await links.catch_up()

    assert await read(driver, keys.tag_link(APP, LATEST)) == str(manifest.digest)
    assert await read(driver, keys.blob(manifest.digest)) == "image"


async def test_bytes_come_to_where_distribution_looks(database: Database, driver: MemoryDriver, links: Links) -> None:
    """An object store leaves them where they came in; they are copied, and served from there."""
    blob = await stored(driver, b"large", keys.staged("u1"))
    await database.blobs.commit(APP, blob, upload=None, now=NOW)
    await links.catch_up()

    moved = await database.blobs.find(APP, blob.digest)
    assert moved == BlobRecord(blob.digest, blob.size, keys.blob(blob.digest))
    assert await read(driver, moved.key) == "large"


class OvertakenDriver(MemoryDriver):
    """A store in which, just before a key is written for the first time, something else happens."""

    def __init__(self, key: Key, happens: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._key = key
        self._happens = happens
        self.happened = False

    async def put(self, objects: Sequence[tuple[Key, Bytes]]) -> None:
        if not self.happened and self._key in dict(objects):
            self.happened = True
            await self._happens()
        await super().put(objects)


async def test_a_change_while_a_link_is_written_is_not_lost(database: Database) -> None:
    """Another process moves the tag, and writes its link, just before ours lands: ours is written again."""
    old, new = new_manifest("old"), new_manifest("new")
    await database.manifests.put(APP, old, [LATEST], now=NOW)

    async def move() -> None:
        await database.manifests.put(APP, new, [LATEST], now=NOW)
        await Links(database.links, driver, SystemClock()).catch_up()

    driver = OvertakenDriver(keys.tag_link(APP, LATEST), move)
    await Links(database.links, driver, SystemClock()).catch_up()

    assert driver.happened
    assert await read(driver, keys.tag_link(APP, LATEST)) == str(new.digest)
