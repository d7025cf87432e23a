"""The tables. Changes to them are migrations in `migrations/versions`; a test holds the two together."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

metadata = sa.MetaData()
TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
"""Compared byte by byte, whatever the language of the database."""

resources = sa.Table(
    "resources",
    metadata,
    sa.Column("kind", TEXT, primary_key=True),
    sa.Column("mesh", TEXT, primary_key=True),
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("spec", sa.LargeBinary, nullable=False),
    sa.Column("labels", TEXT, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("creation_time", TEXT, nullable=False),
    sa.Column("modification_time", TEXT, nullable=False),
    sa.Column("owner_kind", TEXT),
    sa.Column("owner_mesh", TEXT),
    sa.Column("owner_name", TEXT),
    sa.Index("resources_by_owner", "owner_kind", "owner_mesh", "owner_name"),
)
"""`spec` is JSON, sealed as a whole for kinds that are sealed. Times are RFC 3339 in UTC."""

changes = sa.Table(
    "changes",
    metadata,
    sa.Column("revision", sa.BigInteger, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("kind", TEXT, nullable=False),
    sa.Column("mesh", TEXT, nullable=False),
    sa.Column("name", TEXT, nullable=False),
)
"""Which resources each transaction has touched; their content is read from `resources`, so it is kept only there."""

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)
"""`revision`: of the last transaction. `seal`: sealed under the key-encryption key, to know it again."""
