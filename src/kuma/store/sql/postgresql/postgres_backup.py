"""Backups of a store in PostgreSQL: the same files that the embedded store has, so that each kind takes the other's."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from kuma.base.errors import Misconfigured
from kuma.store.sql import change_log, migrations, schema, seal
from kuma.store.sql.dialect import reason
from kuma.store.sql.embedded.backup import check_backup, copy_file
from kuma.store.sql.postgresql.follower import CHANNEL
from kuma.store.sql.postgresql.postgres import PostgresServer, check_schema, migrate_postgres, opened

_ROWS_PER_INSERT = 500


@dataclass(frozen=True, slots=True)
class _Content:
    """All that is stored, sealed as it is."""

    resources: Sequence[sa.RowMapping]
    meta: Mapping[str, bytes]


async def backup(server: PostgresServer, target: Path) -> None:
    """Copy the store to the file `target`, while control planes may be using it. Only the owner may read the copy.

    Raises:
        Misconfigured: there is no store, or `target` cannot be made or exists.
    """
    async with opened(server) as engine:
        async with engine.execution_options(isolation_level="REPEATABLE READ").connect() as connection:
            await check_schema(connection, server)
            content = await _read(connection)
        await engine.dispose()
    await asyncio.to_thread(_write, content, target)


async def restore(source: Path, server: PostgresServer, key_file: Path, replaced: Path) -> None:
    """Put a backup in the place of the store; control planes that run take it over. What was there is in `replaced`.

    Raises:
        Misconfigured: `source` is no backup, is sealed with another key, or the database cannot be used.
    """
    content = await asyncio.to_thread(_from_backup, source, key_file)
    await migrate_postgres(server, key_file, anew=True)
    await asyncio.to_thread(replaced.unlink, missing_ok=True)
    await backup(server, replaced)
    async with opened(server) as engine:
        async with engine.begin() as connection:
            await change_log.lock(connection)
            await _replace(connection, content)
        await engine.dispose()


async def _read(connection: AsyncConnection) -> _Content:
    resources = (await connection.execute(sa.select(schema.resources))).mappings().all()
    meta = (await connection.execute(sa.select(schema.meta))).all()
    return _Content(resources, {row.name: row.value for row in meta})


def _write(content: _Content, target: Path) -> None:
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        engine = sa.create_engine(sa.URL.create("sqlite", database=str(target)))
        with engine.begin() as connection:
            migrations.upgrade(connection)
            for start in range(0, len(content.resources), _ROWS_PER_INSERT):
                rows = [dict(row) for row in content.resources[start : start + _ROWS_PER_INSERT]]
                connection.execute(sa.insert(schema.resources), rows)
            connection.execute(sa.insert(schema.meta), [{"name": n, "value": v} for n, v in content.meta.items()])
        engine.dispose()
    except FileExistsError:
        raise Misconfigured(f"{target} exists; give the backup another name") from None
    except OSError as error:
        raise Misconfigured(f"cannot write {target}: {error.strerror}") from None
    except sa.exc.DBAPIError as error:
        target.unlink(missing_ok=True)
        raise Misconfigured(f"cannot write {target}: {reason(error)}") from None


def _from_backup(source: Path, key_file: Path) -> _Content:
    """Returns what is in a backup, which may be of an older version."""
    if not source.exists():
        raise Misconfigured(f"there is no backup at {source}")
    with tempfile.TemporaryDirectory(prefix="kuma-restore-") as directory:
        copy = Path(directory) / "copy.db"
        copy_file(source, copy)
        check_backup(copy, source, key_file)
        engine = sa.create_engine(sa.URL.create("sqlite", database=str(copy)))
        with engine.begin() as connection:
            migrations.upgrade(connection)
            resources = connection.execute(sa.select(schema.resources)).mappings().all()
            meta = {row.name: row.value for row in connection.execute(sa.select(schema.meta))}
        engine.dispose()
    return _Content(resources, meta)


async def _replace(connection: AsyncConnection, content: _Content) -> None:
    """Put other content in the place of all that is stored. The log of changes begins anew: all list what is there."""
    revision = max(await change_log.revision(connection), int(content.meta["revision"])) + 1
    meta = schema.meta
    for table in (schema.resources, schema.changes):
        await connection.execute(sa.delete(table))
    for start in range(0, len(content.resources), _ROWS_PER_INSERT):
        rows = [dict(row) for row in content.resources[start : start + _ROWS_PER_INSERT]]
        await connection.execute(sa.insert(schema.resources), rows)
    for name, value in (("revision", str(revision).encode()), (seal.SEAL.name, content.meta["seal"])):
        await connection.execute(sa.update(meta).where(meta.c.name == name).values(value=value))
    await connection.execute(sa.select(sa.func.pg_notify(CHANNEL, str(revision))))
