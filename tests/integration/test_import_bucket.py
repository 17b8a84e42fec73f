"""Coming from distribution in a bucket: the same tree, listed instead of scanned, with the facts in PostgreSQL."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.integration.adoption import V2, ask, fill, findings, import_tree, listings, push, references

from roadstead.secret import Secret
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.storage.drivers.s3 import S3Driver
from roadstead.storage.keys import check_key
from roadstead.testing.client import Client
from roadstead.testing.components import ComponentMissingError
from roadstead.testing.images import make_image
from roadstead.testing.registry_peer import open_registry_peer
from roadstead.testing.seaweedfs import INSTALL, SeaweedFS
from roadstead.testing.server import RoadsteadServer


@pytest.fixture
def seaweedfs() -> Iterator[SeaweedFS]:
    """A server of the test's own."""
    if SeaweedFS.program() is None:
        raise ComponentMissingError("weed", INSTALL)
    with SeaweedFS() as server:
        yield server


async def copy_tree(root: Path, driver: S3Driver) -> None:
    """Bring a tree into a bucket as it is."""
    for path in sorted((root / V2).rglob("*")):
        if path.is_file():
            async with driver.write(check_key(str(path.relative_to(root)))) as handle:
                await handle.append(path.read_bytes())
                await handle.commit()


async def copy_back(driver: S3Driver, root: Path) -> None:
    """Bring a bucket's tree to disk, for a registry that is set up for disks."""
    files = FilesystemDriver(root)
    async for info in driver.iter_keys():
        async with files.write(info.key) as handle:
            async for piece in driver.read(info.key):
                await handle.append(piece)
            await handle.commit()
    await files.close()


async def test_a_bucket_is_taken_up_and_given_back(tmp_path: Path, seaweedfs: SeaweedFS, postgres_url: str) -> None:
    """Every tag and digest is answered as before; after our pushes distribution answers as we do."""
    root, bucket = tmp_path / "root", seaweedfs.create_bucket()
    with open_registry_peer(root) as peer:
        fill(peer.host)
        wanted = references(root)
        theirs, their_listings = ask(peer.host, wanted), listings(peer.host)
    driver = S3Driver(
        bucket,
        prefix="registry",
        region=seaweedfs.region,
        endpoint=seaweedfs.endpoint,
        access_key=seaweedfs.access_key,
        secret_key=Secret(seaweedfs.secret_key),
    )
    await copy_tree(root, driver)
    config = (
        f'[storage]\ndriver = "s3"\nbucket = "{bucket}"\nprefix = "registry"\nregion = "{seaweedfs.region}"\n'
        f'endpoint = "{seaweedfs.endpoint}"\naccess_key = "{seaweedfs.access_key}"\n'
        f'secret_key = "{seaweedfs.secret_key}"\n[database]\nurl = "{postgres_url}"\n'
    )
    (tmp_path / "import.toml").write_text(config)

    report = import_tree(f"s3://{bucket}/registry", "--config", str(tmp_path / "import.toml"))
    with RoadsteadServer(tmp_path / "server", config=config) as server, closing(Client(server.host)) as client:
        assert ask(server.host, wanted) == theirs
        assert listings(server.host) == their_listings
        push(client, "team/app", make_image(seed="ours", size=9 << 20), "ours")
        ours = ask(server.host, [("team/app", "manifests/ours"), *wanted])
        our_listings = listings(server.host)
    await copy_back(driver, tmp_path / "back")
    await driver.close()

    assert findings(report) == {}
    with open_registry_peer(tmp_path / "back") as peer:
        assert ask(peer.host, ours) == ours
        assert listings(peer.host) == our_listings
        with closing(Client(peer.host)) as client:
            layer = make_image(seed="ours", size=9 << 20).layers[0]
            assert client.get(f"/v2/team/app/blobs/{layer.digest}").body == layer.raw
