"""Resources, their changes, and what the store knows of itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

_TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the three tables."""
    op.create_table(
        "resources",
        sa.Column("kind", _TEXT, primary_key=True),
        sa.Column("mesh", _TEXT, primary_key=True),
        sa.Column("name", _TEXT, primary_key=True),
        sa.Column("spec", sa.LargeBinary, nullable=False),
        sa.Column("labels", _TEXT, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("creation_time", _TEXT, nullable=False),
        sa.Column("modification_time", _TEXT, nullable=False),
        sa.Column("owner_kind", _TEXT),
        sa.Column("owner_mesh", _TEXT),
        sa.Column("owner_name", _TEXT),
    )
    op.create_index("resources_by_owner", "resources", ["owner_kind", "owner_mesh", "owner_name"])
    op.create_table(
        "changes",
        sa.Column("revision", sa.BigInteger, primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("mesh", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
    )
    op.create_table(
        "meta",
        sa.Column("name", _TEXT, primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
