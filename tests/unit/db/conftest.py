"""What tests of SQLite begin with."""

from pathlib import Path

import pytest

from roadstead.db.sqlite import migrate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A migrated database."""
    path = tmp_path / "roadstead.db"
    migrate(path)
    return path
