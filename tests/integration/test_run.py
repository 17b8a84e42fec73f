"""How a test run treats soak tests and missing programs, shown by runs of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TESTS = """
import pytest
from roadstead.testing.components import require

@pytest.mark.soak
def test_for_hours():
    pass

def test_with_a_program():
    require("moonbeam", install="apt-get install moonbeam")
"""


def run(folder: Path, *arguments: str, ci: bool) -> str:
    """Run pytest over `TESTS` with the project's conftest and settings; return what it printed."""
    (folder / "conftest.py").write_bytes((ROOT / "tests" / "conftest.py").read_bytes())
    (folder / "test_made_up.py").write_text(TESTS)
    settings = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), "-p", "no:cacheprovider"]
    # A run without a folder of its own tidies up after all earlier ones, which may take minutes.
    settings += ["--basetemp", str(folder / "temporary")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *settings, *arguments, str(folder)],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        | {"CI": "true" if ci else "", "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "120"},
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("processes", ["0", "1"])
def test_a_missing_program_is_named_on_a_persons_machine(tmp_path: Path, processes: str) -> None:
    """Outside of CI the test is skipped, and the summary names the program and its command; soak tests are left out."""
    printed = run(tmp_path, "-n", processes, ci=False)

    assert "1 skipped" in printed
    assert "moonbeam: apt-get install moonbeam" in printed.splitlines()
    assert "soak tests deselected: 1; `make soak` runs them" in printed.splitlines()


def test_a_missing_program_fails_in_ci(tmp_path: Path) -> None:
    """With ``CI=true`` the test fails, and pytest's count is the last line."""
    printed = run(tmp_path, "-n", "1", ci=True)

    assert "moonbeam: apt-get install moonbeam" in printed.splitlines()
    assert "1 failed" in printed.splitlines()[-1]


def test_soak_tests_are_run_when_asked_for(tmp_path: Path) -> None:
    """``-m soak`` runs them and nothing else."""
    printed = run(tmp_path, "-m", "soak", ci=True)

    assert "1 passed, 1 deselected" in printed
