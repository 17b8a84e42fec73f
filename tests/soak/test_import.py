"""A large tree is taken up at a steady rate and in flat memory; prints both."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from tests.integration.adoption import ask, inodes, push, references

from roadstead.testing.client import Client
from roadstead.testing.images import make_image
from roadstead.testing.registry_peer import open_registry_peer

MANIFESTS = 5_000
REPOSITORIES = 50
PUSHERS = 4

_IMPORT = """
import json, resource, sys
from roadstead.cli.main import app
try:
    app(["import", *sys.argv[1:], "--json"])
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def fill(host: str, numbers: range) -> None:
    """Push one small image for each number, to one repository after the other."""
    with closing(Client(host, timeout_s=120)) as client:
        for number in numbers:
            push(client, f"team/app{number % REPOSITORIES}", make_image(seed=str(number), size=64), f"v{number}")


def run(root: Path) -> tuple[dict, float, int]:
    """Import, and return the report, how long it took, and the most memory in KiB."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT, str(root)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout), time.monotonic() - started, int(done.stderr.split()[-1])


@pytest.mark.soak
def test_a_large_tree_is_taken_up(tmp_path: Path) -> None:
    """Five thousand manifests by the real docker-registry; memory doesn't grow with them."""
    root = tmp_path / "root"
    with open_registry_peer(root) as peer:
        with ThreadPoolExecutor(PUSHERS) as pool:
            small = range(MANIFESTS // 10)
            list(pool.map(lambda start: fill(peer.host, small[start::PUSHERS]), range(PUSHERS)))
            _, _, small_kib = run(root)
            rest = range(MANIFESTS // 10, MANIFESTS)
            list(pool.map(lambda start: fill(peer.host, rest[start::PUSHERS]), range(PUSHERS)))
        sample = references(root)[:: MANIFESTS // 100]
        theirs = ask(peer.host, sample)
    for path in root.glob("roadstead.db*"):
        path.unlink()
    before = inodes(root)

    report, seconds, kib = run(root)
    again, again_seconds, _ = run(root)

    print(
        f"\n{report['manifests']} manifests, {report['layer_links']} links to layers, {report['tags']} tags and "
        f"{report['blobs']} blobs in {seconds:.1f} s ({report['manifests'] / seconds:.0f} manifests/s), "
        f"again in {again_seconds:.1f} s; {kib / 1024:.0f} MiB, {small_kib / 1024:.0f} MiB for a tenth"
    )
    assert report["manifests"] == again["manifests"] == MANIFESTS
    assert report["findings"] == []
    assert {answer[0] for answer in theirs.values()} == {200}
    assert inodes(root) == before
    assert kib < small_kib + 32 * 1024
