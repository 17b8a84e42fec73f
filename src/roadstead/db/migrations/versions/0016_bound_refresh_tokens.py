"""What a refresh token was got by, which it ends with."""

from alembic import op
from sqlalchemy import Column, Text

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the column. Tokens without it, from before or of an earlier release beside us, give nothing any more."""
    op.add_column("refresh_tokens", Column("bond", Text(), nullable=True))
