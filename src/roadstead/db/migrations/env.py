"""What Alembic runs around migrations: on the connection, and in the transaction, that ``db.migrating`` gives it."""

from alembic import context

from roadstead.db.schema import metadata

# SQLite's tables are made and changed inside a transaction too, which Alembic doesn't expect of it.
context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
