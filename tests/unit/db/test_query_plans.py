"""How SQLite finds what the hot reads ask for: ranges of an index, whatever the size of the tables."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.dialects.sqlite.pysqlite import dialect as sqlite_dialect

from roadstead.db.access import Query
from roadstead.db.sqlite import connect_for_reading, migrate
from roadstead.db.stores import accounts, acts, blobs, catalog, derivations, instance, manifests, outbox, uploads, usage
from roadstead.events.ports import LetterState

QUERIES = {
    f"{module.__name__.rpartition('.')[2]}.{name}": query
    for module in (manifests, catalog, blobs, uploads, derivations, instance)
    for name, query in vars(module).items()
    if isinstance(query, Query)
}
PAGES = (
    "catalog.TAGS",
    "catalog.REPOSITORIES",
    "catalog.REFERRERS",
    "catalog.REFERRERS_OF_TYPE",
    "catalog.TAG_CHANGES",
)
STATEMENTS = {
    "a push looks at its tag": manifests._TAG_NOW.statement,
    "a delete takes the tags along": manifests._REMOVE_TAGS_AT,
    "a delete asks what came of the manifest": manifests._DERIVED_FROM,
    "a delete asks what a derived manifest came of": manifests._SOURCES_OF,
    "the last repository takes the bytes along": manifests._REMOVE_CONTENT,
    "a mount asks who has the blob": blobs._HELD_BY_ANY,
}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection to an empty database."""
    path = tmp_path / "roadstead.db"
    migrate(path)
    with closing(connect_for_reading(path)) as connection:
        yield connection


def plan(connection: sqlite3.Connection, text: str) -> list[str]:
    """Return the steps of SQLite's plan."""
    arguments = ("1",) * len(re.findall(r"\?", text))
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", arguments)]


@pytest.mark.parametrize("name", sorted(QUERIES))
def test_reads_search_an_index(connection: sqlite3.Connection, name: str) -> None:
    """No table is read through, and nothing is sorted."""
    steps = plan(connection, QUERIES[name].sqlite.text)

    assert steps
    assert [step for step in steps if step.startswith("SCAN") or "B-TREE" in step] == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_a_range_of_one_index(connection: sqlite3.Connection, name: str) -> None:
    """The page's own table is searched by everything that selects it, the place where it begins included."""
    search = plan(connection, QUERIES[name].sqlite.text)[0]

    assert re.search(r"USING (COVERING )?INDEX|USING PRIMARY KEY", search), search
    assert re.search(r"\b(name|sort_key|digest|id)[<>]\?", search), search


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (("before",), "ix_acts_at"),
        (("by",), "ix_acts_by"),
        (("by", "before"), "ix_acts_by"),
        (("kind",), "ix_acts_kind"),
        (("by", "since"), "ix_acts_by"),
        (("since", "before"), "ix_acts_at"),
        (("by", "kind", "since"), "ix_acts_"),
    ],
)
def test_the_audit_log_is_searched_by_what_is_asked(
    connection: sqlite3.Connection, wanted: tuple[str, ...], index: str
) -> None:
    """A year of refusals isn't read to find what one administrator did, nor one day's lines."""
    steps = plan(connection, acts.lines_query(*wanted).sqlite.text)

    assert index in steps[0]
    assert [step for step in steps if step.startswith("SCAN") or "B-TREE" in step] == []
    assert "since" not in wanted or "at>?" in steps[0]


def test_a_repositorys_size_is_a_sum_of_its_own_blobs(connection: sqlite3.Connection) -> None:
    """Not of all whose names begin as its own does."""
    steps = plan(connection, usage.BYTES_OF.sqlite.text)

    assert [step for step in steps if step.startswith("SCAN") or "<" in step] == []


def test_open_sessions_are_found_by_when_they_took_something_in(connection: sqlite3.Connection) -> None:
    """A week of those that were left isn't read."""
    steps = plan(connection, usage.OPEN_UPLOADS.sqlite.text)

    assert "ix_uploads_touched" in steps[0]
    assert "touched_at>?" in steps[0]


@pytest.mark.parametrize("query", [accounts.ACCOUNTS, accounts.ALL_KEYS])
def test_a_page_of_accounts_begins_behind_the_one_before(connection: sqlite3.Connection, query: Query) -> None:
    """In the order of the index."""
    steps = plan(connection, query.sqlite.text)

    assert re.search(r"\b(name|key_id)>\?", steps[0]), steps
    assert [step for step in steps if "B-TREE" in step] == []


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_writes_search_an_index(connection: sqlite3.Connection, name: str) -> None:
    """What a write looks at inside its transaction is found as quickly."""
    text = str(STATEMENTS[name].compile(dialect=sqlite_dialect()))

    assert [step for step in plan(connection, text) if step.startswith("SCAN")] == []


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (outbox.DUE, "ix_outbox_pending"),
        (outbox.NEXT_DUE, "ix_outbox_held"),
        (outbox.PENDING, "ix_outbox_pending"),
        (outbox.letters_query(None, of_endpoint=False), "PRIMARY KEY"),
        (outbox.letters_query(None, of_endpoint=True), "PRIMARY KEY"),
        (outbox.letters_query(LetterState.PENDING, of_endpoint=True), "ix_outbox_pending"),
        (outbox.letters_query(LetterState.DEAD, of_endpoint=False), "ix_outbox_dead"),
        (outbox.letters_query(LetterState.DEAD, of_endpoint=True), "ix_outbox_dead"),
    ],
)
def test_the_outbox_is_looked_into_by_what_waits(connection: sqlite3.Connection, query: Query, index: str) -> None:
    """What was delivered, a week of it, isn't read to find what wasn't, and nothing is sorted."""
    steps = plan(connection, query.sqlite.text)

    assert index in steps[0]
    assert [step for step in steps if "B-TREE" in step] == []
