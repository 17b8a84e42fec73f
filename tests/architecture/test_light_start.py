"""What a server without TLS, tokens and secrets in AWS never loads: each would cost its start a good while."""

import subprocess
import sys

HEAVY = ("cryptography", "joserfc", "botocore", "moto", "litestar")
PROGRAM = f"""
import sys
import roadstead.cli.serve, roadstead.worker
from roadstead.app import applications, upkeep
print(",".join(sorted({{name.partition(".")[0] for name in sys.modules}} & set({HEAVY!r}))))
"""


def test_the_default_start_loads_no_library_for_what_is_not_asked() -> None:
    """The modules of the supervisor and the workers are there without the libraries of optional parts."""
    loaded = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)

    assert loaded.stdout.strip() == ""
