"""`roadstead layer pack`: JSON on standard output, notes and errors on standard error, all or nothing on disk."""

import gzip
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from roadstead.cli.layer import app
from roadstead.oci.digest import Digest

RUNNER = CliRunner()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory to pack."""
    directory = tmp_path / "tree"
    (directory / "bin").mkdir(parents=True)
    (directory / "bin/hi").write_text("#!/bin/sh\necho hi\n")
    (directory / "bin/hi").chmod(0o755)
    (directory / "note.txt").write_text("hello\n")
    return directory


def test_a_directory_becomes_a_layer(tree: Path, tmp_path: Path) -> None:
    """Standard output is the layer's JSON and nothing else; it tells the truth about the file."""
    output = tmp_path / "out.tar.gz"

    result = RUNNER.invoke(app, ["pack", str(tree), "--output", str(output)])

    assert result.exit_code == 0, result.stderr
    raw = output.read_bytes()
    assert json.loads(result.stdout) == {
        "location": str(output),
        "gzipDigest": str(Digest.of(raw)),
        "gzipSize": len(raw),
        "tarDigest": str(Digest.of(gzip.decompress(raw))),
    }
    assert str(output) in result.stderr
    with tarfile.open(output) as archive:
        assert archive.getnames() == ["bin", "bin/hi", "note.txt"]
        assert archive.getmember("bin/hi").mode == 0o755
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.tar.gz", "tree"]


def test_packing_again_gives_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    """What is there is replaced, by the same: times don't matter."""
    output = tmp_path / "out.tar.gz"
    RUNNER.invoke(app, ["pack", str(tree), "-o", str(output)])
    before = output.read_bytes()
    (tree / "note.txt").touch()

    result = RUNNER.invoke(app, ["pack", str(tree), "-o", str(output)])

    assert result.exit_code == 0
    assert output.read_bytes() == before


@pytest.mark.parametrize("output", ["out.tar.gz", "./out.tar.gz", "tree/../out.tar.gz"])
def test_the_location_is_as_given(tree: Path, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the letter: a relative output stays relative, for it is read beside the file that names it."""
    monkeypatch.chdir(tree.parent)

    result = RUNNER.invoke(app, ["pack", "tree", "--output", output])

    assert json.loads(result.stdout)["location"] == output
    assert Path(output).is_file()


@pytest.mark.parametrize("output", ["tree/out.tar.gz", "tree/bin/out.tar.gz", "link/out.tar.gz", "tree"])
def test_the_output_may_not_lie_in_what_is_packed(
    tree: Path, tmp_path: Path, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not through a link; that is wrong usage, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("tree")

    result = RUNNER.invoke(app, ["pack", "tree", "--output", output])

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert sorted(path.name for path in tree.rglob("*")) == ["bin", "hi", "note.txt"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["pack", "missing", "--output", "o.tar.gz"], 1, "missing is not there"),
        (["pack", "tree/note.txt", "--output", "o.tar.gz"], 1, "not a directory"),
        (["pack", "tree", "--output", "none/o.tar.gz"], 1, "can't be written"),
        (["pack", "tree", "--output", "other"], 2, "is a directory"),
        (["pack", "tree"], 2, "--output"),
        (["pack"], 2, "DIR"),
    ],
)
def test_what_goes_wrong_is_said(
    tree: Path, tmp_path: Path, arguments: list[str], status: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 failed, 2 wrong usage; nothing on standard output, nothing left behind."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()

    result = RUNNER.invoke(app, arguments)

    assert (result.exit_code, result.stdout) == (status, "")
    assert said in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", tree.name]


def test_a_failure_leaves_what_was_there(tree: Path, tmp_path: Path) -> None:
    """A tree that can't be packed doesn't cost the layer of yesterday, nor leave half a file."""
    output = tmp_path / "out.tar.gz"
    output.write_bytes(b"yesterday")
    subprocess.run(["mkfifo", str(tree / "pipe")], check=True)

    result = RUNNER.invoke(app, ["pack", str(tree), "--output", str(output)])

    assert result.exit_code == 1
    assert "pipe" in result.stderr
    assert output.read_bytes() == b"yesterday"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.tar.gz", "tree"]


def test_help_shows_an_example() -> None:
    """Somebody who only has the help can go on."""
    result = RUNNER.invoke(app, ["pack", "--help"])

    assert result.exit_code == 0
    assert "roadstead layer pack ./site" in result.stdout


def test_it_runs_as_a_program(tree: Path, tmp_path: Path) -> None:
    """In a process of its own: status 0, JSON through a pipe."""
    output = tmp_path / "out.tar.gz"
    program = "from roadstead.cli.layer import app; app()"

    result = subprocess.run(
        [sys.executable, "-c", program, "pack", str(tree), "--output", str(output)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
    )

    assert (result.returncode, json.loads(result.stdout)["location"]) == (0, str(output))
