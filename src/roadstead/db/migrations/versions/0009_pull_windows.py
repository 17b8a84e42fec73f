"""How often somebody has pulled."""

from alembic import op
from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, Text

revision = "0009"
down_revision = "0008"

BYTEWISE = Text().with_variant(Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table. An earlier release doesn't look at it."""
    op.create_table(
        "pull_windows",
        Column("subject", BYTEWISE, nullable=False),
        Column("began_at", BigInteger(), nullable=False),
        Column("pulls", BigInteger(), nullable=False),
        PrimaryKeyConstraint("subject", name="pk_pull_windows"),
    )
    op.create_index("ix_pull_windows_began_at", "pull_windows", ["began_at"])
