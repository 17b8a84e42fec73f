"""Immutable tags and tags that are put back, on SQLite and PostgreSQL."""

from tests.contract.db.test_collection_stores import OnPostgres, OnSqlite

from roadstead.testing.contracts.tag_rules import TagRulesContract


class TestOnSqlite(OnSqlite, TagRulesContract):
    """SQLite."""


class TestOnPostgres(OnPostgres, TagRulesContract):
    """PostgreSQL."""
