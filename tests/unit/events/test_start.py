"""What events cost those who have no endpoint."""

import subprocess
import sys


def test_nobody_loads_the_http_client_for_nothing() -> None:
    """A worker and the background process start without it; it is imported where the first endpoint is opened."""
    code = (
        "import sys, roadstead.app.applications, roadstead.app.upkeep\n"
        "print([name for name in ('aiohttp', 'yarl', 'roadstead.events.sinks.webhook') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.strip() == "[]"
