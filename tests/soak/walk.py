"""A random walk over everything that collection has to do with, beside a model that says what must be here.

The registry runs without HTTP, on SQLite and files in memory, under a clock moved by hand, so that a day passes in a
step. The model knows what a client was told: blobs by repository, and until when it may rely on each; manifests with
what they need; tags. After each pass all of it is looked at; at the end, when all is quiet, nothing else may be left.
"""

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from roadstead.db.engine import BLOB_LEASE, Database
from roadstead.oci.digest import Digest
from roadstead.oci.mediatypes import OCI_CONFIG, OCI_MANIFEST
from roadstead.oci.reference import RepositoryName, Tag
from roadstead.oci.strict_json import compact
from roadstead.registry.errors import ManifestBlobUnknownError, StoreBusyError
from roadstead.registry.gc import Collector, Policy, Untagged
from roadstead.registry.ports import BlobState
from roadstead.registry.upload_ids import UploadIds, UploadLifetimes
from roadstead.registry.uploads import Uploads
from roadstead.registry.validation import check_manifest
from roadstead.storage import keys
from roadstead.storage.ports import Driver
from roadstead.testing.clock import FrozenClock

REPOSITORIES = tuple(RepositoryName.parse(f"walk/{name}") for name in "abc")
TAGS = tuple(Tag.parse(f"v{number}") for number in range(4))
CONTENTS = [b"content %d " % number * (1 + 40 * number) for number in range(24)]
UNTAGGED_AFTER = timedelta(days=7)
PROMISED_FOR = BLOB_LEASE / 2
"""A lease is written anew only where it is half over: so much is left at the least to whoever asked."""


