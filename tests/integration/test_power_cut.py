"""After a power cut everything that was acknowledged is there, whatever the file system kept of the rest.

The cuts are a sample of those that ``tests/soak/test_power_cut.py`` looks at; the last tests show that a server which
forgets to flush something would be caught.
"""

import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing

import pytest
from tests.soak.power_cuts import DATA, Cut, Recording, cuts, first_start, look_at, memory_folder, record, told

from roadstead.testing.powercut.trace import Call


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """What a real server did while a client pushed, moved tags and deleted."""
    return record(tmp_path_factory.mktemp("power-cut"), seed=1, largest=200_000)


async def failures(recording: Recording, chosen: Iterable[Cut]) -> AsyncIterator[str]:
    with memory_folder() as folder:
        for cut in chosen:
            if problems := await look_at(cut, recording, folder / "disk"):
                yield told(cut, problems)


async def test_everything_acknowledged_is_there_after_a_power_cut(recording: Recording) -> None:
    """Blobs, manifests, tags and uploads are whole, deletes stay, and the database is sound (registry spec §8.2)."""
    chosen = cuts(recording, random.Random(2), mixtures=2, share=0.008)

    assert [failure async for failure in failures(recording, chosen)] == []


async def test_the_first_start_survives_a_power_cut(recording: Recording) -> None:
    """A second start goes on from whatever the first one left, and needs nobody's help."""
    chosen = first_start(recording, random.Random(3), mixtures=1, share=0.06)

    assert [failure async for failure in failures(recording, chosen)] == []


def is_name_of_a_blob(call: Call) -> bool:
    """The flush of a folder that leads to a blob."""
    return call.name == "flush" and "/blobs/" in call.path


def is_data_of_a_blob(call: Call) -> bool:
    """The flush of a file that becomes a blob."""
    return call.name == "flush" and ("/roadstead/uploads/" in call.path or "/roadstead/tmp/" in call.path)


def is_log_of_the_database(call: Call) -> bool:
    """The flush that makes a transaction last."""
    return call.name == "flush" and call.path.endswith(".db-wal")


def is_way_to_the_data(call: Call) -> bool:
    """The flush of a folder above the data directory."""
    return call.name == "flush" and DATA not in call.path


@pytest.mark.parametrize(
    ("forgotten", "problem"),
    [
        (is_name_of_a_blob, "can't be read"),
        (is_data_of_a_blob, "reads as"),
        (is_log_of_the_database, "can only be one of"),
        (is_way_to_the_data, "can only be one of"),
    ],
)
async def test_a_forgotten_flush_is_found(
    recording: Recording, forgotten: Callable[[Call], bool], problem: str
) -> None:
    """A server that leaves one kind of flush out is seen to lose something it acknowledged."""
    chosen = cuts(recording, random.Random(4), mixtures=0, share=0.02, left_out=forgotten)

    async with aclosing(failures(recording, reversed(list(chosen)))) as found:
        assert problem in await anext(found)
