"""When tags of upstreams were asked for, and when their manifests were pulled."""

from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, PrimaryKeyConstraint, Text

revision = "0008"
down_revision = "0007"

BYTEWISE = Text().with_variant(Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables. An earlier release doesn't look at them."""
    op.create_table(
        "upstream_tags",
        Column("repository_id", BigInteger(), nullable=False),
        Column("name", BYTEWISE, nullable=False),
        Column("checked_at", BigInteger(), nullable=False),
        PrimaryKeyConstraint("repository_id", "name", name="pk_upstream_tags"),
        ForeignKeyConstraint(
            ["repository_id", "name"],
            ["tags.repository_id", "tags.name"],
            name="fk_upstream_tags_repository_id_name_tags",
            ondelete="CASCADE",
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "upstream_pulls",
        Column("repository_id", BigInteger(), nullable=False),
        Column("digest", BYTEWISE, nullable=False),
        Column("pulled_at", BigInteger(), nullable=False),
        PrimaryKeyConstraint("repository_id", "digest", name="pk_upstream_pulls"),
        ForeignKeyConstraint(
            ["repository_id", "digest"],
            ["manifests.repository_id", "manifests.digest"],
            name="fk_upstream_pulls_repository_id_digest_manifests",
            ondelete="CASCADE",
        ),
        sqlite_with_rowid=False,
    )
