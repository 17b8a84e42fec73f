"""What the filesystem driver does to the disk, and in which order."""

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from roadstead.oci.digest import Algorithm, Digest
from roadstead.storage import keys
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.storage.ports import (
    Key,
    KeyUnknownError,
    Staged,
    StagedBusyError,
    StagedLostError,
    StorageDeniedError,
    StorageFailedError,
    StorageFullError,
    TruncatedError,
)
from roadstead.testing.contracts.driver import KEY, OTHER, UPLOAD, collect, listed, put, sample, stage


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[FilesystemDriver]:
    driver = FilesystemDriver(tmp_path / "store")
    yield driver
    await driver.close()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Record, in order, the calls of the operating system that durability hangs on, with the path they are about."""
    seen: list[tuple[str, str]] = []

    def record(name: str) -> None:
        original: Callable[..., Any] = getattr(os, name)

        def recorded(target: int | str, *arguments: Any, **options: Any) -> Any:
            about = str(Path(f"/proc/self/fd/{target}").readlink()) if isinstance(target, int) else str(target)
            seen.append((name, str(arguments[0]) if name == "rename" else about))
            return original(target, *arguments, **options)

        monkeypatch.setattr(os, name, recorded)

    for name in ("mkdir", "pwrite", "ftruncate", "fsync", "fdatasync", "rename"):
        record(name)
    return seen


def short(calls: list[tuple[str, str]], driver: FilesystemDriver) -> list[str]:
    """Say the calls with the driver's own folders as one word each."""
    names = {
        str(driver.path(KEY)): "object",
        str(driver.path(KEY).parent): "folder",
        str(driver.path(KEY).parent.parent): "prefix",
        str(driver.path(keys.upload(UPLOAD))): "upload",
        str(driver.path(keys.upload(UPLOAD)).parent): "uploads",
    }
    return [f"{name} {names.get(path, 'temporary')}" for name, path in calls]


async def test_an_object_is_flushed_before_it_has_its_name(
    driver: FilesystemDriver, calls: list[tuple[str, str]]
) -> None:
    """Bytes, then the name, then the folders: a power cut finds the whole object or none."""
    await put(driver, KEY, b"content")

    assert short(calls, driver) == [
        "pwrite temporary",
        "fsync temporary",
        "mkdir folder",
        "rename object",
        "fsync folder",
        "fsync prefix",
    ]


async def test_a_put_object_is_flushed_before_it_has_its_name(
    driver: FilesystemDriver, calls: list[tuple[str, str]]
) -> None:
    """The same order as an object that is written in pieces."""
    await driver.put([(KEY, b"content")])

    assert short(calls, driver) == [
        "pwrite temporary",
        "fsync temporary",
        "mkdir folder",
        "rename object",
        "fsync folder",
        "fsync prefix",
    ]


async def test_what_is_put_together_shares_its_flushes(driver: FilesystemDriver, calls: list[tuple[str, str]]) -> None:
    """Every file is flushed before any has its name, and every folder that leads to them once, the lowest first."""
    folder = "docker/registry/v2/repositories/app/_layers/sha256"
    links = [Key(f"{folder}/{name}/link") for name in "abc"]

    await driver.put([(key, b"link") for key in links])

    steps = [name for name, _ in calls]
    assert max(n for n, (name, path) in enumerate(calls) if name == "fsync" and keys.TEMPORARY in path) < steps.index(
        "rename"
    )
    flushed = [path for name, path in calls[steps.index("rename") :] if name == "fsync"]
    ways = [list(driver.path(key).parents)[:6] for key in links]
    assert flushed[:3] == [str(way[0]) for way in ways]
    assert flushed[3:] == [str(path) for path in ways[0][1:]]


