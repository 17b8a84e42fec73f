"""One download for however many wait, in this process and in others."""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

from roadstead.oci.digest import Digest
from roadstead.oci.reference import RepositoryName
from roadstead.proxy.errors import FillBrokenError
from roadstead.proxy.fills import Fill, Fills, Spooled
from roadstead.proxy.locks import alone, claim, release, remove_abandoned
from roadstead.registry.ports import BlobRecord
from roadstead.storage.ports import Key

APP = RepositoryName("up.example/app")
DATA = os.urandom(300_000)
DIGEST = Digest.of(DATA)


class Upstream:
    """Gives pieces when it is let; counts how often it was asked, and keeps what was stored."""

    def __init__(self, pieces: Sequence[bytes | Exception]) -> None:
        self.asked = 0
        self.stored: list[bytes] = []
        self.go_on = asyncio.Event()
        self._pieces = pieces

    async def download(self) -> AsyncGenerator[bytes, None]:
        """Yield the first piece, and the others when it is let."""
        self.asked += 1
        for position, piece in enumerate(self._pieces):
            if position:
                await self.go_on.wait()
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def store(self, body: Spooled) -> BlobRecord:
        """Keep it."""
        data = b"".join([piece async for piece in body.chunks()])
        self.stored.append(data)
        return BlobRecord(DIGEST, len(data), Key("key"))

    async def find(self) -> BlobRecord | None:
        """Look whether it was stored."""
        return BlobRecord(DIGEST, len(self.stored[0]), Key("key")) if self.stored else None

    async def join(self, fills: Fills) -> Fill:
        """Want the blob."""
        return await fills.join(APP, DIGEST, self.download, self.store, self.find)


async def whole(fill: Fill, start: int = 0) -> bytes:
    """Read it to the end."""
    return b"".join([piece async for piece in fill.read(start=start, size=len(DATA) - start, of=len(DATA))])


async def test_all_read_behind_one_download(tmp_path: Path) -> None:
    """Two in this process and one in another, each from where it likes; then it is stored, and the file is gone."""
    upstream = Upstream([DATA[:1000], DATA[1000:]])
    here, elsewhere = Fills(tmp_path), Fills(tmp_path)
    fills = [await upstream.join(here), await upstream.join(here), await upstream.join(elsewhere)]
    for fill in fills:
        await fill.reach(1000)
    reading = [asyncio.ensure_future(whole(fill, start)) for fill, start in zip(fills, (0, 7, 0), strict=True)]
    upstream.go_on.set()

    assert await asyncio.gather(*reading) == [DATA, DATA[7:], DATA]
    await here.aclose()
    assert upstream.asked == 1
    assert not list(tmp_path.iterdir())


async def test_a_download_that_breaks_breaks_all(tmp_path: Path) -> None:
    """Whoever reads is told, with the reason in this process; nothing is stored; the next one begins anew."""
    broken = Upstream([DATA[:1000], FillBrokenError(DIGEST)])
    here, elsewhere = Fills(tmp_path), Fills(tmp_path)
    fills = [await broken.join(here), await broken.join(elsewhere)]
    reading = [asyncio.ensure_future(whole(fill)) for fill in fills]
    broken.go_on.set()
    for each in reading:
        with pytest.raises(FillBrokenError):
            await each
    assert broken.stored == []

    good = Upstream([DATA])
    fill = await good.join(here)
    assert await whole(fill) == DATA
    await here.aclose()


