"""``python -m tests.soak.measured COMMAND…``: the roadstead command, and the most memory it had, in KiB, on stderr.

Not ``ru_maxrss``: that counts the memory of the process that started this one, too.
"""

import re
import sys
from pathlib import Path

from roadstead.cli.main import app


def main() -> None:
    """Run the command of the arguments; the last line of standard error is the number."""
    try:
        app(sys.argv[1:])
    finally:
        status = Path("/proc/self/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        print(found[1], file=sys.stderr)


if __name__ == "__main__":
    main()
