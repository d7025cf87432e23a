"""Schema migrations, run by Alembic: when the embedded store is opened, and by `kuma-cp migrate up`."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import Connection

CONNECTION = "connection"


def upgrade(connection: Connection) -> None:
    """Bring the schema that `connection` sees to the newest form, in its transaction."""
    config = _config()
    config.attributes[CONNECTION] = connection
    command.upgrade(config, "head")


def is_newest(connection: Connection) -> bool | None:
    """Tells whether the schema has the newest form; None if there is none.

    Raises:
        CommandError: its form is one that this version does not know.
    """
    current = MigrationContext.configure(connection).get_current_revision()
    if current is None:
        return None
    scripts = ScriptDirectory.from_config(_config())
    try:
        scripts.get_revision(current)
    except ResolutionError as error:
        raise CommandError(str(error)) from None
    return current == scripts.get_current_head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    return config
