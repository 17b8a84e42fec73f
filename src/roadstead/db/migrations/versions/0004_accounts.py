"""Users, robot accounts and their keys."""

from alembic import op
from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKeyConstraint, PrimaryKeyConstraint, Text

revision = "0004"
down_revision = "0003"

BYTEWISE = Text().with_variant(Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables. An earlier release doesn't look at them."""
    op.create_table(
        "accounts",
        Column("name", BYTEWISE, nullable=False),
        Column("kind", Text(), nullable=False),
        Column("password_hash", Text()),
        Column("member_of", Text(), nullable=False),
        Column("created_at", BigInteger(), nullable=False),
        PrimaryKeyConstraint("name", name="pk_accounts"),
        CheckConstraint("kind IN ('user', 'robot')", name="ck_accounts_kind"),
    )
    op.create_table(
        "api_keys",
        Column("key_id", BYTEWISE, nullable=False),
        Column("owner", BYTEWISE, nullable=False),
        Column("secret_hash", Text(), nullable=False),
        Column("repositories", Text(), nullable=False),
        Column("actions", Text(), nullable=False),
        Column("description", Text(), nullable=False),
        Column("created_at", BigInteger(), nullable=False),
        Column("expires_at", BigInteger()),
        PrimaryKeyConstraint("key_id", name="pk_api_keys"),
        ForeignKeyConstraint(["owner"], ["accounts.name"], name="fk_api_keys_owner_accounts", ondelete="CASCADE"),
    )
    op.create_index("ix_api_keys_owner", "api_keys", ["owner"])
