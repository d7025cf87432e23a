"""Schema migrations, run by Alembic when a store is opened."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

CONNECTION = "connection"


def upgrade(connection: Connection) -> None:
    """Bring the schema that `connection` sees to the newest form, in its transaction."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes[CONNECTION] = connection
    command.upgrade(config, "head")
