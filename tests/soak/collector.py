"""A collector in a process of its own, until it is killed: ``python -m tests.soak.collector DATA``.

Its clock is days ahead and runs, so that no lease protects anything and nothing waits.
"""

import asyncio
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from roadstead.db.engine import open_database
from roadstead.errors import UnavailableError
from roadstead.registry.gc import Collector, Policy, Untagged
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.testing.clock import FrozenClock


async def collect(data: Path) -> None:
    """Collect for ever."""
    clock = FrozenClock(datetime.now(UTC) + timedelta(days=10))
    database = await open_database(f"sqlite:///{data / 'roadstead.db'}", migrate=False)
    policy = Policy(untagged=Untagged.DELETE, untagged_after=timedelta(0), stray_after=timedelta(0))
    collector = Collector(database.collection, database.catalog, FilesystemDriver(data), clock, policy)
    while True:
        with suppress(UnavailableError):
            await collector.sweep()
            await collector.run()
        clock.advance(timedelta(minutes=2))


if __name__ == "__main__":
    asyncio.run(collect(Path(sys.argv[1])))
