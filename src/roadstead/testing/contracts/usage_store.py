"""What a `UsageStore` promises. A subclass gives the fixture ``stores``: an open, empty database."""

from dataclasses import replace
from datetime import timedelta

from roadstead.db.engine import Database
from roadstead.oci.reference import RepositoryName
from roadstead.registry.quotas import OpenUpload
from roadstead.testing.contracts.registry_stores import NOW, new_blob, new_upload


class UsageStoreContract:
    """The promises of `UsageStore`."""

    async def test_a_blob_counts_in_each_repository_that_holds_it(self, stores: Database) -> None:
        """Pushed and mounted; what was unlinked doesn't count any more."""
        app, web, other = (RepositoryName.parse(name) for name in ("team/app", "team-web/app", "library/x"))
        first, second = new_blob("first"), new_blob("second")
        for repository, blob in ((app, first), (app, second), (other, first)):
            await stores.blobs.commit(repository, blob, upload=None, now=NOW)
        await stores.blobs.mount(web, first.digest, source=app, now=NOW)

        everything = dict(await stores.usage.bytes_by_repository(""))
        assert everything == {app: first.size + second.size, web: first.size, other: first.size}

        await stores.blobs.unlink(app, second.digest, now=NOW)
        assert dict(await stores.usage.bytes_by_repository("team/app")) == {app: first.size}

    async def test_only_what_begins_so_is_summed_up(self, stores: Database) -> None:
        """Letter by letter, whatever the letters mean to a database's patterns."""
        names = ("a/b", "a/b/c", "a/b-c", "a/bc", "a_b", "a/a")
        for name in names:
            await stores.blobs.commit(RepositoryName.parse(name), new_blob("x"), upload=None, now=NOW)

        found = {str(name) for name, _ in await stores.usage.bytes_by_repository("a/b")}

        assert found == {"a/b", "a/b/c", "a/b-c", "a/bc"}

    async def test_one_repository_is_summed_up_alone(self, stores: Database) -> None:
        """Without those whose names begin as its own; what isn't there holds nothing."""
        app, below = RepositoryName.parse("team/app"), RepositoryName.parse("team/app/test")
        first, second = new_blob("first"), new_blob("second")
        for repository, blob in ((app, first), (app, second), (below, first)):
            await stores.blobs.commit(repository, blob, upload=None, now=NOW)

        assert await stores.usage.bytes_of(app) == first.size + second.size
        assert await stores.usage.bytes_of(RepositoryName.parse("team")) == 0

    async def test_open_sessions_that_took_something_in_lately(self, stores: Database) -> None:
        """With their bytes; not those that are through, or that nobody has sent anything to for long."""
        app, other = RepositoryName.parse("team/app"), RepositoryName.parse("library/x")
        begun = {
            upload_id: replace(new_upload(upload_id, repository=repository), held=b"x" * size)
            for upload_id, repository, size in [("one", app, 1), ("two", app, 2), ("left", app, 3), ("other", other, 4)]
        }
        for upload_id, record in begun.items():
            await stores.uploads.advance(record, now=NOW - timedelta(hours=2 if upload_id == "left" else 0))
        await stores.uploads.cancel(replace(begun["two"], version=1), now=NOW)

        found = await stores.usage.open_uploads("team/", NOW - timedelta(hours=1))

        assert list(found) == [OpenUpload("one", app, 1)]
