"""What `roadstead.db` promises of every kind of database, below the stores.

A subclass gives the fixtures ``stores`` and ``elsewhere`` (open `Database` objects on one empty, migrated database,
at the address ``url``) and ``fresh_url`` (the address of a database without tables).
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, func, insert, select, text, update

import roadstead
from roadstead.db.engine import Database, open_database
from roadstead.db.errors import SchemaOutdatedError, SchemaTooNewError, StoreFailedError
from roadstead.db.schema import HEAD, blobs, instance, metadata
from roadstead.oci.digest import Digest
from roadstead.registry.errors import ManifestBlobUnknownError, StoreBusyError
from roadstead.testing.contracts.registry_stores import APP, LATEST, NOW, OTHER, layer, new_blob, new_manifest

SOURCES = str(Path(roadstead.__path__[0]).parent)
PATIENCE = timedelta(minutes=5)
"""How long the stores of a contract wait for their turn: hundreds of writes stand in line, on a busy machine too."""

_MIGRATE = """
import asyncio, sys
from roadstead.db.engine import open_database

async def main():
    database = await open_database(sys.argv[1], migrate=True)
    print((await database.instance.secret("s")).hex())
    await database.close()

asyncio.run(main())
"""


def note(connection: Connection, name: str) -> str:
    """Write a row that `noted` counts."""
    connection.execute(insert(instance), {"name": name, "value": b""})
    return name


def noted(connection: Connection) -> list[str]:
    """Return the names of the rows that `note` wrote."""
    return sorted(connection.execute(select(instance.c.name)).scalars())


def set_state(connection: Connection, digest: Digest, state: str) -> None:
    """Do to a blob what collection does."""
    connection.execute(update(blobs).where(blobs.c.digest == str(digest)).values(state=state))


class DatabaseContract:
    """Transactions, revisions, and blobs on their way out."""

    async def test_it_is_ready(self, stores: Database) -> None:
        """A probe that reads and writes."""
        await stores.check()

    async def test_an_intention_that_fails_is_undone(self, stores: Database) -> None:
        """And raises what it raised; those that ran beside it are stored."""

        def fail(connection: Connection) -> None:
            note(connection, "undone")
            raise LookupError("as intended")

        results = await asyncio.gather(
            stores.access.write(note, "a"),
            stores.access.write(fail),
            stores.access.write(note, "b"),
            return_exceptions=True,
        )

        assert [results[0], results[2]] == ["a", "b"]
        assert isinstance(results[1], LookupError)
        assert await stores.access.write(noted) == ["a", "b"]

    async def test_the_databases_own_errors_become_ours(self, stores: Database) -> None:
        """A statement that the database refuses is StoreFailedError, and undoes only its intention."""
        await stores.access.write(note, "a")

        with pytest.raises(StoreFailedError):
            await stores.access.write(note, "a")
        with pytest.raises(StoreFailedError):
            await stores.access.write(lambda connection: connection.execute(text("SELECT nonsense FROM nowhere")))

        assert await stores.access.write(noted) == ["a"]

    async def test_a_cancelled_write_happens_whole_or_not_at_all(self, stores: Database) -> None:
        """Whenever the one who waits goes away; the database goes on."""

        def note_pair(connection: Connection, name: str) -> None:
            note(connection, f"{name}a")
            note(connection, f"{name}b")

        for number in range(30):
            writing = asyncio.create_task(stores.access.write(note_pair, f"{number:02}"))
            for _ in range(number % 6):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

        await stores.check()
        names = await stores.access.write(noted)
        assert [name[-1] for name in names] == ["a", "b"] * (len(names) // 2)

    async def test_the_tables_are_what_the_schema_says(self, stores: Database) -> None:
        """Migrations and metadata say the same."""

        def differences(connection: Connection) -> list[object]:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            return list(compare_metadata(context, metadata))

        assert await stores.access.write(differences) == []

    async def test_a_later_revision_is_refused(self, stores: Database, url: str) -> None:
        """With and without migrating: an older release could damage what it doesn't know."""
        await stores.access.write(
            lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'")).rowcount
        )

        for migrate in (True, False):
            with pytest.raises(SchemaTooNewError) as caught:
                await open_database(url, migrate=migrate)
            assert (caught.value.found, caught.value.known) == ("9999", HEAD)

    async def test_workers_do_not_migrate(self, fresh_url: str) -> None:
        """A database without tables is refused, and the error says what to do."""
        with pytest.raises(SchemaOutdatedError) as caught:
            await open_database(fresh_url, migrate=False)

        assert caught.value.found is None
        assert "roadstead serve" in caught.value.advice()

    async def test_processes_that_start_together_migrate_once(self, fresh_url: str) -> None:
        """Each finds the tables, and they agree on what is made once."""
        starting = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", _MIGRATE, fresh_url, stdout=asyncio.subprocess.PIPE, env={"PYTHONPATH": SOURCES}
            )
            for _ in range(4)
        ]
        outputs = [(await process.communicate())[0] for process in starting]

        assert [process.returncode for process in starting] == [0] * 4
        assert len(set(outputs)) == 1

    async def test_a_condemned_blob_is_not_served_and_can_come_back(
        self, stores: Database, elsewhere: Database
    ) -> None:
        """Whoever pushes, mounts or refers to it brings it back to life (design decision 5)."""
        blob = new_blob("condemned")
        await stores.blobs.commit(APP, blob, upload=None, now=NOW)
        manifest = new_manifest("{}", [layer(blob)])
        sparse = new_manifest("[]", [layer(blob, optional=True)])
        revivals: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: elsewhere.blobs.commit(OTHER, blob, upload=None, now=NOW),
            lambda: elsewhere.blobs.mount(OTHER, blob.digest, source=APP, now=NOW),
            lambda: elsewhere.manifests.put(APP, manifest, [LATEST], now=NOW),
            lambda: elsewhere.manifests.put(APP, sparse, [LATEST], now=NOW),
        )
        for revive in revivals:
            await stores.access.write(set_state, blob.digest, "condemned")
            assert await stores.blobs.find(APP, blob.digest) is None
            assert await stores.layers.find(blob.digest) is None

            await revive()

            assert await stores.blobs.find(APP, blob.digest) == blob

    async def test_a_blob_that_is_being_deleted_has_to_be_waited_for(self, stores: Database) -> None:
        """Bringing or mounting it is refused for now; for a manifest it is missing."""
        blob = new_blob("deleting")
        await stores.blobs.commit(APP, blob, upload=None, now=NOW)
        await stores.access.write(set_state, blob.digest, "deleting")

        with pytest.raises(StoreBusyError):
            await stores.blobs.commit(OTHER, blob, upload=None, now=NOW)
        with pytest.raises(StoreBusyError):
            await stores.blobs.mount(OTHER, blob.digest, source=APP, now=NOW)
        with pytest.raises(ManifestBlobUnknownError):
            await stores.manifests.put(APP, new_manifest("{}", [layer(blob)]), [LATEST], now=NOW)
        assert await stores.blobs.find(APP, blob.digest) is None
        assert await stores.catalog.tags(OTHER, after="", limit=1) is None

    async def test_writes_survive_many_tasks(self, stores: Database, elsewhere: Database) -> None:
        """More at once than a batch or a pool holds: all are done."""
        await asyncio.gather(
            *((stores, elsewhere)[number % 2].access.write(note, f"{number:03}") for number in range(400))
        )

        assert (
            await stores.access.write(lambda c: c.execute(select(func.count()).select_from(instance)).scalar()) == 400
        )
