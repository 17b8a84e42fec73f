"""A registry in a process of its own, which can be killed: ``python -m tests.integration.mortal_registry PORT HOW``.

HOW is ``stalls``: blobs end after their beginning without an end, for as long as it lives; or ``behaves``.
"""

import asyncio
import sys

from roadstead.testing.images import make_image
from roadstead.testing.scripted_upstream import scripted_upstream, stalls

NAME = "team/mortal"
IMAGE = make_image(layers=1, size=3_000_000, seed="mortal")
BEGINNING = 1_000_000


async def main(port: int, how: str) -> None:
    """Serve until somebody ends it."""
    async with scripted_upstream(port=port) as upstream:
        upstream.hold(NAME, IMAGE, "1")
        if how == "stalls":
            upstream.will("GET", "/blobs/", *[stalls(BEGINNING, 600)] * 100)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
