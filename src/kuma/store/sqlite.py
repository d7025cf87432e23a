"""The embedded store: one SQLite file, readable by its owner only, used by one process at a time."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from kuma.base import files
from kuma.base.clock import Clock
from kuma.base.errors import Misconfigured, Unavailable
from kuma.store import migrations, schema, seal
from kuma.store.encryption import AesGcmSealer, KeyFile, Sealer
from kuma.store.sql import WRITES, SqlStore

log = structlog.get_logger(__name__)

_PATIENCE = 10.0
"""Seconds that a lock of the database is waited for."""
_SCRUBS = 3
"""Attempts to cut off the write-ahead log; each waits for readers by itself."""


async def open_sqlite(path: Path, clock: Clock, key_file: Path | None = None) -> SqlStore:
    """The store in the file `path`, made if it is not there, with its key-encryption key (`<path>.key` unless given).

    Raises:
        Misconfigured: the file cannot be used, another process uses it, or its key is missing.
        StoreCorrupt: the key is not the one that its Secrets are sealed with.
    """
    descriptor = lock(path)
    try:
        _check_form(path)
        _tighten(path)
        keys = KeyFile(key_file or path.with_name(path.name + ".key"))
        sealer = _sealer(path, keys)
        engine = _engine(path)
        try:
            await _prepare(engine, sealer)
        except BaseException:
            await engine.dispose()
            raise
    except DBAPIError as error:
        os.close(descriptor)
        raise Misconfigured(f"{path} cannot be used as the store: {error.orig}") from None
    except BaseException:
        os.close(descriptor)
        raise
    store = SqlStore(engine, clock, sealer, keys, lambda: asyncio.to_thread(_scrub, path))
    store.close_with(lambda: os.close(descriptor))
    try:
        if await store.finish_rekey():
            log.warning(
                "sealing anew had been interrupted; it is complete now, and the old key dropped", path=str(path)
            )
    except BaseException:
        await store.close()
        raise
    return store


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


def lock(path: Path) -> int:
    """Keep other processes from using the store, until the descriptor is closed.

    Raises:
        Misconfigured: one uses it already, or its directory cannot be used.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Misconfigured(f"the store's directory {path.parent} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Misconfigured(
            f"another control plane uses {path}. Stop it, or set KUMA_STORE_SQLITE_PATH to another file"
        ) from None
    return descriptor


def _check_form(path: Path) -> None:
    """Refuses a file that is no store of ours before anything else of it is read, such as its key.

    Raises:
        Misconfigured: the file is something else than a SQLite database.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except FileNotFoundError:
        return
    except OSError as error:
        raise Misconfigured(f"{path} cannot be used as the store: {error.strerror}") from None
    if head and head != _MAGIC:
        raise Misconfigured(
            f"{path} is no SQLite database. Put the right file back, or set KUMA_STORE_SQLITE_PATH to another one"
        )


_MAGIC = b"SQLite format 3\0"
"""How every SQLite database begins (its file format, section 1.3)."""


def _sealer(path: Path, key_file: KeyFile) -> Sealer:
    """The sealer of the store in `path`; makes both if there is no store yet."""
    is_new = not path.exists() or path.stat().st_size == 0
    keys = key_file.load(may_create=is_new)
    path.touch(mode=0o600)
    return AesGcmSealer(keys)


def _engine(path: Path) -> AsyncEngine:
    # In a storm of proxies readers wait for each other rather than fail.
    engine = create_async_engine(sa.URL.create("sqlite+aiosqlite", database=str(path)), pool_timeout=300)

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver at its own time
        cursor = connection.cursor()
        patience = f"busy_timeout={_PATIENCE * 1000:.0f}"
        for pragma in ("journal_mode=WAL", "synchronous=FULL", patience, "secure_delete=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # A writer takes its lock at once: one that begins as a reader can fail half-way.
        writes = connection.get_execution_options().get(WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


async def _prepare(engine: AsyncEngine, sealer: Sealer) -> None:
    """Bring the schema up to date, and see that the key-encryption key is the one that was used before."""
    async with engine.execution_options(**{WRITES: True}).begin() as connection:
        await connection.run_sync(migrations.upgrade)
        meta = schema.meta
        rows = (await connection.execute(sa.select(meta.c.name, meta.c.value))).all()
        known = {row.name: row.value for row in rows}
        if "seal" not in known:
            values = {"revision": b"0", "seal": seal.make(sealer)}
            await connection.execute(sa.insert(meta), [{"name": n, "value": v} for n, v in values.items()])
            return
    seal.check(sealer, known["seal"])


def _tighten(path: Path) -> None:
    """Files from before, or copied here, may be readable by others."""
    for end in ("", "-wal", "-shm", ".lock"):
        files.tighten(path.with_name(path.name + end))
