"""Who runs a command, as the audit log names them."""

import getpass
import os
import socket

from roadstead.acts import Asked
from roadstead.clock import SystemClock


def asked() -> Asked:
    """Return the account of the machine that runs the command (``shell:root``), and the machine's name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's number without a name
        name = str(os.getuid())
    return Asked(f"shell:{name}", SystemClock().now(), socket.gethostname())
