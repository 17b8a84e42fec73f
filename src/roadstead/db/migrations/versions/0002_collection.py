"""What collection looks up: when a manifest lost its last tag."""

from alembic import op
from sqlalchemy import text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the index. An earlier release writes beside it without knowing."""
    op.create_index(
        "ix_tag_journal_previous",
        "tag_journal",
        ["repository_id", "previous", "at"],
        sqlite_where=text("previous IS NOT NULL"),
        postgresql_where=text("previous IS NOT NULL"),
    )
