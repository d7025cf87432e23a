"""Run by Alembic for every command: migrates over the connection that the store has opened."""

from alembic import context

from kuma.store.sql.migrations import CONNECTION

context.configure(connection=context.config.attributes[CONNECTION])
context.run_migrations()
