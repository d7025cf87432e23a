"""The tables. Changes to them are migrations in `migrations/versions`; a test holds the two together."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

resources = sa.Table(
    "resources",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("mesh", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("spec", sa.LargeBinary, nullable=False),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("creation_time", sa.Text, nullable=False),
    sa.Column("modification_time", sa.Text, nullable=False),
    sa.Column("owner_kind", sa.Text),
    sa.Column("owner_mesh", sa.Text),
    sa.Column("owner_name", sa.Text),
    sa.Index("resources_by_owner", "owner_kind", "owner_mesh", "owner_name"),
)
"""`spec` is JSON, sealed as a whole for kinds that are sealed. Times are RFC 3339 in UTC."""

changes = sa.Table(
    "changes",
    metadata,
    sa.Column("revision", sa.BigInteger, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("mesh", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
)
"""Which resources each transaction has touched; their content is read from `resources`, so it is kept only there."""

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)
"""`revision`: of the last transaction. `seal`: sealed under the key-encryption key, to know it again."""
