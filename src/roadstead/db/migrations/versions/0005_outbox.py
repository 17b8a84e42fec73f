"""Events that wait to be delivered."""

from alembic import op
from sqlalchemy import BigInteger, CheckConstraint, Column, Integer, PrimaryKeyConstraint, Text, text

revision = "0005"
down_revision = "0004"

BYTEWISE = Text().with_variant(Text(collation="C"), "postgresql")
NUMBER = BigInteger().with_variant(Integer(), "sqlite")


def upgrade() -> None:
    """Make the table. An earlier release that writes beside it tells nobody of what it does."""
    op.create_table(
        "outbox",
        Column("position", NUMBER, nullable=False),
        Column("endpoint", BYTEWISE, nullable=False),
        Column("event_id", BYTEWISE, nullable=False),
        Column("repository", BYTEWISE, nullable=False),
        Column("subject", Text(), nullable=False),
        Column("action", Text(), nullable=False),
        Column("event", Text(), nullable=False),
        Column("state", Text(), nullable=False),
        Column("attempts", BigInteger(), nullable=False),
        Column("error", Text(), nullable=False),
        Column("held_until", BigInteger()),
        Column("created_at", BigInteger(), nullable=False),
        Column("settled_at", BigInteger()),
        PrimaryKeyConstraint("position", name="pk_outbox"),
        CheckConstraint("state IN ('pending', 'delivered', 'dead')", name="ck_outbox_state"),
        sqlite_autoincrement=True,
    )
    pending, held = text("state = 'pending'"), text("held_until IS NOT NULL")
    op.create_index(
        "ix_outbox_pending", "outbox", ["endpoint", "position"], sqlite_where=pending, postgresql_where=pending
    )
    op.create_index(
        "ix_outbox_held",
        "outbox",
        ["endpoint", "repository", "held_until"],
        sqlite_where=held,
        postgresql_where=held,
    )
    settled = text("settled_at IS NOT NULL")
    op.create_index("ix_outbox_settled", "outbox", ["settled_at"], sqlite_where=settled, postgresql_where=settled)
    op.create_index("ix_outbox_event", "outbox", ["event_id"])
