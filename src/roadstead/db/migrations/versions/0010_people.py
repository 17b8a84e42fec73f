"""Accounts that an issuer vouches for, accounts that are disabled, and who is signed in with a browser."""

from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, PrimaryKeyConstraint, Text

revision = "0010"
down_revision = "0009"

BYTEWISE = Text().with_variant(Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make tables and columns. An earlier release doesn't look at them, so it lets in whom this one has disabled."""
    for column in (
        Column("issuer", BYTEWISE),
        Column("subject", BYTEWISE),
        Column("signed_in_at", BigInteger()),
        Column("disabled_at", BigInteger()),
    ):
        op.add_column("accounts", column)
    op.create_index("ix_accounts_subject", "accounts", ["issuer", "subject"], unique=True)
    op.create_table(
        "web_sessions",
        Column("session_hash", BYTEWISE, nullable=False),
        Column("owner", BYTEWISE, nullable=False),
        Column("created_at", BigInteger(), nullable=False),
        Column("seen_at", BigInteger(), nullable=False),
        Column("expires_at", BigInteger(), nullable=False),
        PrimaryKeyConstraint("session_hash", name="pk_web_sessions"),
        ForeignKeyConstraint(["owner"], ["accounts.name"], name="fk_web_sessions_owner_accounts", ondelete="CASCADE"),
    )
    op.create_index("ix_web_sessions_owner", "web_sessions", ["owner"])
    op.create_index("ix_web_sessions_expires_at", "web_sessions", ["expires_at"])
    op.create_table(
        "spent_sign_ins",
        Column("attempt_hash", BYTEWISE, nullable=False),
        Column("expires_at", BigInteger(), nullable=False),
        PrimaryKeyConstraint("attempt_hash", name="pk_spent_sign_ins"),
    )
    op.create_index("ix_spent_sign_ins_expires_at", "spent_sign_ins", ["expires_at"])
