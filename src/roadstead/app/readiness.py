"""Whether this server may be sent requests: what ``/readyz`` asks, and what is asked before the first start."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from roadstead.db.engine import Database
from roadstead.errors import UnavailableError
from roadstead.storage import keys
from roadstead.storage.ports import Driver, Key, OpensFile, StorageUnavailableError

STORAGE_PATIENCE_S = 5.0
"""How long storage may take to answer whether it is there: probes wait about as long."""


class OutOfRotationError(UnavailableError):
    """A file is there that says not to send requests here."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path.name} exists, which takes this server out of rotation (server.down_files)")
        self.path = path


async def check(database: Database, driver: Driver, down_files: Sequence[Path]) -> None:
    """Raise what is in the way of serving."""
    for path in down_files:
        if path.exists():
            raise OutOfRotationError(path)
    await database.check()
    await check_storage(driver)


async def check_storage(driver: Driver) -> None:
    """Raise unless the storage answers: one listing of a folder that is nearly always empty."""
    if isinstance(driver, OpensFile) and not (folder := driver.path(Key(keys.TEMPORARY[:-1]))).is_dir():
        raise StorageUnavailableError(f"{folder} is gone: is the volume mounted?")
    try:
        async with asyncio.timeout(STORAGE_PATIENCE_S), aclosing(driver.iter_keys(keys.TEMPORARY)) as listing:
            async for _ in listing:
                break
    except TimeoutError as error:
        raise StorageUnavailableError(f"the storage didn't answer within {STORAGE_PATIENCE_S:g} s") from error
