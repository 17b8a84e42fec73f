"""Bringing a database to this release's schema: Alembic, set up here and not in a file.

Alembic costs more to import than a worker has to start, so it is imported where there is something to apply.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from roadstead.db import migrations
from roadstead.db.errors import SchemaTooNewError
from roadstead.db.schema import HEAD, REVISIONS

if TYPE_CHECKING:
    from alembic.config import Config


def configuration() -> "Config":
    """Return Alembic's configuration: where the migrations are, and nothing about any database."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__path__[0])).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def upgrade(connection: Connection) -> None:
    """Apply what is missing, in the connection's transaction; the caller commits, and keeps others out meanwhile.

    Raises SchemaTooNewError for a database that a later release has changed.
    """
    found = revision(connection)
    if found == HEAD:
        return
    if found is not None and found not in REVISIONS:
        raise SchemaTooNewError(found, HEAD)
    from alembic import command

    config = configuration()
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)


def revision(connection: Connection) -> str | None:
    """Return the revision of the database's schema, or None where there is none yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return None if found is None else str(found)
