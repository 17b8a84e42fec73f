"""Events that were given up are found without reading those that were delivered."""

from alembic import op
from sqlalchemy import text

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Make the index. An earlier release keeps it up to date and doesn't know of it."""
    dead = text("state = 'dead'")
    op.create_index("ix_outbox_dead", "outbox", ["position"], sqlite_where=dead, postgresql_where=dead)
