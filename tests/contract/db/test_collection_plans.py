"""How SQLite finds what collection and checking ask for: one look-up each, however many rows a repository has."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.dialects import sqlite

from roadstead.db.access import Query
from roadstead.db.stores import audit, collection, immutable

QUERIES = {
    name: query for module in (audit, collection) for name, query in vars(module).items() if isinstance(query, Query)
}
WRITES = {
    "condemn": collection._CONDEMN,
    "unlink": collection._UNLINK_IDLE,
    "take": collection._REVIVE_NEEDED,
    "idle manifest": collection._IDLE_MANIFEST,
    "used by": immutable._USED_BY,
    "tags at": immutable._TAGS_AT,
}


@pytest.fixture
def connection(migrated_sqlite: Path) -> sqlite3.Connection:
    """An empty database: SQLite plans without statistics, as it does in service."""
    return sqlite3.connect(f"file:{migrated_sqlite}?mode=ro&immutable=1", uri=True)


def plan(connection: sqlite3.Connection, text: str) -> list[str]:
    """Return the steps that SQLite would take."""
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", ["x"] * text.count("?"))]


@pytest.mark.parametrize("name", QUERIES)
def test_queries(connection: sqlite3.Connection, name: str) -> None:
    """No step reads a table, or all that one repository has."""
    steps = plan(connection, QUERIES[name].sqlite.text)
    connection.close()

    assert not [step for step in steps if step.startswith("SCAN") or step.endswith("(repository_id=?)")]


@pytest.mark.parametrize("name", WRITES)
def test_writes(connection: sqlite3.Connection, name: str) -> None:
    """As above."""
    compiled = WRITES[name].compile(dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": False})
    text = str(compiled).replace("(__[POSTCOMPILE_digests])", "(?, ?)")
    steps = plan(connection, text)
    connection.close()

    assert not [step for step in steps if step.startswith("SCAN") or step.endswith("(repository_id=?)")]
