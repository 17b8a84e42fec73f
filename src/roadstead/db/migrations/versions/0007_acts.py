"""The audit log."""

from alembic import op
from sqlalchemy import BigInteger, CheckConstraint, Column, Integer, PrimaryKeyConstraint, Text

revision = "0007"
down_revision = "0006"

NUMBER = BigInteger().with_variant(Integer(), "sqlite")
BYTEWISE = Text().with_variant(Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table. An earlier release doesn't look at it."""
    op.create_table(
        "acts",
        Column("position", NUMBER, nullable=False),
        Column("at", BigInteger(), nullable=False),
        Column("by", BYTEWISE, nullable=False),
        Column("client", Text(), nullable=False),
        Column("kind", BYTEWISE, nullable=False),
        Column("target", Text(), nullable=False),
        Column("outcome", Text(), nullable=False),
        Column("reason", Text(), nullable=False),
        Column("count", BigInteger(), nullable=False),
        PrimaryKeyConstraint("position", name="pk_acts"),
        CheckConstraint("outcome IN ('done', 'failed', 'denied')", name="ck_acts_outcome"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_acts_at", "acts", ["at"])
    op.create_index("ix_acts_by", "acts", ["by", "position"])
    op.create_index("ix_acts_kind", "acts", ["kind", "position"])
