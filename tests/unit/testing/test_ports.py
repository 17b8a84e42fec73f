"""Ports for the servers of tests."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from roadstead.testing.ports import PORTS, free_port

ASK_FOR_SOME = "from roadstead.testing.ports import free_port\nfor _ in range(300): print(free_port())"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files where nobody has asked for a port."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def the_last_was(temporary: Path, port: int) -> None:
    """Let the next ask be answered from behind *port* on."""
    (temporary / f"roadstead-test-ports-{os.getuid()}").write_text(str(port))


def test_no_two_processes_are_given_the_same(tmp_path: Path) -> None:
    """Nobody listens yet on any of them: what was given once is passed over all the same."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", ASK_FOR_SOME]
    asking = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)]

    given = [int(port) for process in asking for port in process.communicate(timeout=60)[0].split()]

    assert len(given) == len(set(given)) == 1200
    assert set(given) <= set(PORTS)


@pytest.mark.parametrize("address", ["127.0.0.1", ""])
def test_where_something_listens_is_passed_over(temporary: Path, address: str) -> None:
    """On one address or on all."""
    taken = free_port()
    the_last_was(temporary, taken - 1)
    with socket.create_server((address, taken)):
        assert free_port() != taken


def test_after_the_last_comes_the_first(temporary: Path) -> None:
    """Ports of servers that have ended are given again."""
    the_last_was(temporary, PORTS.stop - 1)
    assert free_port() < PORTS.start + 1000
