"""The embedded store: one SQLite file, readable by its owner only, used by one process at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog
from alembic.util import CommandError
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from kuma.base.clock import Clock
from kuma.base.errors import Misconfigured, Unavailable
from kuma.store.sealing.encryption import AesGcmSealer, KeyFile
from kuma.store.sql import migrations, schema, seal
from kuma.store.sql.change_log import KEPT_REVISIONS
from kuma.store.sql.dialect import Traits
from kuma.store.sql.embedded import errands, sqlite_files
from kuma.store.sql.store import SqlStore

log = structlog.get_logger(__name__)

_PATIENCE = 10.0
"""Seconds that a lock of the database is waited for."""
_BEGIN_WRITING = "BEGIN IMMEDIATE"
"""A writer takes its lock at once: one that begins as a reader can fail half-way.

It is said outright, and not by a listener of SQLAlchemy's: an engine that has one looks for others at each statement.
"""
_SCRUBS = 3
"""Attempts to cut off the write-ahead log; each waits for readers by itself."""


async def open_sqlite(
    path: Path, clock: Clock, key_file: Path | None = None, *, anew: bool = False, kept: int = KEPT_REVISIONS
) -> SqlStore:
    """Opens the store in the file `path`, with its key-encryption key (`<path>.key` unless given), or makes both.

    `anew` makes a new store under a key that is there already, on purpose. Of the revisions, `kept` are remembered.

    Raises:
        Misconfigured: the file cannot be used, another process uses it, or it, its log or its key is missing.
        StoreCorrupt: the key is not the one that its Secrets are sealed with.
    """
    descriptor = sqlite_files.lock(path)
    keys = KeyFile(key_file or path.with_name(path.name + ".key"))
    try:
        sqlite_files.check_log(path, descriptor)
        sqlite_files.tighten(path)
        engine, sealer, revision = await _opened(path, keys, anew=anew)
        keys.settle()
        sqlite_files.mark_in_use(path, descriptor)
        sqlite_files.keep_spare(path)
    except BaseException:
        os.close(descriptor)
        raise
    store = SqlStore(engine, _Sqlite(path), clock, sealer, keys, revision=revision, kept=kept)
    store.close_with(lambda: os.close(descriptor), first=lambda: asyncio.to_thread(sqlite_files.mark_idle, descriptor))
    try:
        if await store.finish_rekey():
            log.warning(
                "sealing anew had been interrupted; it is complete now, and the old key dropped", path=str(path)
            )
    except BaseException:
        await store.close()
        raise
    return store


async def _opened(path: Path, keys: KeyFile, *, anew: bool) -> tuple[AsyncEngine, AesGcmSealer, int]:
    """Returns the database as it is, or, if SQLite has no room to open it, in the room that was kept for that."""
    while True:
        try:
            sealer = _sealer(path, keys, anew=anew)
            engine = _engine(path)
            try:
                return engine, sealer, await _prepare(engine, sealer)
            except BaseException:
                await engine.dispose()
                raise
        except (DBAPIError, sqlite3.Error) as error:
            reason = error.orig if isinstance(error, DBAPIError) else error
            if not isinstance(reason, sqlite3.OperationalError) or not sqlite_files.use_spare(path):
                raise Misconfigured(f"{path} cannot be used as the store: {reason}") from None
            log.warning("no room to open the store: what was kept for that is used", reason=str(reason))
        except CommandError as error:
            raise Misconfigured(
                f"{path} has a schema that this version does not know: {error}. It is of a newer version, or of "
                "something else. Install that version, or put a backup of this one in its place: kuma-cp restore FILE"
            ) from None


def _sealer(path: Path, key_file: KeyFile, *, anew: bool) -> AesGcmSealer:
    """Returns the sealer of the store in `path`; a new file and a new key if there is neither.

    Raises:
        Misconfigured: one of the two is missing.
    """
    if sqlite_files.holds_store(path):
        return AesGcmSealer(key_file.load())
    keys = key_file.load() if key_file.exists() else key_file.begin()
    if key_file.exists() and not anew:
        what = "is empty: it holds no store" if path.exists() else "is missing"
        raise Misconfigured(
            f"{path} {what}, but {key_file.path} is there, the key of one: a new store would begin without any mesh's "
            "mutual TLS. Put the database back with its -wal, or a backup with `kuma-cp restore FILE`. To begin anew "
            "on purpose, run `kuma-cp migrate up --new`, which keeps the key, or makes one if it has been moved away"
        )
    path.touch(mode=0o600)  # SQLite would let others read it
    return AesGcmSealer(keys)


def _scrub(path: Path) -> None:
    """Leave no earlier content in the files.

    An overwritten row lives on in the write-ahead log until that is cut off, and in the pages of the database in what
    SQLite calls free space. Readers are waited for: they hold the log.

    Raises:
        Unavailable: there was no moment without a reader.
    """
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=_PATIENCE)) as connection:
            connection.execute("PRAGMA secure_delete=ON")
            connection.execute("VACUUM")
            for _ in range(_SCRUBS):
                if not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                    return
    except sqlite3.OperationalError as error:
        log.error("earlier content not removed from the database", path=str(path), reason=str(error))
        raise Unavailable(
            "all is sealed anew, but earlier content cannot be removed from the database now; the log of the control "
            "plane says why. Try again"
        ) from None
    raise Unavailable(
        "all is sealed anew, but earlier content is still in the database's write-ahead log, which is being read all "
        "the time. Try again"
    )


def _engine(path: Path) -> AsyncEngine:
    # In a storm of proxies readers wait for each other rather than fail.
    place = sa.URL.create("sqlite+aiosqlite", database=str(path))
    engine = create_async_engine(place, pool_timeout=300, async_creator=lambda: errands.connect(path))

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _: object) -> None:
        connection.isolation_level = None  # transactions are begun by `_Sqlite`, not by the driver at its own time
        cursor = connection.cursor()
        patience = f"busy_timeout={_PATIENCE * 1000:.0f}"
        for pragma in ("journal_mode=WAL", "synchronous=FULL", patience, "secure_delete=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


async def _prepare(engine: AsyncEngine, sealer: AesGcmSealer) -> int:
    """Bring the schema up to date, and see that the key-encryption key is the one that was used before.

    Returns the revision of the last commit.
    """
    async with engine.begin() as connection:
        await connection.exec_driver_sql(_BEGIN_WRITING)
        await connection.run_sync(migrations.upgrade)
        meta = schema.meta
        rows = (await connection.execute(sa.select(meta.c.name, meta.c.value))).all()
        known = {row.name: row.value for row in rows}
        if "seal" not in known:
            values = {"revision": b"0", "seal": seal.make(sealer)}
            await connection.execute(sa.insert(meta), [{"name": n, "value": v} for n, v in values.items()])
            return 0
    seal.check(sealer, known["seal"])
    return int(known["revision"])


class _Sqlite:
    """SQLite, with one process that uses the file: a writer is alone from the beginning of its transaction on."""

    traits = Traits(unavailable=(OperationalError,), snapshot={})

    def __init__(self, path: Path) -> None:
        self._path = path

    async def begin(self, connection: AsyncConnection) -> bytes | None:
        await connection.exec_driver_sql(_BEGIN_WRITING)
        return None

    async def begin_reading(self, connection: AsyncConnection) -> None:
        await connection.exec_driver_sql("BEGIN")

    async def announce(self, connection: AsyncConnection, revision: int) -> None:
        """There is nobody else."""

    async def others(self, connection: AsyncConnection) -> int:
        return 0

    async def scrub(self) -> None:
        await asyncio.to_thread(_scrub, self._path)
