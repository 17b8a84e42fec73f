"""What the S3 driver does on the wire, and when the wire breaks."""

import asyncio
import io
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest

from roadstead.oci.digest import Digest
from roadstead.secret import Secret
from roadstead.storage import keys
from roadstead.storage.drivers import s3
from roadstead.storage.drivers.s3 import S3Driver, S3ExtraMissingError, S3PartSizeError
from roadstead.storage.ports import (
    Staged,
    StagedLostError,
    StorageDeniedError,
    StorageFailedError,
    StorageUnavailableError,
)
from roadstead.testing.contracts.driver import KEY, MIB, UPLOAD, collect, listed, put, sample, stage
from roadstead.testing.seaweedfs import SeaweedFS

OpenS3Driver = Callable[[], S3Driver]


@pytest.fixture
async def driver(open_s3_driver: OpenS3Driver) -> AsyncIterator[S3Driver]:
    driver = open_s3_driver()
    yield driver
    await driver.close()


class Wire:
    """A relay before the server that can cut answers short."""

    def __init__(self, endpoint: str) -> None:
        self._target = urlsplit(endpoint)
        self._server: asyncio.Server | None = None
        self.endpoint = ""
        self.cuts: list[int] = []
        """For the connections to come, one after the other: after how many bytes of answers each is cut."""
        self.connections = 0

    async def __aenter__(self) -> "Wire":  # noqa: PYI034 -- a test's own helper
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.endpoint = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        cut = self.cuts.pop(0) if self.cuts else None
        there, back = await asyncio.open_connection(self._target.hostname, self._target.port)
        relays = [
            asyncio.create_task(self._relay(reader, back, None)),
            asyncio.create_task(self._relay(there, writer, cut)),
        ]
        await asyncio.wait(relays, return_when=asyncio.FIRST_COMPLETED)
        for relay in relays:
            relay.cancel()
        for one in (back, writer):
            one.transport.abort()

    async def _relay(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, left: int | None) -> None:
        with suppress(ConnectionError):
            while piece := await source.read(65536):
                target.write(piece if left is None else piece[:left])
                await target.drain()
                left = None if left is None else left - len(piece)
                if left is not None and left <= 0:
                    return


async def through(wire: Wire, seaweedfs: SeaweedFS, prefix: str) -> S3Driver:
    return S3Driver(
        "test",
        prefix=prefix,
        region=seaweedfs.region,
        endpoint=wire.endpoint,
        access_key=seaweedfs.access_key,
        secret_key=Secret(seaweedfs.secret_key),
    )


