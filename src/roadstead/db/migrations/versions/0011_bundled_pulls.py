"""How many events a letter has."""

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the column. An earlier release writes letters of one event each."""
    op.add_column("outbox", Column("events", BigInteger(), nullable=False, server_default="1"))
