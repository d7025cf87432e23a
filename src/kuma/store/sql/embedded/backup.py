"""Backups of the embedded store: whole, consistent, and sealed as it is. The key-encryption key is not in them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from kuma.base.errors import Misconfigured
from kuma.store.sealing.encryption import AesGcmSealer, KeyFile
from kuma.store.sql import seal
from kuma.store.sql.embedded import sqlite_files

REPLACED = ".replaced"
"""End of the name of what a restore has put aside."""


def backup(database: Path, target: Path) -> None:
    """Copy the store to `target`, while a control plane may be using it. Only the owner may read the copy.

    Raises:
        Misconfigured: there is no store, or `target` cannot be made or exists.
    """
    if not database.exists():
        raise Misconfigured(f"there is no store at {database}")
    if target.exists():
        raise Misconfigured(f"{target} exists; give the backup another name")
    copy_file(database, target)


def restore(source: Path, database: Path, key_file: Path) -> None:
    """Put a backup in the place of the store, which is kept beside it under another name.

    Raises:
        Misconfigured: `source` is no backup, is sealed with another key, or a control plane uses the store.
    """
    if not source.exists():
        raise Misconfigured(f"there is no backup at {source}")
    lock = sqlite_files.lock(database)
    fresh = database.with_name(f".{database.name}.restored")
    try:
        fresh.unlink(missing_ok=True)
        copy_file(source, fresh)
        check_backup(fresh, source, key_file)
        if database.exists():
            _settle(database)
            _keep(database)
        sqlite_files.mark_idle(lock)
        for end in ("-wal", "-shm"):
            database.with_name(database.name + end).unlink(missing_ok=True)
        fresh.rename(database)  # at once: were there no store at any moment, a start could begin a new one
    finally:
        fresh.unlink(missing_ok=True)
        os.close(lock)


def copy_file(source: Path, target: Path) -> None:
    """Copy a SQLite database, which may be in use, to a file that only its owner may read.

    Raises:
        Misconfigured: it cannot be read, or `target` cannot be made.
    """
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with (
            contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as one,
            contextlib.closing(sqlite3.connect(target)) as other,
        ):
            one.backup(other)
            other.execute("PRAGMA journal_mode=DELETE")  # one file, without a log of its own
    except OSError as error:
        raise Misconfigured(f"cannot write {target}: {error.strerror}") from None
    except sqlite3.Error as error:
        target.unlink(missing_ok=True)
        raise Misconfigured(f"{source} cannot be copied to {target}: {error}") from None


def check_backup(copy: Path, source: Path, key_file: Path) -> None:
    """See that the `copy` of a backup is whole, and sealed with the key that is here.

    Raises:
        Misconfigured: it is not whole, or the key is missing.
        StoreCorrupt: it is sealed with another key.
    """
    try:
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            whole = connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            row = connection.execute("SELECT value FROM meta WHERE name = 'seal'").fetchone()
    except sqlite3.Error:
        whole, row = False, None
    if not whole or row is None:
        raise Misconfigured(f"{source} is no backup of a store, or is damaged")
    seal.check(AesGcmSealer(KeyFile(key_file).load()), row[0])


def _keep(database: Path) -> None:
    """Give what is about to be replaced a second name."""
    kept = database.with_name(database.name + REPLACED)
    try:
        kept.unlink(missing_ok=True)
        kept.hardlink_to(database)
    except OSError as error:
        raise Misconfigured(
            f"{database} cannot be kept as {kept}: {error.strerror}. Move it away yourself, with its -wal"
        ) from None


def _settle(database: Path) -> None:
    """Bring what is only in the log into the file, so that it can be put aside as one."""
    with contextlib.closing(sqlite3.connect(database)) as connection, contextlib.suppress(sqlite3.Error):
        connection.execute("PRAGMA journal_mode=DELETE")
