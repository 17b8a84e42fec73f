"""The unit of the page about the service is one that systemd takes."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import typer

from roadstead.cli.main import app
from roadstead.testing.components import require

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "install-as-a-service.md"


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds no unknown key, no value that can't be and no missing program."""
    analyze = require("systemd-analyze", install="apt-get install systemd")
    [unit] = re.findall(r"^```ini\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    file = tmp_path / "roadstead.service"
    file.write_text(unit.replace("/opt/roadstead/bin/roadstead", sys.executable))

    done = subprocess.run(
        [analyze, "verify", "--man=no", file], check=False, capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, [line for line in done.stderr.splitlines() if file.name in line]) == (0, [])


def test_the_unit_starts_what_is_installed() -> None:
    """Its command is one of ours, with the settings that the page writes."""
    [line] = re.findall(r"^ExecStart=(.*)$", PAGE.read_text(), re.MULTILINE)
    program, command, settings = shlex.split(line)

    assert program == "/opt/roadstead/bin/roadstead"
    assert command in typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert PAGE.read_text().count(settings) > 1


def test_its_commands_get_the_environment_of_the_unit() -> None:
    """The one that systemd runs has the unit's user and file of variables, and is one of ours with its settings."""
    [line] = re.findall(r"^(systemd-run .*?[^\\\\])$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    words = shlex.split(line)
    at = words.index("/opt/roadstead/bin/roadstead")
    [variables] = re.findall(r"^EnvironmentFile=-(.*)$", PAGE.read_text(), re.MULTILINE)
    [user] = re.findall(r"^User=(.*)$", PAGE.read_text(), re.MULTILINE)

    assert {f"--uid={user}", f"--property=EnvironmentFile={variables}"} <= set(words[1:at])
    assert words[at + 1] in typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert words[-1] == "/etc/roadstead/roadstead.toml"
