"""The files of the embedded store: who uses them, whether one of them is missing, and room to start on a full disk."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from pathlib import Path

import structlog

from kuma.base import files
from kuma.base.errors import Misconfigured
from kuma.store.sql import schema

log = structlog.get_logger(__name__)

_MAGIC = b"SQLite format 3\0"
"""How every SQLite database begins (its file format, section 1.3)."""
_OURS = frozenset({*schema.metadata.tables, "alembic_version"})
_IDLE, _IN_USE = b"0", b"1"
_SPARE_BYTES = 256 * 1024
"""What SQLite needs to open a database: 32 KiB of shared memory, and a log of a few pages.

Both are files, and a disk may have room for bytes and for no other file: so as many are kept.
"""


def lock(path: Path) -> int:
    """Keep other processes from using the store, until the descriptor is closed.

    Raises:
        Misconfigured: one uses it already, or its directory cannot be used.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(_lock_file(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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


def mark_in_use(path: Path, descriptor: int) -> None:
    """Notes that there is a write-ahead log from now on, and that it is missed should it not be there again."""
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the log's name first, or the end of the machine could leave the note alone
    finally:
        os.close(directory)
    _mark(descriptor, _IN_USE)


def mark_idle(descriptor: int) -> None:
    """Notes that the write-ahead log is about to be brought into the database, and removed."""
    _mark(descriptor, _IDLE)
    os.fsync(descriptor)


def _mark(descriptor: int, state: bytes) -> None:
    try:
        os.pwrite(descriptor, state, 0)
    except OSError as error:  # of the first mark on a full disk; later ones take no room
        log.warning("a lost write-ahead log would not be noticed", reason=error.strerror)


def check_log(path: Path, descriptor: int) -> None:
    """Checks that what was stored last is there: in the write-ahead log, unless it was closed in good order.

    Raises:
        Misconfigured: the log is missing.
    """
    log_file = path.with_name(path.name + "-wal")
    if os.pread(descriptor, 1, 0) == _IN_USE and path.exists() and not log_file.exists():
        raise Misconfigured(
            f"{log_file} is missing, and with it what was stored last in {path}: perhaps that mutual TLS is on. "
            "Put the file back, or a backup with `kuma-cp restore FILE`. If another program has brought it into the "
            f"database, or to go on with what is left, remove {_lock_file(path)}"
        )


def holds_store(path: Path) -> bool:
    """Tells whether there is a store in the file; changes nothing.

    Raises:
        Misconfigured: the file is something else than a SQLite database, or the database of something else.
        sqlite3.Error: it cannot be read.
    """
    if not _is_database(path):
        return False
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables - _OURS:
            raise Misconfigured(
                f"{path} is the database of another program: it has a table {min(tables - _OURS)}. "
                "Put the right file back, or set KUMA_STORE_SQLITE_PATH to another one"
            )
        return "meta" in tables and bool(database.execute("SELECT 1 FROM meta WHERE name = 'seal'").fetchone())


def _is_database(path: Path) -> bool:
    """Looked at before anything else: SQLite removes the log of an empty file, and overwrites other ones."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Misconfigured(f"{path} cannot be used as the store: {error.strerror}") from None
    if head and head != _MAGIC:
        raise Misconfigured(
            f"{path} is no SQLite database. Put the right file back, or set KUMA_STORE_SQLITE_PATH to another one"
        )
    return bool(head)


def tighten(path: Path) -> None:
    """Takes from others what they may read: files from before, or copied here."""
    for end in ("", "-wal", "-shm", ".lock"):
        files.tighten(path.with_name(path.name + end))


def keep_spare(path: Path) -> None:
    """Keep some room, for a start on a disk that is full by then, of bytes or of files."""
    for spare in _spares(path):
        if spare.exists():
            continue
        try:
            with os.fdopen(os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                os.posix_fallocate(file.fileno(), 0, _SPARE_BYTES // 2)
        except OSError as error:
            spare.unlink(missing_ok=True)
            log.warning("the disk of the store is full", path=str(path), reason=error.strerror)
            return


def use_spare(path: Path) -> bool:
    """Gives up the room that was kept; False if there is none."""
    found = False
    for spare in _spares(path):
        with contextlib.suppress(OSError):
            spare.unlink()
            found = True
    return found


def _spares(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + ".spare"), path.with_name(path.name + ".spare-2")


def _lock_file(path: Path) -> Path:
    return path.with_name(path.name + ".lock")
