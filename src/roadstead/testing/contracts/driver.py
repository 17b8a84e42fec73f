"""The promises of ``roadstead.storage.ports.Driver``, to be kept by every driver.

A driver's tests are a subclass with one fixture::

    class TestMyDriver(DriverContract):
        @pytest.fixture
        def open_driver(self, tmp_path: Path) -> OpenDriver:
            return lambda: MyDriver(tmp_path)

``open_driver`` opens one more driver over the same store each time it is called, as another process would; every
test gets a store of its own. The suite closes the drivers. It needs pytest-asyncio in its ``auto`` mode.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import groupby, pairwise

import pytest

from roadstead.oci.digest import Digest
from roadstead.storage import keys
from roadstead.storage.hashing import ResumableHasher
from roadstead.storage.ports import (
    Driver,
    Key,
    KeyInvalidError,
    KeyUnknownError,
    Staged,
    StagedBusyError,
    StagedLostError,
    StagedUnreadableError,
    TruncatedError,
)

OpenDriver = Callable[[], Driver]

KEY = keys.blob(Digest.of(b"an object"))
OTHER = keys.blob(Digest.of(b"another object"))
UPLOAD = "0b8e8d4c-31f5-4c1a-9a54-1f3a0a9d1c11"

MIB = 1 << 20


def sample(size: int, seed: int = 0) -> bytes:
    """Return bytes that differ at every place and for every seed, always the same for the same arguments."""
    block = b"".join(sha256(f"{seed}/{number}".encode()).digest() for number in range(2048))
    return (block * (size // len(block) + 1))[:size]


async def collect(pieces: AsyncIterator[bytes]) -> bytes:
    """Return the pieces as one."""
    return b"".join([piece async for piece in pieces])


async def put(driver: Driver, key: Key, content: bytes) -> None:
    """Store an object in one go."""
    async with driver.write(key) as handle:
        await handle.append(content)
        await handle.commit()


async def stage(driver: Driver, content: bytes, at: Staged | None = None, upload_id: str = UPLOAD) -> Staged:
    """Stage bytes and return how far the upload is then."""
    async with driver.stage(upload_id, at or Staged()) as handle:
        await handle.append(content)
        return await handle.checkpoint()


async def listed(driver: Driver, prefix: str = "") -> dict[str, int]:
    """Return the keys below the prefix with their sizes."""
    return {info.key: info.size async for info in driver.iter_keys(prefix)}


class DriverContract:
    """What every driver keeps; see the module's docstring."""

    large = 5 * MIB + 17
    """More than the driver handles in one piece or part; a driver with larger parts says so here."""

    @pytest.fixture
    def open_driver(self) -> OpenDriver:
        """Return what opens a driver over the test's own, empty store."""
        raise NotImplementedError("the subclass says how its driver is opened")

    @pytest.fixture
    async def driver(self, open_driver: OpenDriver) -> AsyncGenerator[Driver, None]:
        """Open the driver that most tests need."""
        driver = open_driver()
        yield driver
        await driver.close()

    @pytest.fixture
    async def other_driver(self, open_driver: OpenDriver) -> AsyncGenerator[Driver, None]:
        """Open a second driver over the same store."""
        driver = open_driver()
        yield driver
        await driver.close()

    # Objects -----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 1, MIB, 5 * MIB + 17])
    async def test_what_is_committed_is_read_back(self, driver: Driver, size: int) -> None:
        """Bytes come back as they were written, none and many alike."""
        content = sample(size)

        await put(driver, KEY, content)

        assert await collect(driver.read(KEY)) == content
        assert await driver.size(KEY) == size

    async def test_appended_pieces_join(self, driver: Driver) -> None:
        """Pieces of any kind and size are one object, and the handle counts them."""
        content = sample(self.large)

        async with driver.write(KEY) as handle:
            await handle.append(content[:1])
            await handle.append(bytearray(content[1:1000]))
            await handle.append(memoryview(content)[1000:])
            assert handle.size == len(content)
            await handle.commit()

        assert await collect(driver.read(KEY)) == content

    async def test_a_buffer_may_be_used_again(self, driver: Driver) -> None:
        """When append returns, the driver is done with the buffer."""
        buffer = bytearray(b"first ")

        async with driver.write(KEY) as handle:
            await handle.append(buffer)
            buffer[:] = b"second"
            await handle.append(buffer)
            await handle.commit()

        assert await collect(driver.read(KEY)) == b"first second"

    async def test_ranges(self, driver: Driver) -> None:
        """A range gives exactly its bytes; one from the very end gives none."""
        content = sample(self.large)
        end = len(content)
        ranges = [
            (0, 0),
            (0, 1),
            (7, 100),
            (MIB - 1, 2),
            (3, MIB + 5),
            (end - 1, 1),
            (end, 0),
            (100, None),
            (end, None),
        ]
        await put(driver, KEY, content)

        for start, size in ranges:
            found = await collect(driver.read(KEY, start=start, size=size))

            assert found == content[start : None if size is None else start + size], (start, size)

    async def test_an_empty_object_can_be_read_from_its_end(self, driver: Driver) -> None:
        """Nothing, read from 0, is nothing: not an error."""
        await put(driver, KEY, b"")

        assert await collect(driver.read(KEY, start=0, size=0)) == b""
        assert await collect(driver.read(KEY, start=0)) == b""

    async def test_a_range_beyond_the_end_is_an_error(self, driver: Driver) -> None:
        """An object that is shorter than its reader believes never ends silently."""
        await put(driver, KEY, b"ten bytes.")

        for start, size in [(0, 11), (9, 2), (10, 1), (11, None), (11, 0), (1000, None), (1000, 1)]:
            with pytest.raises(TruncatedError):
                await collect(driver.read(KEY, start=start, size=size))

    async def test_pieces_are_large_but_not_too_large(self, driver: Driver) -> None:
        """Pieces are 256 KiB to 4 MiB, the last excepted, so that memory stays flat and calls few."""
        await put(driver, KEY, sample(self.large))

        sizes = [len(piece) async for piece in driver.read(KEY)]

        assert all(256 * 1024 <= size <= 4 * MIB for size in sizes[:-1])
        assert 0 < sizes[-1] <= 4 * MIB

    async def test_a_reader_may_leave_early(self, driver: Driver) -> None:
        """What was begun and left behind doesn't disturb what follows."""
        content = sample(self.large)
        await put(driver, KEY, content)

        async with aclosing(driver.read(KEY)) as pieces:
            async for _ in pieces:
                break

        assert await collect(driver.read(KEY)) == content

    async def test_nothing_is_visible_before_commit(self, driver: Driver) -> None:
        """An object in the making is neither read nor listed."""
        async with driver.write(KEY) as handle:
            await handle.append(sample(self.large))

            with pytest.raises(KeyUnknownError):
                await driver.size(KEY)
            assert await listed(driver) == {}
            await handle.commit()

        assert await listed(driver) == {KEY: self.large}

    async def test_leaving_without_commit_discards(self, driver: Driver) -> None:
        """Leaving is discarding: whatever lay under the key stays."""
        await put(driver, OTHER, b"as it was")

        for key in (KEY, OTHER):
            async with driver.write(key) as handle:
                await handle.append(sample(self.large))

        assert await listed(driver) == {OTHER: len(b"as it was")}
        assert await collect(driver.read(OTHER)) == b"as it was"

    async def test_an_error_in_the_middle_discards(self, driver: Driver) -> None:
        """A writer's own error passes through and leaves nothing."""

        async def fail() -> None:
            async with driver.write(KEY) as handle:
                await handle.append(sample(self.large))
                raise LookupError("the client went away")

        with pytest.raises(LookupError):
            await fail()

        assert await listed(driver) == {}

    async def test_cancellation_in_the_middle_leaves_nothing(self, driver: Driver) -> None:
        """Cancelling at any await leaves either the whole object or none."""
        content = sample(self.large)

        for turns in range(0, 40, 3):
            task = asyncio.create_task(put(driver, KEY, content))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])

            if KEY in await listed(driver):
                assert await collect(driver.read(KEY)) == content
                await driver.delete(KEY)

        await put(driver, KEY, content)
        assert await collect(driver.read(KEY)) == content

    async def test_of_concurrent_writers_the_last_to_commit_wins(self, driver: Driver, other_driver: Driver) -> None:
        """Two writers of one key never mix; the last one's bytes stay."""
        first, second = sample(self.large, 1), sample(self.large + 5, 2)

        async with driver.write(KEY) as one, other_driver.write(KEY) as two:
            await asyncio.gather(one.append(first[:MIB]), two.append(second[:MIB]))
            await asyncio.gather(one.append(first[MIB:]), two.append(second[MIB:]))
            await one.commit()
            await two.commit()

        assert await collect(driver.read(KEY)) == second

    async def test_many_writers_at_the_same_moment(self, driver: Driver) -> None:
        """However commits fall together, one writer's bytes are there whole."""
        contents = [sample(MIB + number, number) for number in range(8)]

        await asyncio.gather(*(put(driver, KEY, content) for content in contents))

        assert await collect(driver.read(KEY)) in contents

    async def test_replacing_while_reading_never_mixes(self, driver: Driver) -> None:
        """A reader gets the object as it was when it began, or an error."""
        before, after = sample(self.large, 1), sample(self.large, 2)
        await put(driver, KEY, before)

        async with aclosing(driver.read(KEY)) as pieces:
            found = await anext(pieces)
            await put(driver, KEY, after)
            try:
                found += await collect(pieces)
            except Exception:  # noqa: BLE001 -- any error will do here: what counts is that it isn't a mixture
                found = before

        assert found == before
        assert await collect(driver.read(KEY)) == after

    async def test_small_objects_are_put_together(self, driver: Driver, other_driver: Driver) -> None:
        """Each is there under its own key, whatever kind of buffer it came in; what was there is replaced."""
        await put(driver, KEY, sample(MIB))
        objects = {keys.blob(Digest.of(b"%d" % number)): sample(number * 100, number) for number in range(150)}
        objects[KEY], objects[OTHER] = b"replaced", b""

        await driver.put([(key, bytearray(content)) for key, content in objects.items()])

        assert await listed(driver) == {key: len(content) for key, content in objects.items()}
        for key, content in objects.items():
            assert await collect(other_driver.read(key)) == content

    async def test_nothing_is_put_under_what_is_no_key(self, driver: Driver) -> None:
        """One key that leads out of the store, and none is written; no object at all is no error."""
        with pytest.raises(KeyInvalidError):
            await driver.put([(KEY, b"good"), (Key("../evil"), b"evil")])
        await driver.put([])

        assert await listed(driver) == {}

    async def test_putting_one_key_at_the_same_moment(self, driver: Driver, other_driver: Driver) -> None:
        """However they fall together, one of the contents is there whole."""
        contents = [sample(10_000 + number, number) for number in range(8)]

        await asyncio.gather(
            *((driver, other_driver)[number % 2].put([(KEY, content)]) for number, content in enumerate(contents))
        )

        assert await collect(driver.read(KEY)) in contents

    async def test_delete_is_idempotent(self, driver: Driver) -> None:
        """Deleting twice is deleting once; a deleted key can be written again."""
        await put(driver, KEY, b"once")

        await driver.delete(KEY)
        await driver.delete(KEY)

        with pytest.raises(KeyUnknownError):
            await driver.size(KEY)
        await put(driver, KEY, b"again")
        assert await collect(driver.read(KEY)) == b"again"

    async def test_many_are_deleted_together(self, driver: Driver) -> None:
        """Those that aren't there don't matter; what isn't among them stays."""
        folder = "docker/registry/v2/repositories/team/app/_layers/sha256"
        names = [Key(f"{folder}/{number:064}/link") for number in range(1200)]
        await driver.put([(key, b"link") for key in [*names, KEY]])

        assert await driver.delete_many([*names, OTHER]) == {}
        assert await driver.delete_many([]) == {}

        assert await listed(driver, "docker/registry/v2/repositories/") == {}
        assert await collect(driver.read(KEY)) == b"link"

    async def test_deleting_and_writing_neighbours_at_the_same_moment(self, driver: Driver) -> None:
        """Tidying up behind one object never takes the ground from under another."""
        folder = "docker/registry/v2/repositories/team/app/_manifests/tags"
        names = [Key(f"{folder}/v{number}/current/link") for number in range(12)]

        async def write_and_delete(key: Key) -> None:
            for _ in range(4):
                await put(driver, key, b"link")
                await driver.delete(key)
            await put(driver, key, b"link")

        await asyncio.gather(*(write_and_delete(key) for key in names))

        assert await listed(driver, f"{folder}/") == dict.fromkeys(names, 4)

    async def test_unknown_keys(self, driver: Driver) -> None:
        """What isn't there is said to be unknown, by name, and so is a folder."""
        await put(driver, KEY, b"something")

        for key in (OTHER, Key(KEY.rpartition("/")[0])):
            with pytest.raises(KeyUnknownError) as caught:
                await driver.size(key)
            assert caught.value.key == key
            with pytest.raises(KeyUnknownError):
                await anext(driver.read(key))
            with pytest.raises(KeyUnknownError):
                await anext(driver.read(key, start=5, size=5))
            with pytest.raises(KeyUnknownError):
                await anext(driver.read(key, start=0, size=0))

    @pytest.mark.parametrize(
        "text", ["", "/etc/passwd", "a/../../b", "..", "a//b", "a/", "a\x00b", "a b", "ä", "a\n", "./a", "a" * 256]
    )
    async def test_keys_cannot_lead_out_of_the_store(self, driver: Driver, text: str) -> None:
        """A key that is no key is refused before anything is touched."""
        key = Key(text)

        with pytest.raises(KeyInvalidError):
            await driver.size(key)
        with pytest.raises(KeyInvalidError):
            await anext(driver.read(key))
        with pytest.raises(KeyInvalidError):
            await put(driver, key, b"evil")
        with pytest.raises(KeyInvalidError):
            await driver.delete(key)
        with pytest.raises(KeyInvalidError):
            await driver.publish(UPLOAD, Staged(), key)

    @pytest.mark.parametrize("upload_id", ["", "..", "../../blobs", "a/b", ".hidden", "a\x00", "a" * 129])
    async def test_upload_ids_cannot_lead_out_of_the_store(self, driver: Driver, upload_id: str) -> None:
        """An upload id that is none is refused before anything is touched."""
        with pytest.raises(KeyInvalidError):
            await stage(driver, b"evil", upload_id=upload_id)
        with pytest.raises(KeyInvalidError):
            await driver.publish(upload_id, Staged(), KEY)
        with pytest.raises(KeyInvalidError):
            await driver.discard(upload_id, Staged())
        with pytest.raises(KeyInvalidError):
            await collect(driver.read_staged(upload_id, Staged(1)))

    async def test_listing_by_prefix(self, driver: Driver) -> None:
        """A listing gives everything below the prefix, with size and time, and nothing else."""
        a = Key("docker/registry/v2/repositories/a/_layers/sha256/x/link")
        ab = Key("docker/registry/v2/repositories/a-b/_layers/sha256/x/link")
        for key, size in ((a, 3), (ab, 4), (KEY, 5)):
            await put(driver, key, b"x" * size)

        infos = [info async for info in driver.iter_keys("docker/registry/v2/repositories/a/")]

        assert [(info.key, info.size) for info in infos] == [(a, 3)]
        assert abs(infos[0].modified - datetime.now(UTC)) < timedelta(hours=1)
        assert await listed(driver) == {a: 3, ab: 4, KEY: 5}
        assert await listed(driver, "docker/registry/v2/nothing/") == {}

    @pytest.mark.parametrize("prefix", ["a", "/", "../", "a//", "a/../"])
    async def test_prefixes_are_checked(self, driver: Driver, prefix: str) -> None:
        """A prefix is a folder of the tree."""
        with pytest.raises(KeyInvalidError):
            await listed(driver, prefix)

    async def test_long_listings_are_whole(self, driver: Driver) -> None:
        """However many keys there are, each is listed once."""
        names = [Key(f"docker/registry/v2/repositories/r/_layers/n{number}") for number in range(1100)]
        for position in range(0, len(names), 50):
            await asyncio.gather(*(put(driver, key, b"x") for key in names[position : position + 50]))

        found = [info.key async for info in driver.iter_keys("docker/registry/v2/repositories/")]

        assert sorted(found) == sorted(names)

    async def test_folders_are_named(self, driver: Driver) -> None:
        """Those directly in the prefix, ascending; objects in it and what lies deeper aren't."""
        root = "docker/registry/v2/repositories/"
        for name in ("b/_layers/x/link", "a/_layers/x/link", "a/c/_layers/link", "a-b/link", "object"):
            await put(driver, keys.check_key(root + name), b"x")

        assert await driver.folders(root) == ["a", "a-b", "b"]
        assert await driver.folders(f"{root}a/") == ["_layers", "c"]
        assert await driver.folders(f"{root}nothing/") == []

    async def test_what_lies_in_one_folder_is_listed_together(self, driver: Driver) -> None:
        """A reader of the listing can treat a folder as soon as another begins."""
        root = "docker/registry/v2/repositories/"
        names = [f"{tag}/{part}" for tag in ("a", "a-b", "b") for part in ("current/link", "index/x/link")]
        for name in [*names[::2], *names[1::2]]:
            await put(driver, keys.check_key(root + name), b"x")

        found = [info.key.removeprefix(root).partition("/")[0] async for info in driver.iter_keys(root)]

        assert len([tag for tag, _ in groupby(found)]) == 3

    # Staged uploads ----------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("size", [0, 1, 3 * MIB, 5 * MIB + 17])
    async def test_a_staged_upload_is_published(self, driver: Driver, size: int) -> None:
        """What was staged is read under the key that publication gives."""
        content = sample(size)
        at = await stage(driver, content)

        key = await driver.publish(UPLOAD, at, KEY)

        assert at.size == size
        assert await collect(driver.read(key)) == content
        assert await driver.size(key) == size

    async def test_nothing_staged_is_visible(self, driver: Driver) -> None:
        """Until it is published an upload is neither read nor listed."""
        await stage(driver, sample(self.large))

        assert await listed(driver) == {}
        with pytest.raises(KeyUnknownError):
            await driver.size(KEY)

    async def test_an_upload_goes_on_in_another_process(self, driver: Driver, other_driver: Driver) -> None:
        """Size and state are all that another driver needs, and the digest goes on too."""
        content = sample(3 * self.large)
        cuts = [0, 10, 10 + self.large, 2 * self.large, len(content)]
        at, state = Staged(), ResumableHasher().export_state()

        for number, (start, end) in enumerate(pairwise(cuts)):
            here = (driver, other_driver)[number % 2]
            hasher = ResumableHasher(state=state, size=start)
            async with here.stage(UPLOAD, Staged(at.size, at.state)) as handle:
                assert handle.size == start
                await handle.append(content[start:end], hasher)
                assert handle.size == end
                at = await handle.checkpoint()
            state = hasher.export_state()
        key = await driver.publish(UPLOAD, at, KEY)

        assert at.size == len(content)
        assert await collect(other_driver.read(key)) == content
        assert hasher.digest() == Digest.of(content)

    async def test_small_pieces_across_requests_join(self, driver: Driver, other_driver: Driver) -> None:
        """Many requests of few bytes are one upload."""
        content = sample(1000)
        at = Staged()

        for number in range(10):
            here = (driver, other_driver)[number % 2]
            at = await stage(here, content[100 * number : 100 * (number + 1)], at)
        key = await driver.publish(UPLOAD, at, KEY)

        assert await collect(driver.read(key)) == content

    async def test_several_checkpoints_of_one_handle(self, driver: Driver, other_driver: Driver) -> None:
        """Each checkpoint can be gone on from, also an earlier one: the later was perhaps never kept."""
        content, other = sample(3 * MIB, 1), sample(3 * MIB, 2)
        async with driver.stage(UPLOAD, Staged()) as handle:
            await handle.append(content[:1000])
            first = await handle.checkpoint()
            await handle.append(content[1000:MIB])
            await handle.checkpoint()
            await handle.append(content[MIB:])
            await handle.checkpoint()

        at = await stage(other_driver, other[1000:], first)
        key = await driver.publish(UPLOAD, at, KEY)

        assert await collect(driver.read(key)) == content[:1000] + other[1000:]

    async def test_what_was_not_acknowledged_is_discarded(self, driver: Driver, other_driver: Driver) -> None:
        """Bytes beyond the last checkpoint aren't part of the upload."""
        content = sample(2 * self.large)
        at = await stage(driver, content[: self.large])
        async with driver.stage(UPLOAD, at) as handle:
            await handle.append(sample(self.large, 9))

        at = await stage(other_driver, content[self.large :], at)
        key = await driver.publish(UPLOAD, at, KEY)

        assert await collect(driver.read(key)) == content

    async def test_a_refused_body_leaves_nothing(self, driver: Driver) -> None:
        """Who leaves before a checkpoint gives back the room at once: no upload that was never begun, and no more of
        another than was acknowledged.
        """
        with suppress(InterruptedError):
            async with driver.stage("refused", Staged()) as handle:
                await handle.append(sample(self.large))
                raise InterruptedError
        assert await listed(driver, keys.UPLOADS) == {}
        at = await stage(driver, sample(self.large))
        before = await listed(driver, keys.UPLOADS)
        with suppress(InterruptedError):
            async with driver.stage(UPLOAD, at) as handle:
                await handle.append(sample(self.large, 9))
                raise InterruptedError

        assert await listed(driver, keys.UPLOADS) == before
        assert await driver.publish(UPLOAD, at, KEY)

    async def test_exactly_the_acknowledged_bytes_are_published(self, driver: Driver) -> None:
        """Publication leaves out what a killed request had added."""
        content = sample(self.large)
        at = await stage(driver, content)
        async with driver.stage(UPLOAD, at) as handle:
            await handle.append(sample(self.large, 9))

        key = await driver.publish(UPLOAD, at, KEY)

        assert await collect(driver.read(key)) == content

    async def test_cancellation_keeps_what_was_acknowledged(self, driver: Driver, other_driver: Driver) -> None:
        """A request that is cancelled at any await leaves the upload as it was."""
        content = sample(self.large + MIB)
        at = await stage(driver, content[:MIB])

        for turns in range(0, 30, 3):
            task = asyncio.create_task(stage(driver, sample(self.large, 9), at))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])

        at = await stage(other_driver, content[MIB:], at)
        key = await driver.publish(UPLOAD, at, KEY)
        assert await collect(driver.read(key)) == content

    async def test_two_writers_of_one_upload_never_mix(self, driver: Driver, other_driver: Driver) -> None:
        """A second writer is refused, or its bytes and the first one's stay apart."""
        first, second = sample(self.large, 1), sample(self.large, 2)
        try:
            async with driver.stage(UPLOAD, Staged()) as one, other_driver.stage(UPLOAD, Staged()) as two:
                await one.append(first[:MIB])
                await two.append(second)
                after_second = await two.checkpoint()
                await one.append(first[MIB:])
        except StagedBusyError:
            return

        try:
            key = await driver.publish(UPLOAD, after_second, KEY)
        except StagedLostError:
            return
        assert await collect(driver.read(key)) == second

    async def test_lost_staged_bytes_are_noticed(self, driver: Driver, other_driver: Driver) -> None:
        """An upload that is gone isn't taken up as if nothing had happened, large or small."""
        for upload_id, size in (("small", 100), ("large", self.large), ("larger", 2 * self.large)):
            at = await stage(driver, sample(size), upload_id=upload_id)
            await other_driver.discard(upload_id, at)

            with pytest.raises(StagedLostError):
                await stage(driver, b"more", at, upload_id)
            with pytest.raises(StagedLostError):
                await driver.publish(upload_id, at, KEY)
            with pytest.raises((StagedLostError, StagedUnreadableError)):
                await collect(driver.read_staged(upload_id, at))
        assert await listed(driver) == {}

    async def test_staged_bytes_can_be_read_again(self, driver: Driver, other_driver: Driver) -> None:
        """Where no state of the digest was kept, the bytes are hashed again; a store that can't says so."""
        content = sample(self.large)
        at = await stage(driver, content)

        try:
            found = await collect(other_driver.read_staged(UPLOAD, at))
            rest = await collect(other_driver.read_staged(UPLOAD, at, start=1000))
        except StagedUnreadableError:
            return
        assert found == content
        assert rest == content[1000:]

    async def test_few_staged_bytes_can_always_be_read_again(self, driver: Driver, other_driver: Driver) -> None:
        """Every store can give back a short upload."""
        at = await stage(driver, b"a short upload")

        assert await collect(other_driver.read_staged(UPLOAD, at, start=2)) == b"short upload"
        assert await collect(other_driver.read_staged(UPLOAD, at, start=at.size)) == b""

    @pytest.mark.parametrize("size", [0, 100, 5 * MIB + 17])
    async def test_publishing_again_gives_the_same(self, driver: Driver, other_driver: Driver, size: int) -> None:
        """After a crash between publication and the caller's own commit, publishing again succeeds."""
        content = sample(size)
        at = await stage(driver, content)
        first = await driver.publish(UPLOAD, at, KEY)

        again = await other_driver.publish(UPLOAD, at, KEY)

        assert again == first
        assert await collect(driver.read(again)) == content

    @pytest.mark.parametrize("size", [100, 5 * MIB + 17])
    async def test_two_uploads_of_the_same_bytes(self, driver: Driver, size: int) -> None:
        """Both clients that push one blob at the same time are served."""
        content = sample(size)
        one = await stage(driver, content, upload_id="one")
        two = await stage(driver, content, upload_id="two")

        published = await asyncio.gather(driver.publish("one", one, KEY), driver.publish("two", two, KEY))

        for key in published:
            assert await collect(driver.read(key)) == content

    @pytest.mark.parametrize("size", [100, 5 * MIB + 17])
    async def test_discard_is_idempotent(self, driver: Driver, size: int) -> None:
        """Discarding twice, or what never was, is no error."""
        at = await stage(driver, sample(size))

        await driver.discard(UPLOAD, at)
        await driver.discard(UPLOAD, at)
        await driver.discard("never-was", Staged())

        assert await listed(driver) == {}
        assert await listed(driver, keys.UPLOADS) == {}

    @pytest.mark.parametrize("size", [100, 5 * MIB + 17])
    async def test_discard_spares_what_was_published(self, driver: Driver, size: int) -> None:
        """A late discard of a published upload takes nothing away."""
        content = sample(size)
        at = await stage(driver, content)
        key = await driver.publish(UPLOAD, at, KEY)

        await driver.discard(UPLOAD, at)

        assert await collect(driver.read(key)) == content

    @pytest.mark.parametrize("size", [100, 5 * MIB + 17])
    async def test_publication_leaves_nothing_staged(self, driver: Driver, size: int) -> None:
        """A published upload occupies its object's space and no more."""
        content = sample(size)
        at = await stage(driver, content[:50])
        at = await stage(driver, content[50:], at)

        key = await driver.publish(UPLOAD, at, KEY)

        assert await listed(driver, keys.UPLOADS) == {}
        assert await listed(driver) == {key: size}

    async def test_close_is_idempotent(self, open_driver: OpenDriver) -> None:
        """Closing twice, or without ever having done anything, is no error."""
        driver = open_driver()

        await driver.close()
        await driver.close()
