"""A collector that is told when it is: ``python -m tests.integration.collector_process DATABASE DATA``.

For each moment on a line of standard input it does a whole collection: what it finds unneeded it condemns, and a while
later, by its own clock, it removes that.
"""

import asyncio
import sys
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from roadstead.db.engine import open_database
from roadstead.errors import UnavailableError
from roadstead.registry.gc import CONDEMNED_FOR, Collector, Policy, Untagged
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.testing.clock import FrozenClock

NEVER = timedelta(days=3650)  # every blob would be a step: what has no row is looked for elsewhere


async def serve(database_url: str, data: Path) -> None:
    """Collect whenever a line comes, until none does."""
    database = await open_database(database_url, migrate=False, pool_size=4)
    driver = FilesystemDriver(data)
    policy = Policy(untagged=Untagged.DELETE, untagged_after=CONDEMNED_FOR, stray_after=NEVER)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    _tell("ready")
    while line := await asyncio.to_thread(sys.stdin.readline):
        clock = FrozenClock(datetime.fromisoformat(line.strip()))
        collector = Collector(database.collection, database.catalog, driver, clock, policy)
        try:
            await collector.sweep()
            await collector.run()
            clock.advance(CONDEMNED_FOR)
            await collector.run()
        except UnavailableError:
            _tell("busy")
        else:
            _tell("done")
    await database.close()
    await driver.close()


def _tell(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
