"""``gc``, ``verify`` and ``tag``: what they say of wrong arguments and of data that isn't there."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from roadstead.cli.existing import DataMissingError
from roadstead.cli.main import app
from roadstead.cli.tag import parse_moment


@pytest.mark.parametrize(
    "command",
    [["gc"], ["gc", "--dry-run"], ["verify"], ["tag", "history", "a:1"], ["tag", "restore", "a:1"]],
    ids=" ".join,
)
def test_a_missing_data_directory_is_told(tmp_path: Path, command: Sequence[str]) -> None:
    """And not made."""
    missing = tmp_path / "nothere"

    done = CliRunner().invoke(app, [*command, "--data", str(missing)])

    assert isinstance(done.exception, DataMissingError)
    assert str(done.exception) == f"there is no data directory at {missing}"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["restore", "team/app:1", "--at", "yesterday"], "write it like 2026-11-22T08:00:00Z"),
        (["restore", "team/app:1", "--at", "2026-13-01"], "write it like 2026-11-22T08:00:00Z"),
        (["history", "localhost:5000/team/app:1"], "leave it out, team/app:1"),
        (["history", "localhost:5000/team/app"], "has no tag"),
        (["history", "team/app"], "has no tag"),
    ],
)
def test_wrong_arguments_of_tag(monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], told: str) -> None:
    """Each says what to write instead, and is wrong usage."""
    monkeypatch.setenv("COLUMNS", "200")

    done = CliRunner().invoke(app, ["tag", *arguments])

    assert done.exit_code == 2
    assert told in " ".join(done.output.replace("\u2502", " ").split())


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
        ("2026-11-22T08:00", datetime(2026, 11, 22, 8, tzinfo=UTC)),
        ("2026-11-22 08:00:00", datetime(2026, 11, 22, 8, tzinfo=UTC)),
        ("2026-11-22T08:00:00Z", datetime(2026, 11, 22, 8, tzinfo=UTC)),
        ("2026-11-22T08:00:00+02:00", datetime(2026, 11, 22, 6, tzinfo=UTC)),
        ("2026-11-22 08:00:00.250001", datetime(2026, 11, 22, 8, 0, 0, 250001, tzinfo=UTC)),
        ("2026-11-22t08.00.00.250001z", datetime(2026, 11, 22, 8, 0, 0, 250001, tzinfo=UTC)),
        ("2026-11-22t08.00z", datetime(2026, 11, 22, 8, tzinfo=UTC)),
    ],
)
def test_moments(text: str, moment: datetime) -> None:
    """UTC unless another zone is said."""
    assert parse_moment(text) == moment
