"""Notes of links to be written into the tree, and the triggers that write these notes."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, PrimaryKeyConstraint, Text, text

revision = "0003"
down_revision = "0002"

BYTEWISE = Text().with_variant(Text(collation="C"), "postgresql")
NUMBER = BigInteger().with_variant(Integer(), "sqlite")

# (name, when, condition on the row, which row, kind, column of the name, column of the digest)
TRIGGERS = (
    ("tags_made", "INSERT ON tags", None, "NEW", "tag", "name", "digest"),
    ("tags_moved", "UPDATE OF digest ON tags", None, "NEW", "tag", "name", "digest"),
    ("tags_removed", "DELETE ON tags", None, "OLD", "tag", "name", None),
    ("manifests_made", "INSERT ON manifests", "NEW.derived = {false}", "NEW", "manifest", "digest", None),
    ("manifests_kept", "UPDATE OF derived ON manifests", "NEW.derived = {false}", "NEW", "manifest", "digest", None),
    ("manifests_removed", "DELETE ON manifests", "OLD.derived = {false}", "OLD", "manifest", "digest", None),
    ("layers_made", "INSERT ON repository_blobs", None, "NEW", "layer", "digest", None),
    ("layers_removed", "DELETE ON repository_blobs", None, "OLD", "layer", "digest", None),
)
IS_ON = "EXISTS (SELECT 1 FROM instance WHERE name = 'links')"


def upgrade() -> None:
    """Make table and triggers. An earlier release writes beside them without knowing."""
    op.create_table(
        "link_changes",
        Column("id", NUMBER, nullable=False),
        Column("repository_id", BigInteger(), nullable=False),
        Column("kind", Text(), nullable=False),
        Column("name", BYTEWISE, nullable=False),
        Column("digest", BYTEWISE),
        PrimaryKeyConstraint("id", name="pk_link_changes"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_link_changes_repository", "link_changes", ["repository_id", "id"])
    aliases = text("digest >= 'sha512:'")
    op.create_index("ix_blobs_aliases", "blobs", ["storage_key"], sqlite_where=aliases, postgresql_where=aliases)
    make = _make_on_postgresql if op.get_bind().dialect.name == "postgresql" else _make_on_sqlite
    for name, event, condition, row, kind, named, digest in TRIGGERS:
        values = f"{row}.repository_id, '{kind}', {row}.{named}, {f'{row}.{digest}' if digest else 'NULL'}"
        make(f"note_{name}", event, condition, f"INSERT INTO link_changes (repository_id, kind, name, digest) "
             f"SELECT {values} WHERE {IS_ON}")  # fmt: skip


def _make_on_sqlite(name: str, event: str, condition: str | None, note: str) -> None:
    when = f"WHEN {condition.format(false='0')}" if condition else ""
    op.execute(f"CREATE TRIGGER {name} AFTER {event} FOR EACH ROW {when} BEGIN {note}; END")


def _make_on_postgresql(name: str, event: str, condition: str | None, note: str) -> None:
    when = f"WHEN ({condition.format(false='false')})" if condition else ""
    op.execute(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {note}; RETURN NULL; END $$")
    op.execute(f"CREATE TRIGGER {name} AFTER {event} FOR EACH ROW {when} EXECUTE FUNCTION {name}()")
