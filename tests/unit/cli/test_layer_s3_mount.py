"""`roadstead layer s3-mount`: what it refuses, before and after it has looked into packages."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from roadstead.cli.layer import app

RUNNER = CliRunner()


def _refused(*words: str) -> tuple[int, str]:
    result = RUNNER.invoke(app, ["s3-mount", *words])
    assert result.stdout == ""
    return result.exit_code, result.stderr


def test_wrong_usage(tmp_path: Path) -> None:
    """Status 2; each says what is wrong with what."""
    status, said = _refused("--output", str(tmp_path))
    assert (status, f"{tmp_path} is a directory" in said) == (2, True)

    status, said = _refused("--output", str(tmp_path / "x"), "--packages", str(tmp_path / "none"))
    assert (status, "none is not a directory" in said) == (2, True)

    assert _refused("--output", str(tmp_path / "x"), "--architecture", "s390x")[0] == 2


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "has a name that ends in .deb"),
        ({"s3fs.deb": b"no package"}, "s3fs.deb: it can't be read as a Debian package"),
    ],
)
def test_folders_without_packages(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    """Nothing is written, and an older layer stays."""
    folder, output = tmp_path / "packages", tmp_path / "s3-mount.tar.gz"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    output.write_bytes(b"older")

    status, words = _refused("--output", str(output), "--packages", str(folder))

    assert (status, said in words) == (1, True), words
    assert output.read_bytes() == b"older"
    assert sorted(tmp_path.iterdir()) == [folder, output]


def test_without_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another system than Debian the way without apt is named."""
    monkeypatch.setenv("PATH", str(tmp_path))

    status, words = _refused("--output", str(tmp_path / "x"))

    assert (status, "there is no apt-get here" in words, "--packages DIR" in words) == (1, True, True), words
