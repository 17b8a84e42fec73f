"""Statements of intentions as text on SQLite: the same rows as SQLAlchemy gives."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import Boolean, Column, Connection, Integer, MetaData, Table, Text, bindparam, select, update

from roadstead.db.access import Step, Upsert
from roadstead.db.sqlite import engine_over

things = Table("things", MetaData(), Column("name", Text, primary_key=True), Column("size", Integer),
               Column("good", Boolean))  # fmt: skip

MAKE = Step(
    Upsert(things, lambda insert: insert.on_conflict_do_nothing(index_elements=["name"]).returning(things.c.size))
)
AMONG = Step(
    select(things.c.name, things.c.size)
    .where(
        things.c.size > bindparam("more_than"),
        things.c.name.in_(bindparam("names", expanding=True)),
        things.c.good.is_(True),
    )
    .order_by(things.c.name)
)
GROW = Step(update(things).where(things.c.name == bindparam("of")).values(size=things.c.size + 1))


@pytest.fixture
def connection() -> Iterator[Connection]:
    driver = sqlite3.connect(":memory:", isolation_level=None)
    with closing(driver), engine_over(driver).connect() as connection:
        things.create(connection)
        yield connection


def test_a_row_is_made_once(connection: Connection) -> None:
    """What RETURNING gives is the first row; where nothing was made there is none."""
    thing = {"name": "a", "size": 1, "good": True}

    assert MAKE.one(connection, thing) == 1
    assert MAKE.first(connection, thing) is None
    assert connection.execute(select(things)).all() == [("a", 1, True)]


def test_lists_of_any_length(connection: Connection) -> None:
    """One value, several, or none stand in the list; other values stay at their places."""
    MAKE.each(connection, [{"name": name, "size": size, "good": True} for size, name in enumerate("abcd")])
    MAKE.each(connection, [])

    for names in (["b"], ["a", "b", "c"], ["c", "d", "x"], [], ["b"]):
        expected = [(name, "abcd".index(name)) for name in names if name in "bcd"]
        assert AMONG.rows(connection, {"more_than": 0, "names": names}) == expected


def test_changes_are_counted(connection: Connection) -> None:
    """In the transaction that is open, whoever has begun it."""
    MAKE.each(connection, [{"name": "a", "size": 1, "good": False}])

    assert GROW.count(connection, {"of": "a"}) == 1
    assert GROW.count(connection, {"of": "b"}) == 0
    assert connection.execute(select(things.c.size)).scalar_one() == 2