async def test_a_put_that_fails_leaves_no_temporary_file(
    driver: FilesystemDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written beside the tree goes, and no name points at what isn't flushed."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "the disk")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageFailedError):
        await driver.put([(KEY, b"one"), (OTHER, b"two")])

    assert await listed(driver) == {}
    assert await listed(driver, keys.TEMPORARY) == {}


async def test_a_staged_upload_is_flushed_before_it_is_acknowledged(
    driver: FilesystemDriver, calls: list[tuple[str, str]]
) -> None:
    """The checkpoint flushes the bytes and the file's name; publishing adds the object's name and folders."""
    at = await stage(driver, b"content")
    await driver.publish(UPLOAD, at, KEY)

    assert short(calls, driver) == [
        "pwrite upload",
        "fdatasync upload",
        "fsync uploads",
        "mkdir folder",
        "rename object",
        "fsync folder",
        "fsync prefix",
    ]


async def test_a_longer_file_is_cut_and_flushed_before_it_is_published(
    driver: FilesystemDriver, calls: list[tuple[str, str]]
) -> None:
    """What was never acknowledged can't come back after a power cut."""
    at = await stage(driver, b"content")
    driver.path(keys.upload(UPLOAD)).write_bytes(b"content and more")
    calls.clear()

    await driver.publish(UPLOAD, at, KEY)

    assert short(calls, driver)[:2] == ["ftruncate upload", "fsync upload"]


async def test_folders_of_another_algorithm_are_flushed_all_the_way(
    driver: FilesystemDriver, calls: list[tuple[str, str]]
) -> None:
    """Folders that aren't made at the start are flushed up to one that is."""
    key = keys.blob(Digest.of(b"content", Algorithm.SHA512))

    await put(driver, key, b"content")

    flushed = [path for name, path in calls if name == "fsync"][1:]
    blobs = driver.path(KEY).parents[3]
    assert [Path(path) for path in flushed] == list(driver.path(key).parents)[:4]
    assert Path(flushed[-1]) == blobs


async def test_a_second_start_makes_nothing(driver: FilesystemDriver, calls: list[tuple[str, str]]) -> None:
    """A tree that is prepared costs a few calls, not 256."""
    again = FilesystemDriver(driver.path(KEY).parents[7])
    await again.close()

    assert len([name for name, _ in calls if name == "mkdir"]) < 10


async def test_files_are_for_us_alone(driver: FilesystemDriver) -> None:
    """Nobody else on the machine reads or writes what we store."""
    await put(driver, KEY, b"content")

    assert stat.S_IMODE(driver.path(KEY).stat().st_mode) == 0o600
    for folder in list(driver.path(KEY).parents)[:8]:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_link_is_no_object(driver: FilesystemDriver, tmp_path: Path) -> None:
    """A link planted under a key is neither read, nor listed, nor written through."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    driver.path(KEY).parent.mkdir()
    driver.path(KEY).symlink_to(secret)

    with pytest.raises(KeyUnknownError):
        await collect(driver.read(KEY))
    with pytest.raises(KeyUnknownError):
        await driver.size(KEY)
    with pytest.raises(KeyUnknownError):
        driver.open_file(KEY)
    assert await listed(driver) == {}
    await put(driver, KEY, b"ours")
    assert secret.read_bytes() == b"secret"
    assert await collect(driver.read(KEY)) == b"ours"


async def test_a_link_in_the_place_of_an_upload_is_refused(driver: FilesystemDriver, tmp_path: Path) -> None:
    """A link planted where an upload is staged isn't written through."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"victim")
    driver.path(keys.upload(UPLOAD)).symlink_to(victim)

    with pytest.raises(StorageFailedError):
        await stage(driver, b"evil")

    assert victim.read_bytes() == b"victim"


async def test_a_pipe_holds_nobody_up(driver: FilesystemDriver) -> None:
    """A named pipe in the place of an object would block a reader for ever: it is no object."""
    driver.path(KEY).parent.mkdir()
    os.mkfifo(driver.path(KEY))

    with pytest.raises(KeyUnknownError):
        await collect(driver.read(KEY))


async def test_the_open_file_is_the_callers(driver: FilesystemDriver) -> None:
    """A descriptor reads the object, also after it is deleted."""
    await put(driver, KEY, b"content")

    descriptor = driver.open_file(KEY)
    await driver.delete(KEY)

    try:
        assert os.read(descriptor, 100) == b"content"
    finally:
        os.close(descriptor)
    with pytest.raises(KeyUnknownError):
        driver.open_file(KEY)


async def test_deleting_leaves_no_empty_folders_but_the_fixed_ones(driver: FilesystemDriver) -> None:
    """Distribution lists tags by their folders, and knows a repository's list by the folder around them."""
    tag = Key("docker/registry/v2/repositories/app/_manifests/tags/v1/current/link")
    for key in (tag, KEY):
        await put(driver, key, b"x")

    await driver.delete(tag)
    await driver.delete(KEY)

    assert list(driver.path(Key("docker/registry/v2/repositories/app/_manifests/tags")).iterdir()) == []
    assert not driver.path(KEY).parent.exists()
    assert driver.path(KEY).parent.parent.is_dir()


async def test_partial_writes_are_finished(driver: FilesystemDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may take less than it was given."""
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:1000], offset))
    content = sample(12345)

    await put(driver, KEY, content)

    assert await collect(driver.read(KEY)) == content


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StorageFullError),
        (errno.EDQUOT, StorageFullError),
        (errno.EIO, StorageFailedError),
        (errno.EACCES, StorageDeniedError),
        (errno.EROFS, StorageDeniedError),
    ],
)
async def test_errors_of_the_disk_are_ours(
    driver: FilesystemDriver, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    """Each error of the disk has its own of ours, nothing is left behind, and the upload goes on afterwards."""
    at = await stage(driver, b"acknowledged ")
    pwrite = os.pwrite
    written: list[int] = []

    def fail_late(fd: int, data: memoryview, offset: int) -> int:
        if written:
            raise OSError(number, os.strerror(number))
        written.append(pwrite(fd, data[:3], offset))
        return written[0]

    monkeypatch.setattr(os, "pwrite", fail_late)
    with pytest.raises(expected):
        await stage(driver, b"lost", at)
    with pytest.raises(expected):
        await put(driver, OTHER, b"lost")
    monkeypatch.undo()

    assert await listed(driver) == {}
    assert await listed(driver, keys.TEMPORARY) == {}
    at = await stage(driver, b"and more", at)
    await driver.publish(UPLOAD, at, KEY)
    assert await collect(driver.read(KEY)) == b"acknowledged and more"


async def test_a_handle_cannot_go_on_after_an_error(driver: FilesystemDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed flush nobody knows what is on the disk: the handle refuses, it doesn't guess."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "broken")

    async with driver.stage(UPLOAD, Staged()) as handle:
        await handle.append(b"content")
        monkeypatch.setattr(os, "fdatasync", fail)
        with pytest.raises(StorageFailedError):
            await handle.checkpoint()
        monkeypatch.undo()

        with pytest.raises(StorageFailedError):
            await handle.checkpoint()
        with pytest.raises(StorageFailedError):
            await handle.append(b"more")


async def test_an_upload_being_written_is_busy(driver: FilesystemDriver) -> None:
    """A writer that was stalled can't mix its bytes into what another continues or has published."""
    async with driver.stage(UPLOAD, Staged()) as handle:
        await handle.append(b"content")
        at = await handle.checkpoint()

        with pytest.raises(StagedBusyError):
            await stage(driver, b"more", at)
        with pytest.raises(StagedBusyError):
            await driver.publish(UPLOAD, at, KEY)

    await driver.publish(UPLOAD, at, KEY)
    assert await collect(driver.read(KEY)) == b"content"


async def test_a_shorter_staged_file_is_noticed(driver: FilesystemDriver) -> None:
    """A file that lost bytes is not padded with zeros."""
    at = await stage(driver, b"content")
    driver.path(keys.upload(UPLOAD)).write_bytes(b"cont")

    with pytest.raises(StagedLostError) as caught:
        await stage(driver, b"more", at)
    with pytest.raises(StagedLostError):
        await driver.publish(UPLOAD, at, KEY)
    with pytest.raises(StagedLostError):
        await collect(driver.read_staged(UPLOAD, at))

    assert caught.value.found == 4


async def test_what_a_crash_left_is_purged(driver: FilesystemDriver) -> None:
    """Old temporary files go, young ones stay: their writers may live."""
    now = datetime.now(UTC)
    folder = driver.path(Key(keys.TEMPORARY[:-1]))
    for name, age in (("old", timedelta(days=2)), ("young", timedelta(0))):
        (folder / name).write_bytes(b"x")
        moment = (now - age).timestamp()
        os.utime(folder / name, (moment, moment))

    purged = await driver.purge_temporary(now - timedelta(days=1))

    assert purged == 1
    assert [path.name for path in folder.iterdir()] == ["young"]


async def test_no_descriptor_is_left_open(driver: FilesystemDriver) -> None:
    """However handles and readers are left, their files are closed."""
    await put(driver, KEY, sample(3 << 20))
    before = len(list(Path("/proc/self/fd").iterdir()))

    for turns in range(12):
        for work in (put(driver, KEY, sample(3 << 20)), stage(driver, b"x"), collect(driver.read(KEY))):
            task = asyncio.ensure_future(work)
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])

    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert await listed(driver, keys.TEMPORARY) == {}


