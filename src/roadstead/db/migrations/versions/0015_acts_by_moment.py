"""The audit log in the order of its moments."""

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Put other indexes in the place of those by position alone. An earlier release finds its lines without, slowly."""
    op.create_index("ix_acts_at_position", "acts", ["at", "position"])
    op.create_index("ix_acts_by_at", "acts", ["by", "at", "position"])
    op.create_index("ix_acts_kind_at", "acts", ["kind", "at", "position"])
    for name in ("ix_acts_at", "ix_acts_by", "ix_acts_kind"):
        op.drop_index(name, "acts")
