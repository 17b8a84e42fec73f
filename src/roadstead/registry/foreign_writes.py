"""Somebody else's writes in the tree, seen by the times of its folders.

Distribution knows no locks, so nothing keeps it from writing beside us; but it leaves traces: every upload changes its
repository's ``_uploads``, which we never make, and every manifest, blob or tag that is new changes a folder's time
behind the last link that we wrote. What it changes without making anything new (a tag that goes back to a manifest of
before) leaves no such trace.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

from roadstead.registry.tree import Tree
from roadstead.storage import keys
from roadstead.storage.ports import Driver, Key, OpensFile

_TRACES = ("_uploads", "_layers/sha256", "_manifests/tags", "_manifests/revisions/sha256")
_NAMED = 10


async def repositories_written_since(driver: Driver, moment: datetime) -> Sequence[str]:
    """Return some of the repositories that were changed since; empty where the storage keeps no times of folders."""
    if not isinstance(driver, OpensFile):
        return ()
    changed: list[str] = []
    async with aclosing(Tree(driver).repositories()) as found:
        async for name, _ in found:
            folder = driver.path(Key(f"{keys.REPOSITORIES}{name}"))
            if await asyncio.to_thread(_changed_since, folder, moment):
                changed.append(name)
            if len(changed) == _NAMED:
                break
    return changed


def _changed_since(folder: Path, moment: datetime) -> bool:
    return any(_modified(folder / trace) > moment for trace in _TRACES)


def _modified(folder: Path) -> datetime:
    try:
        return datetime.fromtimestamp(folder.stat().st_mtime, UTC)
    except OSError:
        return datetime.min.replace(tzinfo=UTC)