async def test_a_root_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file in the way of the root is said by name."""
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageFailedError, match="file/store"):
        FilesystemDriver(tmp_path / "file" / "store")


async def test_a_file_that_shrinks_while_it_is_read_is_an_error(driver: FilesystemDriver) -> None:
    """A reader that was promised 3 MiB is told when the disk gives less."""
    await put(driver, KEY, sample(3 << 20))
    pieces = driver.read(KEY)
    await anext(pieces)
    os.truncate(driver.path(KEY), 2 << 20)

    with pytest.raises(TruncatedError) as caught:
        await collect(pieces)

    assert (caught.value.expected, caught.value.found) == (3 << 20, 2 << 20)


async def test_staged_bytes_that_nobody_knows_are_removed_after_their_time(tmp_path: Path) -> None:
    """A worker killed before its first row was written leaves a staged file that no session names."""
    driver = FilesystemDriver(tmp_path)
    for upload_id in ("lost", "going-on"):
        async with driver.stage(upload_id, Staged()) as handle:
            await handle.append(b"bytes")
            await handle.checkpoint()
    lost = tmp_path / keys.upload("lost")
    os.utime(lost, (0, 0))

    purged = await driver.purge_temporary(datetime.now(UTC) - timedelta(days=1))

    assert purged == 1
    assert not lost.exists()
    assert (tmp_path / keys.upload("going-on")).exists()
    await driver.close()


async def test_a_file_is_taken_as_it_lies(
    driver: FilesystemDriver, tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    """It is flushed, then it has the object's name, too, and the folders are flushed; its own name stays."""
    file = tmp_path / "arrived"
    file.write_bytes(sample(100_000))

    assert await driver.take_file(file, KEY, size=100_000)

    assert await collect(driver.read(KEY)) == sample(100_000)
    assert driver.path(KEY).samefile(file)
    done = [name for name, _ in calls]
    assert done.index("fsync") < done.index("rename") < len(done) - 1 - done[::-1].index("fsync")
    assert not list((tmp_path / "store" / keys.TEMPORARY).iterdir())


async def test_a_file_of_another_size_is_not_taken(driver: FilesystemDriver, tmp_path: Path) -> None:
    """Whoever wrote it said another size, so something is wrong with it; nothing is left behind."""
    file = tmp_path / "arrived"
    file.write_bytes(b"short")
    with pytest.raises(StorageFailedError, match="100 bytes"):
        await driver.take_file(file, KEY, size=100)
    with pytest.raises(KeyUnknownError):
        await collect(driver.read(KEY))
    assert not list((tmp_path / "store" / keys.TEMPORARY).iterdir())


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM])
async def test_a_file_that_lies_too_far_away_is_not_taken(
    driver: FilesystemDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """On another file system, or on one without second names: then it has to be copied."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "arrived").write_bytes(b"data")
    assert not await driver.take_file(tmp_path / "arrived", KEY, size=4)