@pytest.mark.parametrize("here", [True, False], ids=["same process", "another"])
@pytest.mark.parametrize(("start", "size", "of"), [(0, 10, len(DATA)), (0, 1000, 1000), (5, 995, 1000)])
async def test_no_end_is_given_before_all_is_right(tmp_path: Path, here: bool, start: int, size: int, of: int) -> None:
    """Neither of a part nor to those who were told a smaller size, though all their bytes are here."""
    upstream = Upstream([DATA[:1000], DATA[1000:]])
    first, second = Fills(tmp_path), Fills(tmp_path)
    begun = await upstream.join(first)
    await begun.reach(1000)
    fill = await upstream.join(first if here else second)
    pieces = fill.read(start=start, size=size, of=of)
    assert await anext(pieces) == DATA[start : start + size - 1]
    reading = asyncio.ensure_future(anext(pieces))
    await asyncio.wait([reading], timeout=0.1)
    assert not reading.done()
    upstream.go_on.set()

    if of == len(DATA):
        assert await reading == DATA[start + size - 1 : start + size]
    else:
        with pytest.raises(FillBrokenError):
            await reading
    await pieces.aclose()
    begun.leave()
    await first.aclose()


@pytest.mark.parametrize("here", [True, False], ids=["same process", "another"])
async def test_an_answer_that_never_begins_keeps_nothing_open(tmp_path: Path, here: bool) -> None:
    """A client may be gone before the first byte: then nobody reads what was begun for it, nor lets go of it."""
    upstream = Upstream([DATA[:1000], DATA[1000:]])
    first, second = Fills(tmp_path), Fills(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    begun = await upstream.join(first)
    await begun.reach(1000)
    fill = await upstream.join(first if here else second)
    pieces = fill.read(start=0, size=len(DATA), of=len(DATA))
    await pieces.aclose()
    del pieces, fill
    upstream.go_on.set()
    await begun.stored()
    begun.leave()
    await first.aclose()
    del begun

    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_it_goes_on_when_nobody_waits(tmp_path: Path) -> None:
    """A client that goes away doesn't waste what came; the next finds it stored."""
    upstream = Upstream([DATA[:1000], DATA[1000:]])
    fills = Fills(tmp_path)
    fill = await upstream.join(fills)
    fill.leave()
    upstream.go_on.set()
    again = await upstream.join(fills)
    await again.stored()
    again.leave()

    assert upstream.stored == [DATA]
    assert upstream.asked == 1
    late = await upstream.join(fills)
    await late.stored()
    late.leave()
    assert upstream.asked == 1, "it looked in the store first"


async def test_an_end_leaves_nothing(tmp_path: Path) -> None:
    """A server that stops drops what isn't whole."""
    upstream = Upstream([DATA[:1000], DATA[1000:]])
    fills = Fills(tmp_path)
    fill = await upstream.join(fills)
    await fill.reach(10)
    await fills.aclose()
    with pytest.raises(FillBrokenError):
        await fill.stored()
    fill.leave()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """Files that nobody holds go; one that somebody holds stays."""
    (tmp_path / "left.part").write_bytes(b"part")
    held = claim(tmp_path / "held.part")
    assert held is not None

    assert remove_abandoned(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["held.part"]
    release(tmp_path / "held.part", held)
    assert remove_abandoned(tmp_path / "nowhere") == 0


def test_what_was_left_may_be_a_blob_by_now(tmp_path: Path) -> None:
    """A process that is killed after the store took its file leaves one with two names: whoever comes next, to download
    or to tidy up, makes a file of its own, and doesn't touch the blob's bytes.
    """
    left, blob = tmp_path / "left.part", tmp_path / "blob"
    for tidy in (False, True):
        left.write_bytes(DATA)
        blob.unlink(missing_ok=True)
        blob.hardlink_to(left)
        if tidy:
            blob = blob.rename(tmp_path.parent / "blob-elsewhere")
            assert remove_abandoned(tmp_path) == 1
        else:
            held = claim(left, 0o700)
            assert held is not None
            assert (os.fstat(held).st_size, os.fstat(held).st_mode & 0o777) == (0, 0o700)
            release(left, held)
        assert blob.read_bytes() == DATA


async def test_one_at_a_time(tmp_path: Path) -> None:
    """Whoever waits for a lock has it alone, although the file is removed each time."""
    inside = 0

    async def work() -> None:
        nonlocal inside
        async with alone(tmp_path / "lock"):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(20)))
    assert not list(tmp_path.iterdir())
