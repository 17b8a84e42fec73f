"""Checking and mending on both databases: each damage is made, found, told and, where it can be, mended."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, update
from tests.contract.db.test_collection_stores import OnPostgres, OnSqlite

from roadstead.db.engine import Database
from roadstead.db.schema import blobs, contents, manifests, tag_journal
from roadstead.registry.ports import BlobRecord, NewManifest
from roadstead.registry.validation import check_manifest
from roadstead.registry.verify import Finding, Problem, Verifier
from roadstead.storage import keys
from roadstead.storage.drivers.memory import MemoryDriver
from roadstead.testing.clock import FrozenClock
from roadstead.testing.contracts.registry_stores import APP, LATEST, OTHER
from roadstead.testing.images import TestImage, make_artifact, make_image

IMAGE = make_image(layers=2)
LAYER = IMAGE.layers[0]


class Harbour:
    """A registry with one image and a referrer of it, and ways to damage it."""

    def __init__(self, stores: Database) -> None:
        self.stores = stores
        self.driver = MemoryDriver()
        self.clock = FrozenClock(datetime.now(UTC))

    async def push(self, image: TestImage, *tags: str) -> NewManifest:
        """Push an image as clients do."""
        for data in image.blobs.values():
            await self.push_blob(data)
        manifest = check_manifest(image.raw, image.media_type, expected=None)
        await self.stores.manifests.put(APP, manifest, [LATEST] if tags else [], now=self.clock.now())
        return manifest

    async def push_blob(self, data: bytes) -> BlobRecord:
        """Push a blob."""
        blob = _record(data)
        arrival = await self.stores.blobs.expect(blob.digest, now=self.clock.now())
        await self.write(data, blob.key)
        return await self.stores.blobs.commit(APP, blob, upload=None, now=self.clock.now(), arrival=arrival)

    async def write(self, data: bytes, key: str) -> None:
        """Put bytes under a key, whatever they are."""
        async with self.driver.write(keys.check_key(key)) as handle:
            await handle.append(data)
            await handle.commit()

    async def verify(self, *, repair: bool = False) -> Sequence[Finding]:
        """Check everything."""
        stores = self.stores
        verifier = Verifier(
            stores.audit,
            stores.blobs,
            stores.collection,
            self.driver,
            self.clock,
            repair=repair,
            stray_after=timedelta(0),
        )
        findings = [finding async for finding in verifier.run()]
        assert verifier.checked.manifests == 2
        return findings


def _record(data: bytes) -> BlobRecord:
    image = make_artifact(content=data)
    digest = image.layers[0].digest
    return BlobRecord(digest, len(data), keys.blob(digest))


WHERE = f"{APP}@{IMAGE.digest}"
KEY = keys.blob(LAYER.digest)
WRONG = bytes(len(LAYER.raw))


class Damages:
    """What can be wrong."""

    @pytest.fixture
    async def harbour(self, stores: Database) -> Harbour:
        """A registry in which nothing is wrong."""
        harbour = Harbour(stores)
        await harbour.push(IMAGE, "latest")
        await harbour.push(make_artifact(subject=IMAGE.descriptor()))
        harbour.clock.advance(timedelta(minutes=1))
        return harbour

    async def test_all_is_well(self, harbour: Harbour) -> None:
        """Nothing is told, and nothing is mended."""
        assert await harbour.verify() == []
        assert await harbour.verify(repair=True) == []

    @pytest.mark.parametrize("data", [WRONG, LAYER.raw[:-1], LAYER.raw + b"x"], ids=["flipped", "short", "long"])
    async def test_wrong_bytes(self, harbour: Harbour, data: bytes) -> None:
        """They are put aside; then the image lacks a layer, until it is pushed again and the repository has it."""
        await harbour.write(data, KEY)

        (told,) = await harbour.verify()
        mended, missing = await harbour.verify(repair=True)

        assert (told.problem, told.where, told.mended) == (Problem.BLOB_WRONG, str(LAYER.digest), None)
        assert (mended.problem, missing.problem, missing.where) == (
            Problem.BLOB_WRONG,
            Problem.REFERENCE_MISSING,
            WHERE,
        )
        assert mended.mended is not None
        aside = [piece async for piece in harbour.driver.read(keys.quarantine(LAYER.digest))]
        assert b"".join(aside) == data
        assert await harbour.stores.blobs.find(APP, LAYER.digest) is None

        await harbour.push_blob(LAYER.raw)
        assert await harbour.verify() == []

    async def test_missing_bytes(self, harbour: Harbour) -> None:
        """The row goes, so that clients push again."""
        await harbour.driver.delete(KEY)

        assert [finding.problem for finding in await harbour.verify()] == [Problem.BLOB_MISSING]
        await harbour.verify(repair=True)
        await harbour.push_blob(LAYER.raw)

        assert await harbour.verify() == []

    async def test_a_blob_that_the_repository_may_not_serve(self, harbour: Harbour) -> None:
        """It is stored, so it is given back."""
        await harbour.stores.blobs.unlink(APP, LAYER.digest, now=harbour.clock.now())

        (told,) = await harbour.verify()
        (mended,) = await harbour.verify(repair=True)

        assert (told.problem, told.where) == (Problem.REFERENCE_UNLINKED, WHERE)
        assert mended.mended is not None
        assert await harbour.verify() == []
        assert await harbour.stores.blobs.find(APP, LAYER.digest) is not None

    async def test_only_what_is_needed_is_given_back(self, harbour: Harbour) -> None:
        """Never a blob to a repository that has no manifest for it."""
        assert not await harbour.stores.audit.relink(OTHER, LAYER.digest, now=harbour.clock.now())

    async def test_wrong_manifest_bytes(self, harbour: Harbour) -> None:
        """They are told; nothing can mend them but a push."""
        await harbour.stores.access.write(
            lambda c: (
                c.execute(update(contents).where(contents.c.digest == str(IMAGE.digest)).values(body=b"{}")) and None
            )
        )

        (told,) = await harbour.verify(repair=True)

        assert (told.problem, told.where, told.mended) == (Problem.MANIFEST_WRONG, WHERE, None)

    async def test_a_referrer_that_is_not_told_of(self, harbour: Harbour) -> None:
        """Its subject is in its bytes and not in its row."""
        await harbour.stores.access.write(lambda c: c.execute(update(manifests).values(subject=None)) and None)

        (told,) = await harbour.verify()

        assert told.problem is Problem.SUBJECT_WRONG

    async def test_a_journal_that_says_something_else(self, harbour: Harbour) -> None:
        """It has to end where the tag is."""
        await harbour.stores.access.write(lambda c: c.execute(delete(tag_journal)) and None)

        (told,) = await harbour.verify()

        assert (told.problem, told.where) == (Problem.JOURNAL_WRONG, f"{APP}:{LATEST}")

    async def test_bytes_that_nothing_knows(self, harbour: Harbour) -> None:
        """They are told; collection removes them."""
        stray = _record(b"stray")
        await harbour.write(b"stray", stray.key)

        (told,) = await harbour.verify(repair=True)

        assert (told.problem, told.where) == (Problem.STRAY, str(stray.digest))

    async def test_what_is_being_collected_is_not_told(self, harbour: Harbour) -> None:
        """A blob in another state than live isn't anybody's."""
        await harbour.write(b"x", (await harbour.push_blob(b"y")).key)
        digest = str(_record(b"y").digest)
        await harbour.stores.access.write(
            lambda c: c.execute(update(blobs).where(blobs.c.digest == digest).values(state="condemned")) and None
        )

        assert await harbour.verify() == []

    async def test_bytes_that_were_pushed_again_meanwhile(self, harbour: Harbour) -> None:
        """What was wrong when it was read and is right when it is taken stays."""
        taken = await harbour.stores.collection.take_damaged(_record(LAYER.raw), now=harbour.clock.now())
        assert taken is not None
        assert await harbour.stores.blobs.find(APP, LAYER.digest) is None

        assert await harbour.stores.collection.spare(taken, now=harbour.clock.now())

        assert await harbour.stores.blobs.find(APP, LAYER.digest) == _record(LAYER.raw)
        assert not await harbour.stores.collection.spare(taken, now=harbour.clock.now())
        assert await harbour.stores.collection.forget([taken]) == 0


class TestOnSqlite(OnSqlite, Damages):
    """SQLite."""


class TestOnPostgres(OnPostgres, Damages):
    """PostgreSQL."""