async def test_a_broken_answer_is_taken_up_where_it_was(driver: S3Driver, seaweedfs: SeaweedFS) -> None:
    """A download whose connection is cut, twice, gives every byte once."""
    content = sample(5 * MIB)
    await put(driver, KEY, content)
    async with Wire(seaweedfs.endpoint) as wire:
        wire.cuts = [MIB + MIB // 2, 2 * MIB]
        behind = await through(wire, seaweedfs, driver._prefix)

        found = await collect(behind.read(KEY))
        await behind.close()

    assert found == content
    assert wire.connections == 3


async def test_an_object_that_changes_between_two_tries_is_not_mixed(driver: S3Driver, seaweedfs: SeaweedFS) -> None:
    """When the connection breaks and the object is another by then, the reader gets an error."""
    await put(driver, KEY, sample(5 * MIB, 1))
    async with Wire(seaweedfs.endpoint) as wire:
        wire.cuts = [2 * MIB + MIB // 2]
        behind = await through(wire, seaweedfs, driver._prefix)
        pieces = behind.read(KEY)
        await anext(pieces)
        await put(driver, KEY, sample(5 * MIB, 2))

        with pytest.raises(StorageFailedError):
            await collect(pieces)
        await behind.close()


async def test_a_store_that_is_not_there_is_unavailable() -> None:
    """Nobody listening is said as such, after the attempts that settings allow."""
    driver = S3Driver(
        "test", region="us-east-1", endpoint="http://127.0.0.1:9", access_key="a", secret_key=Secret("b"), attempts=1
    )

    with pytest.raises(StorageUnavailableError):
        await driver.size(KEY)
    with pytest.raises(StorageUnavailableError):
        await stage(driver, sample(9 * MIB))
    await driver.close()


async def test_wrong_credentials_are_ours_to_mend(seaweedfs: SeaweedFS) -> None:
    """A refusal says that we are refused, not that the object isn't there."""
    driver = S3Driver(
        "test",
        region=seaweedfs.region,
        endpoint=seaweedfs.endpoint,
        access_key=seaweedfs.access_key,
        secret_key=Secret("wrong"),
    )

    with pytest.raises(StorageDeniedError) as caught:
        await collect(driver.read(KEY))
    with pytest.raises(StorageDeniedError):
        await put(driver, KEY, b"x")
    await driver.close()

    assert "wrong" not in str(caught.value)
    assert caught.value.advice() is not None


async def test_a_missing_bucket_is_not_a_missing_object(seaweedfs: SeaweedFS) -> None:
    """A typing error in the bucket's name doesn't make clients push everything again."""
    driver = S3Driver(
        "no-such-bucket",
        region=seaweedfs.region,
        endpoint=seaweedfs.endpoint,
        access_key=seaweedfs.access_key,
        secret_key=Secret(seaweedfs.secret_key),
    )

    with pytest.raises(StorageFailedError, match="NoSuchBucket"):
        await collect(driver.read(KEY))
    await driver.close()


async def test_a_presigned_url_gives_the_object_to_anybody(driver: S3Driver) -> None:
    """Whoever has the URL reads the object, ranges too, without credentials; without the signature nobody does."""
    await put(driver, KEY, b"for everybody")
    url = await driver.presign(KEY, timedelta(minutes=5))

    def get(address: str) -> bytes:
        request = urllib.request.Request(address, headers={"Range": "bytes=4-"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())

    def is_refused(address: str) -> bool:
        try:
            get(address)
        except urllib.error.HTTPError as error:
            with error:
                return error.code == 403
        return False

    assert await asyncio.to_thread(get, url) == b"everybody"
    assert await asyncio.to_thread(is_refused, url.partition("?")[0])


async def test_a_large_upload_stays_where_it_came_in(driver: S3Driver) -> None:
    """What went into parts isn't copied; what didn't goes to its digest's key."""
    small, large = await stage(driver, b"small", upload_id="s"), await stage(driver, sample(6 * MIB), upload_id="l")

    assert await driver.publish("s", small, KEY) == KEY
    assert await driver.publish("l", large, KEY) == keys.staged("l")


async def test_what_killed_writers_left_is_purged(driver: S3Driver) -> None:
    """Unfinished multipart uploads and rests that no state names go, once they are old enough."""
    at = await stage(driver, sample(6 * MIB))
    upload = json.loads(at.state)["upload"]

    assert await driver.purge_temporary(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert await driver.purge_temporary(datetime.now(UTC) + timedelta(hours=1)) == 2

    assert upload
    assert await listed(driver, keys.UPLOADS) == {}
    with pytest.raises(StagedLostError):
        await stage(driver, b"more", at)


async def test_discard_finds_what_no_state_names(driver: S3Driver) -> None:
    """A writer that was killed before its first checkpoint leaves a multipart upload: discard aborts it."""
    key = keys.staged(UPLOAD)
    upload = await driver._begin(key)

    await driver.discard(UPLOAD, Staged())

    with pytest.raises(StorageFailedError, match="gone"):
        await driver._put_part(key, upload, 1, io.BytesIO(b"x"))


async def test_a_refused_body_leaves_no_parts(driver: S3Driver) -> None:
    """What was begun and will never be known of is aborted at once; what a checkpoint tells of stays."""
    with suppress(InterruptedError):
        async with driver.stage("refused", Staged()) as handle:
            await handle.append(sample(6 * MIB))
            raise InterruptedError
    assert await driver.purge_temporary(datetime.now(UTC) + timedelta(hours=1)) == 0
    at = await stage(driver, sample(6 * MIB))

    with suppress(InterruptedError):
        async with driver.stage(UPLOAD, at) as handle:
            await handle.append(sample(6 * MIB, 9))
            raise InterruptedError

    assert await collect(driver.read(await driver.publish(UPLOAD, at, KEY))) == sample(6 * MIB)


@pytest.mark.parametrize("state", ["{", "[]", "{}", '{"driver":"filesystem"}', "null", "1"])
async def test_a_state_of_something_else_is_a_lost_upload(driver: S3Driver, state: str) -> None:
    """State that this driver can't have written makes the upload begin again, whatever it is."""
    with pytest.raises(StagedLostError):
        await stage(driver, b"more", Staged(5, state))
    with pytest.raises(StagedLostError):
        await driver.publish(UPLOAD, Staged(5, state), keys.blob(Digest.of(b"")))


def test_ten_thousand_parts_hold_the_largest_object() -> None:
    """Parts double every thousand: 5 TiB fit in the 10,000 that S3 allows, and none exceeds 5 GiB."""
    driver = S3Driver("test", region="us-east-1", part_size=8 << 20)
    sizes = [driver._part_limit(number) for number in range(1, 10_001)]

    assert sizes[0] == 8 << 20
    assert sum(sizes) >= 5 << 40
    assert max(sizes) <= 5 << 30


def test_parts_too_small_for_s3_are_refused() -> None:
    """A part size that would only fail at the end of the first large push is refused at the start."""
    with pytest.raises(S3PartSizeError):
        S3Driver("test", part_size=1 << 20)


def test_a_missing_extra_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the libraries the driver says what to install."""
    monkeypatch.setattr(s3, "_MISSING", ImportError("no aiobotocore"))

    with pytest.raises(S3ExtraMissingError) as caught:
        S3Driver("test")

    assert "pip install 'roadstead[s3]'" in str(caught.value.advice())
