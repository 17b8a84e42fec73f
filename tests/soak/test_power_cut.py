"""Every disk that a power cut can leave, at every call: see ``tests/integration/test_power_cut.py`` for the short form.

SOAK_CUTS is the share of calls that are looked at (default 0.05), SOAK_ROUNDS how often the
clients' script is run while recording (default 4: enough that the database folds its log into its file).
"""

import os
import random
from itertools import chain
from pathlib import Path

import pytest
from tests.soak.audit import resume, served
from tests.soak.power_cuts import DATA, cuts, first_start, look_at, memory_folder, record, record_collection, told

from roadstead.testing.server import RoadsteadServer

SHARE = float(os.environ.get("SOAK_CUTS", "0.05"))
ROUNDS = int(os.environ.get("SOAK_ROUNDS", "4"))
MIXTURES = int(os.environ.get("SOAK_MIXTURES", "6"))


@pytest.mark.soak
async def test_no_power_cut_loses_what_was_acknowledged(tmp_path: Path) -> None:
    """The real database and driver find everything acknowledged on every disk, and nothing half made."""
    recording = record(tmp_path, seed=7, rounds=ROUNDS)
    choice = random.Random(8)
    assert any(call.name == "flush" and call.path.endswith(".db") for call in recording.calls), "no checkpoint"
    looked_at = 0
    failures = []
    with memory_folder() as folder:
        for cut in chain(
            cuts(recording, choice, mixtures=MIXTURES, share=SHARE),
            first_start(recording, choice, mixtures=MIXTURES, share=4 * SHARE),
        ):
            looked_at += 1
            if problems := await look_at(cut, recording, folder / "disk"):
                failures.append(told(cut, problems))
    print(f"\n{looked_at} disks after power cuts in {len(recording.calls)} calls, {len(failures)} with problems")
    assert failures == []


@pytest.mark.soak
async def test_no_power_cut_during_collection_loses_what_was_acknowledged(tmp_path: Path) -> None:
    """What was condemned and pushed again stays; what was removed is removed, or can still be."""
    recording = record_collection(tmp_path)
    choice = random.Random(11)
    failures = []
    looked_at = 0
    with memory_folder() as folder:
        for cut in cuts(recording, choice, mixtures=MIXTURES, share=4 * SHARE):
            if cut.ready:
                looked_at += 1
                if problems := await look_at(cut, recording, folder / "disk"):
                    failures.append(told(cut, problems))
    print(f"\n{looked_at} disks after power cuts during collection, {len(failures)} with problems")
    assert failures == []


@pytest.mark.soak
def test_the_server_starts_from_disks_after_power_cuts(tmp_path: Path) -> None:
    """The whole server is ready, serves everything acknowledged, and lets uploads go on where they durably stand."""
    recording = record(tmp_path, seed=9)
    choice = random.Random(10)
    chosen = [cut for cut in cuts(recording, choice, mixtures=1, share=0.02) if cut.ready]
    for number, cut in enumerate(choice.sample(chosen, min(len(chosen), 10 * ROUNDS))):
        place = tmp_path / f"place-{number}"
        cut.state.write_to(place)
        ledger = recording.ledger.as_of(cut.at)
        config = f'[storage]\npath = "{place / DATA}"\n'
        with RoadsteadServer(tmp_path / f"server-{number}", config=config) as server:
            client = server.client()
            problems = served(client, ledger, cut.at) + resume(client, ledger, cut.at)
        assert problems == [], told(cut, problems)
