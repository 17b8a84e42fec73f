"""A large tree of distribution's with everything that is found in old ones, on a disk or in a bucket."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.adoption import Answered, ask, fallback_index, inodes, push, push_blob

from roadstead.oci.digest import Algorithm, Digest
from roadstead.oci.strict_json import compact
from roadstead.secret import Secret
from roadstead.storage import keys
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.storage.drivers.s3 import S3Driver
from roadstead.storage.keys import check_key
from roadstead.storage.ports import Driver
from roadstead.testing.client import Client
from roadstead.testing.go_clients import DISTRIBUTION, find_or_build
from roadstead.testing.images import TestImage, make_artifact, make_image, make_index
from roadstead.testing.registry_peer import RegistryPeer, open_registry_peer
from roadstead.testing.seaweedfs import SeaweedFS

REPOSITORIES = 25
PUSHERS = 4

_TAG = re.compile(re.escape(keys.REPOSITORIES) + r"(.+)/_manifests/tags/([^/]+)/current/link")
_REVISION = re.compile(re.escape(keys.REPOSITORIES) + r"(.+)/_manifests/revisions/(\w+)/([0-9a-f]+)/link")
_LAYER = re.compile(re.escape(keys.REPOSITORIES) + r"(.+)/_layers/(\w+)/([0-9a-f]+)/link")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the tree lies: how distribution, we, and a test get at it."""

    name: str
    open_peer: Callable[[], AbstractContextManager[RegistryPeer]]
    open_driver: Callable[[], Driver]
    config: str
    url: str
    root: Path | None = None

    @asynccontextmanager
    async def driver(self) -> AsyncIterator[Driver]:
        driver = self.open_driver()
        try:
            yield driver
        finally:
            await driver.close()

    def references(self) -> list[tuple[str, str]]:
        """Return every tag and digest that the tree has, as the paths of the API."""
        return asyncio.run(self._references())

    async def _references(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        async with self.driver() as driver:
            async for info in driver.iter_keys(keys.REPOSITORIES):
                if tag := _TAG.fullmatch(info.key):
                    found.append((tag[1], f"manifests/{tag[2]}"))
                elif revision := _REVISION.fullmatch(info.key):
                    found.append((revision[1], f"manifests/{revision[2]}:{revision[3]}"))
                elif layer := _LAYER.fullmatch(info.key):
                    found.append((layer[1], f"blobs/{layer[2]}:{layer[3]}"))
        return sorted(found)

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write into the tree behind everybody's back."""
        asyncio.run(self._write(files))

    async def _write(self, files: Mapping[str, bytes]) -> None:
        async with self.driver() as driver:
            for name, content in files.items():
                async with driver.write(check_key(name)) as handle:
                    await handle.append(content)
                    await handle.commit()

    async def identities(self) -> dict[str, tuple[object, ...]]:
        """Return what changes when a blob is written anew: inode and time of a file, time and size of an object."""
        if self.root is not None:
            return dict(inodes(self.root))
        async with self.driver() as driver:
            return {info.key: (info.modified, info.size) async for info in driver.iter_keys(keys.BLOBS)}


def on_disk(home: Path) -> Place:
    """Return a folder, served by Debian's docker-registry."""
    root = home / "root"
    config = f'[storage]\npath = "{root}"\n'
    return Place(
        "a folder", lambda: open_registry_peer(root), lambda: FilesystemDriver(root), config, str(root), root=root
    )


def in_bucket(seaweedfs: SeaweedFS, database: str) -> Place:
    """Return a bucket, served by distribution 3."""
    bucket = seaweedfs.create_bucket()
    section = {
        "region": seaweedfs.region,
        "regionendpoint": seaweedfs.endpoint,
        "forcepathstyle": True,
        "bucket": bucket,
        "accesskey": seaweedfs.access_key,
        "secretkey": seaweedfs.secret_key,
        "secure": False,
        "rootdirectory": "/registry",
    }
    config = (
        f'[storage]\ndriver = "s3"\nbucket = "{bucket}"\nprefix = "registry"\nregion = "{seaweedfs.region}"\n'
        f'endpoint = "{seaweedfs.endpoint}"\naccess_key = "{seaweedfs.access_key}"\n'
        f'secret_key = "{seaweedfs.secret_key}"\n'
    )

    def open_driver() -> Driver:
        return S3Driver(
            bucket,
            prefix="registry",
            region=seaweedfs.region,
            endpoint=seaweedfs.endpoint,
            access_key=seaweedfs.access_key,
            secret_key=Secret(seaweedfs.secret_key),
        )

    return Place(
        "a bucket",
        # It would send clients of blobs to the bucket, where there is nothing of what it says of them.
        lambda: open_registry_peer(
            storage={"s3": section, "redirect": {"disable": True}}, program=find_or_build(DISTRIBUTION)
        ),
        open_driver,
        f'{config}[database]\nurl = "{database}"\n',
        f"s3://{bucket}/registry",
    )


@dataclass(slots=True)
class Oddities:
    """What is in the tree beside plain images, and where both registries need not answer alike."""

    subject: Digest
    referrers: int
    alias: Digest
    orphan: Digest
    schema1: Digest
    damaged: set[tuple[str, str]] = field(default_factory=set)


def variant(image: TestImage, number: int) -> bytes:
    """Return a manifest of its own over an image's content."""
    document = json.loads(image.raw)
    return compact({**document, "annotations": {"number": str(number)}})


def fill(host: str, manifests: int) -> Oddities:
    """Push so many manifests through a registry's API, of every kind that its users push."""
    with ThreadPoolExecutor(PUSHERS) as pool:
        list(pool.map(lambda part: _push_part(host, range(part, manifests, PUSHERS)), range(PUSHERS)))
    with closing(Client(host, timeout_s=120)) as client:
        return _push_oddities(client)


def _push_part(host: str, numbers: Iterable[int]) -> None:
    """Push one manifest for each number; one in ten brings blobs of its own, some tags move and some go."""
    images: dict[str, TestImage] = {}
    with closing(Client(host, timeout_s=120)) as client:
        for number in numbers:
            repository = f"team/app{number % REPOSITORIES}"
            if number % 10 < PUSHERS or repository not in images:
                images[repository] = make_image(seed=str(number), size=64)
                push(client, repository, images[repository])
            raw, media_type = variant(images[repository], number), images[repository].media_type
            client.push_manifest(repository, f"v{number}", raw, media_type)
            client.push_manifest(repository, f"latest-{number % 7}", raw, media_type)
            if number % 50 == 0:
                client.push_manifest(repository, "doomed", raw, media_type)
                gone = client.delete(f"/v2/{repository}/manifests/{Digest.of(raw)}")
                assert gone.status == 202, gone


def _push_oddities(client: Client) -> Oddities:
    index = make_index([make_image(seed="amd64"), make_image(seed="arm64", platform="linux/arm64")])
    push(client, "odd/multi", index, "1")  # its children have no tags
    push(client, "odd/multi/nested", make_image(seed="nested", layers=3), "1")
    push(client, "odd/untagged", make_image(seed="untagged"))
    subject = make_image(seed="subject")
    push(client, "odd/signed", subject, "1")
    referrers = [make_artifact(content=text, subject=subject.descriptor()) for text in (b"sbom", b"signature")]
    silent = make_artifact("application/vnd.example.silent", b"silent")
    push(client, "odd/signed", fallback_index([*referrers, silent]), str(subject.digest).replace(":", "-"))
    alias = push_blob(client, "odd/alias", b"known by its sha512", Algorithm.SHA512)
    orphan = push_blob(client, "odd/layers-only", b"an orphan")
    for _ in range(3):
        client.post("/v2/odd/multi/blobs/uploads/")
    schema1 = Digest.of(SCHEMA1)
    return Oddities(subject.digest, 3, alias, orphan, schema1)


SCHEMA1 = compact({"schemaVersion": 1, "name": "odd/old", "tag": "1", "fsLayers": [], "history": []})


def damage(place: Place, odd: Oddities) -> None:
    """Write what crashes and old releases leave: links cut short, schema 1, a tag without a revision."""
    old = make_image(seed="untagged")
    prefix = keys.REPOSITORIES
    schema1 = f"sha256/{odd.schema1.encoded}"
    place.write(
        {
            f"{prefix}odd/multi/_manifests/tags/empty/current/link": b"",
            f"{prefix}odd/multi/_manifests/tags/short/current/link": b"sha256:12",
            f"{prefix}odd/multi/_layers/sha256/{'ab' * 32}/link": b"\0" * 71,
            f"{prefix}odd/multi/_layers/sha256/{'cd' * 32}/link": b"sha256:" + b"cd" * 32,
            keys.blob(odd.schema1): SCHEMA1,
            f"{prefix}odd/old/_manifests/revisions/{schema1}/link": str(odd.schema1).encode(),
            f"{prefix}odd/old/_manifests/tags/1/index/{schema1}/link": str(odd.schema1).encode(),
            f"{prefix}odd/old/_manifests/tags/1/current/link": str(odd.schema1).encode(),
            f"{prefix}odd/older/_manifests/tags/1/current/link": str(old.digest).encode(),
        }
    )
    odd.damaged |= {
        ("odd/multi", "manifests/empty"),
        ("odd/multi", "manifests/short"),
        ("odd/multi", f"blobs/sha256:{'ab' * 32}"),
        ("odd/multi", f"blobs/sha256:{'cd' * 32}"),
        ("odd/old", "manifests/1"),
        ("odd/old", f"manifests/{odd.schema1}"),
        ("odd/older", "manifests/1"),
    }


def comparable(answers: Mapping[tuple[str, str], Answered]) -> dict[tuple[str, str], Answered]:
    """Return answers without what may differ: the digest that a blob pushed under sha512 is told to have.

    Distribution tells the sha256 that it keeps it under; we tell the digest that was asked for, which clients check.
    """
    return {
        place: (answer[0], None, *answer[2:]) if place[1].startswith("blobs/sha512:") else answer
        for place, answer in answers.items()
    }


def ask_all(host: str, wanted: list[tuple[str, str]]) -> dict[tuple[str, str], Answered]:
    """Return what a registry answers to each, asked by several clients."""
    with ThreadPoolExecutor(PUSHERS) as pool:
        parts = pool.map(lambda start: ask(host, wanted[start::PUSHERS]), range(PUSHERS))
        return comparable({place: answer for part in parts for place, answer in part.items()})


def change(client: Client, manifests: int, count: int = 50) -> None:
    """Push, move and delete `count` times each."""
    for number in range(count):
        repository = f"team/app{number % REPOSITORIES}"
        image = make_image(seed=f"ours {number}", size=64, docker=number % 2 == 0)
        push(client, repository, image, f"ours-{number}")
        client.push_manifest(repository, f"latest-{number % 7}", image.raw, image.media_type)
        # The tag goes, what it was at stays; every fifth time the manifest goes with all its tags.
        doomed = f"v{manifests - 1 - number}"
        where = f"team/app{(manifests - 1 - number) % REPOSITORIES}"
        answer = client.get(f"/v2/{where}/manifests/{doomed}")
        if answer.status != 200:  # its manifest was deleted before
            continue
        reference = answer.headers["docker-content-digest"] if number % 5 == 0 else doomed
        assert client.delete(f"/v2/{where}/manifests/{reference}").status == 202