class Whole:
    """A request's body that came in one piece."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def announced(self) -> int:
        return len(self._data)

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._data


@dataclass(slots=True)
class Model:
    """What clients were told, and may rely on."""

    links: dict[tuple[RepositoryName, Digest], datetime] = field(default_factory=dict)  # until when, without a manifest
    manifests: dict[tuple[RepositoryName, Digest], tuple[datetime, frozenset[Digest]]] = field(default_factory=dict)
    tags: dict[tuple[RepositoryName, Tag], Digest] = field(default_factory=dict)

    def needed(self, repository: RepositoryName) -> set[Digest]:
        """Return the blobs that manifests of a repository need."""
        return {digest for (name, _), (_, needs) in self.manifests.items() if name == repository for digest in needs}

    def tagged(self) -> set[tuple[RepositoryName, Digest]]:
        """Return the manifests that a tag keeps."""
        return {(repository, digest) for (repository, _), digest in self.tags.items()}


class Walk:
    """One walk of a seed."""

    def __init__(self, database: Database, driver: Driver, seed: int) -> None:
        self.clock = FrozenClock()
        self.model = Model()
        self.removed = self.refused = self.passes = 0
        self._random = random.Random(seed)
        self._database = database
        self._driver = driver
        policy = Policy(untagged=Untagged.DELETE, untagged_after=UNTAGGED_AFTER)
        self._collector = Collector(database.collection, database.catalog, driver, self.clock, policy)
        ids = UploadIds(b"0" * 32)
        self._uploads = Uploads(database.uploads, database.blobs, driver, ids, self.clock, lifetimes=UploadLifetimes())
        self._steps = (
            [self.push] * 8
            + [self.mount] * 4
            + [self.ask] * 3
            + [self.unlink] * 2
            + [self.push_manifest] * 6
            + [self.delete_tag] * 3
            + [self.delete_manifest]
            + [self.wait] * 4
            + [self.collect] * 2
        )

    async def step(self) -> None:
        """Do one thing."""
        self.clock.advance(timedelta(seconds=self._random.uniform(0, 30)))
        try:
            await self._random.choice(self._steps)()
        except StoreBusyError:  # its bytes are just going: the client comes again
            self.refused += 1

    # Clients

    async def push(self) -> None:
        """Push a blob."""
        repository, data = self._somewhere(), self._random.choice(CONTENTS)
        digest = Digest.of(data)
        await self._uploads.push(repository, Whole(data), digest)
        self._promised(repository, digest)

    async def mount(self) -> None:
        """Take a blob from another repository."""
        repository, digest = self._somewhere(), Digest.of(self._random.choice(CONTENTS))
        source = self._random.choice([*REPOSITORIES, None])
        if await self._database.blobs.mount(repository, digest, source=source, now=self.clock.now()) is not None:
            self._promised(repository, digest)

    async def ask(self) -> None:
        """Ask for a blob by HEAD, and rely on the answer."""
        repository, digest = self._somewhere(), Digest.of(self._random.choice(CONTENTS))
        found = await self._database.blobs.promise(repository, digest, now=self.clock.now())
        if found is not None:
            self._promised(repository, digest)
        else:
            assert not self._must_be_here(repository, digest), f"{repository} lost {digest}"

    async def unlink(self) -> None:
        """Delete a blob from a repository."""
        repository, digest = self._somewhere(), Digest.of(self._random.choice(CONTENTS))
        if digest in self.model.needed(repository):
            return  # clients may; then the manifest is theirs to mend, and nothing is to be said of it
        await self._database.blobs.unlink(repository, digest, now=self.clock.now())
        self.model.links.pop((repository, digest), None)

    async def push_manifest(self) -> None:
        """Push an image of a few blobs under a tag; it is refused exactly if one of them isn't here."""
        repository, tag = self._somewhere(), self._random.choice(TAGS)
        blobs = self._random.sample(CONTENTS, self._random.randint(1, 3))
        raw = image(blobs)
        manifest = check_manifest(raw, OCI_MANIFEST, expected=None)
        needs = frozenset(Digest.of(data) for data in blobs)
        try:
            await self._database.manifests.put(repository, manifest, [tag], now=self.clock.now())
        except ManifestBlobUnknownError as error:
            for digest in error.missing:
                assert not self._must_be_here(repository, digest), f"{repository} lost {digest}"
            return
        now = self.clock.now()
        self._moved(repository, tag)
        self.model.manifests[repository, manifest.digest] = (now, needs)
        self.model.tags[repository, tag] = manifest.digest

    async def delete_tag(self) -> None:
        """Remove a tag."""
        repository, tag = self._somewhere(), self._random.choice(TAGS)
        await self._database.manifests.delete_tag(repository, tag, now=self.clock.now())
        self._moved(repository, tag)
        self.model.tags.pop((repository, tag), None)

    async def delete_manifest(self) -> None:
        """Remove a manifest with all its tags."""
        if not self.model.manifests:
            return
        repository, digest = self._random.choice(sorted(self.model.manifests, key=str))
        await self._database.manifests.delete(repository, digest, now=self.clock.now())
        del self.model.manifests[repository, digest]
        for key in [key for key, at in self.model.tags.items() if (key[0], at) == (repository, digest)]:
            del self.model.tags[key]

    async def wait(self) -> None:
        """Let time pass: minutes, hours, or days."""
        self.clock.advance(self._random.choice([timedelta(minutes=2), timedelta(hours=3), timedelta(days=1, hours=2)]))

    # Collection

    async def collect(self) -> None:
        """Do a pass, and look at everything that must be here."""
        tally = await self._collector.run()
        self.removed += tally.blobs
        self.passes += 1
        self._forget_untagged()
        await self.look()

    async def look(self) -> None:
        """Find everything that a client may rely on: rows, links, bytes."""
        for (repository, tag), digest in self.model.tags.items():
            found = await self._database.manifests.find_by_tag(repository, tag)
            assert found is not None, f"{repository}:{tag} is gone"
            assert found.digest == digest, f"{repository}:{tag} moved"
        for (repository, digest), (_, needs) in self.model.manifests.items():
            if (repository, digest) in self.model.tagged():
                assert await self._database.manifests.find_by_digest(repository, digest) is not None, (
                    f"{digest} is gone"
                )
                for blob in needs:
                    await self._is_whole(repository, blob)
        for repository, digest in self.model.links:
            if self._must_be_here(repository, digest):
                await self._is_whole(repository, digest)

    async def _is_whole(self, repository: RepositoryName, digest: Digest) -> None:
        record = await self._database.blobs.find(repository, digest)
        assert record is not None, f"{repository} lost {digest}"
        data = b"".join([piece async for piece in self._driver.read(record.key)])
        assert Digest.of(data) == digest, f"{digest} has other bytes"

    async def nothing_is_left_over(self) -> None:
        """Remove every tag, let all be quiet, and find nothing: no row but of manifests, no bytes."""
        for repository, tag in list(self.model.tags):
            await self._database.manifests.delete_tag(repository, tag, now=self.clock.now())
        for _ in range(5):
            self.clock.advance(timedelta(days=9))
            await self._collector.run()
        left = await self._database.collection.blobs(after="", limit=1000)
        assert [blob for blob in left if blob.state is not BlobState.DELETING] == []
        assert [info.key async for info in self._driver.iter_keys(keys.BLOBS)] == []

    # The model

    def _somewhere(self) -> RepositoryName:
        return self._random.choice(REPOSITORIES)

    def _promised(self, repository: RepositoryName, digest: Digest) -> None:
        self.model.links[repository, digest] = self.clock.now() + PROMISED_FOR

    def _must_be_here(self, repository: RepositoryName, digest: Digest) -> bool:
        if self.model.links.get((repository, digest), self.clock.now()) > self.clock.now():
            return True
        kept = {key for key in self.model.tagged() if key[0] == repository}
        return any(digest in self.model.manifests[key][1] for key in kept)

    def _moved(self, repository: RepositoryName, tag: Tag) -> None:
        """Note when a manifest loses a tag: from then on the days count that it stays without one."""
        digest = self.model.tags.get((repository, tag))
        if digest is not None and (repository, digest) in self.model.manifests:
            _, needs = self.model.manifests[repository, digest]
            self.model.manifests[repository, digest] = (self.clock.now(), needs)

    def _forget_untagged(self) -> None:
        """Manifests that lost their tag long ago may be gone: nobody was promised them."""
        tagged, before = self.model.tagged(), self.clock.now() - UNTAGGED_AFTER
        for key, (since, _) in list(self.model.manifests.items()):
            if key not in tagged and since <= before:
                del self.model.manifests[key]


def image(blobs: list[bytes]) -> bytes:
    """Return a manifest whose config and layers these blobs are."""
    described = [{"mediaType": OCI_CONFIG, "digest": str(Digest.of(data)), "size": len(data)} for data in blobs]
    layers = [{**each, "mediaType": "application/octet-stream"} for each in described[1:]]
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described[0], "layers": layers}
    return compact(document)
