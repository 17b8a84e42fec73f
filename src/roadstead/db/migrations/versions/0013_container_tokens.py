"""Container tokens."""

from alembic import op
from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, Text

revision = "0013"
down_revision = "0012"

BYTEWISE = Text().with_variant(Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table. An earlier release doesn't look at it."""
    op.create_table(
        "container_tokens",
        Column("token_hash", BYTEWISE, nullable=False),
        Column("creator_kind", Text(), nullable=False),
        Column("creator_name", BYTEWISE, nullable=False),
        Column("creator_groups", Text(), nullable=False),
        Column("key_id", BYTEWISE),
        Column("repository", BYTEWISE, nullable=False),
        Column("path", Text(), nullable=False),
        Column("reference", Text(), nullable=False),
        Column("plan", Text()),
        Column("space", BYTEWISE),
        Column("described", Text(), nullable=False),
        Column("created_at", BigInteger(), nullable=False),
        Column("expires_at", BigInteger(), nullable=False),
        PrimaryKeyConstraint("token_hash", name="pk_container_tokens"),
    )
    op.create_index("ix_container_tokens_expires_at", "container_tokens", ["expires_at"])
    op.create_index("ix_container_tokens_space", "container_tokens", ["space", "expires_at"])
