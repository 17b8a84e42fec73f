"""Bringing a database to this release's schema: Alembic, set up here and not in a file."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from roadstead.db import migrations
from roadstead.db.errors import SchemaTooNewError
from roadstead.db.schema import HEAD, REVISIONS


def configuration() -> Config:
    """Return Alembic's configuration: where the migrations are, and nothing about any database."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__path__[0])).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def upgrade(connection: Connection) -> None:
    """Apply what is missing, in the connection's transaction; the caller commits, and keeps others out meanwhile.

    Raises SchemaTooNewError for a database that a later release has changed.
    """
    found = MigrationContext.configure(connection).get_current_revision()
    if found == HEAD:
        return
    if found is not None and found not in REVISIONS:
        raise SchemaTooNewError(found, HEAD)
    config = configuration()
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
