"""Keys that sign tokens, and refresh tokens."""

from alembic import op
from sqlalchemy import BigInteger, Column, LargeBinary, PrimaryKeyConstraint, Text

revision = "0006"
down_revision = "0005"

BYTEWISE = Text().with_variant(Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables. An earlier release doesn't look at them."""
    op.create_table(
        "signing_keys",
        Column("kid", BYTEWISE, nullable=False),
        Column("algorithm", Text(), nullable=False),
        Column("sealed", LargeBinary(), nullable=False),
        Column("certificate", Text(), nullable=False),
        Column("created_at", BigInteger(), nullable=False),
        Column("signs_from", BigInteger(), nullable=False),
        PrimaryKeyConstraint("kid", name="pk_signing_keys"),
    )
    op.create_table(
        "refresh_tokens",
        Column("token_hash", BYTEWISE, nullable=False),
        Column("kind", Text(), nullable=False),
        Column("name", BYTEWISE, nullable=False),
        Column("service", Text(), nullable=False),
        Column("created_at", BigInteger(), nullable=False),
        Column("expires_at", BigInteger(), nullable=False),
        PrimaryKeyConstraint("token_hash", name="pk_refresh_tokens"),
    )
    op.create_index("ix_refresh_tokens_name", "refresh_tokens", ["name"])
    op.create_index("ix_refresh_tokens_expires_at", "refresh_tokens", ["expires_at"])
