"""Bringing a database to this release's schema is one transaction."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from roadstead.db.errors import StoreFailedError
from roadstead.db.sqlite import migrate


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Where one table can't be made, none is: a server killed in its first start can start again."""
    path = tmp_path / "roadstead.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE uploads (somebody_elses INTEGER)")

    with pytest.raises(StoreFailedError, match="uploads already exists"):
        migrate(path)

    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    assert tables == [("uploads",)]
