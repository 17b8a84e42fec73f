"""One process of several that stage one upload: reads a request a line from standard input, answers with a line.

Requests are JSON: ``{"at": [size, state], "hash": hex or null, "start": …, "end": …, "checkpoint": true}``; the
answer to one without a checkpoint comes while the handle is still open.
"""

import asyncio
import json
import sys
from pathlib import Path

from roadstead.secret import Secret
from roadstead.storage.drivers.filesystem import FilesystemDriver
from roadstead.storage.drivers.s3 import S3Driver
from roadstead.storage.hashing import ResumableHasher
from roadstead.storage.ports import Driver, Staged
from roadstead.testing.contracts.driver import UPLOAD, sample


def open_driver(kind: str, options: dict[str, str]) -> Driver:
    if kind == "filesystem":
        return FilesystemDriver(Path(options["root"]))
    return S3Driver(
        options["bucket"],
        prefix=options["prefix"],
        region=options["region"],
        endpoint=options["endpoint"],
        access_key=options["access_key"],
        secret_key=Secret(options["secret_key"]),
        part_size=5 << 20,
    )


async def main() -> None:
    driver = open_driver(sys.argv[1], json.loads(sys.argv[2]))
    for line in sys.stdin:
        request = json.loads(line)
        state = None if request["hash"] is None else bytes.fromhex(request["hash"])
        hasher = ResumableHasher(state=state, size=request["at"][0])
        async with driver.stage(UPLOAD, Staged(*request["at"])) as handle:
            await handle.append(sample(request["end"])[request["start"] :], hasher)
            if not request["checkpoint"]:
                print("appended", flush=True)
                sys.stdin.readline()
            at = await handle.checkpoint()
        exported = hasher.export_state()
        answer = {
            "at": [at.size, at.state],
            "hash": None if exported is None else exported.hex(),
            "digest": str(hasher.digest()),
        }
        print(json.dumps(answer), flush=True)
    await driver.close()


asyncio.run(main())
