"""A connection to SQLite on which a statement is one errand to the connection's thread.

aiosqlite sends its thread for a cursor, for the statement, for its rows, and to close the cursor: four times there and
back, each of which wakes up both threads. SQLAlchemy takes all rows of a statement at once, so that one errand does. A
transaction is begun by the errand of its first statement, and one that was never begun is not ended by another.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiosqlite

_ROWS_AT_A_TIME = 64
"""Of a cursor of aiosqlite's own, which is not used here; it has to be given."""


class _Done(NamedTuple):
    """Result of a statement."""

    rows: Sequence[Any] = ()
    description: Any = None
    rowcount: int = -1
    lastrowid: int | None = None


class _Connection(aiosqlite.Connection):
    """As SQLAlchemy uses it."""

    def cursor(self) -> _Cursor:  # type: ignore[override]  # nothing is to be waited for
        return _Cursor(self)

    _begin = ""
    """What begins the transaction whose first statement is to come."""
    _is_begun = False
    """Whether a transaction has been, or is being, begun: an errand that nobody waits for any more is done, too."""

    async def statement(self, sql: str, parameters: Any, *, is_many: bool) -> _Done:
        """Do a statement, once or with each of `parameters`, and take all of its rows."""
        if sql.startswith("BEGIN"):
            self._begin = sql
            return _Done()
        begin, self._begin = self._begin, ""
        self._is_begun = self._is_begun or bool(begin)
        done: _Done = await self._execute(_do, self._conn, begin, sql, parameters, is_many)  # type: ignore[no-untyped-call]
        return done

    async def commit(self) -> None:
        if self._is_to_be_ended():
            await super().commit()
            self._is_begun = False

    async def rollback(self) -> None:
        if self._is_to_be_ended():
            await super().rollback()
            self._is_begun = False

    def _is_to_be_ended(self) -> bool:
        self._begin = ""
        return self._is_begun


class _Cursor:
    """Holds what the last statement has come to; what SQLAlchemy asks of a driver's cursor (PEP 249)."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._done = _Done()
        self.arraysize = 1

    async def __aenter__(self) -> _Cursor:
        return self

    @property
    def description(self) -> Any:
        return self._done.description

    @property
    def rowcount(self) -> int:
        return self._done.rowcount

    @property
    def lastrowid(self) -> int | None:
        return self._done.lastrowid

    async def execute(self, sql: str, parameters: Iterable[Any] = ()) -> _Cursor:
        self._done = await self._connection.statement(sql, parameters, is_many=False)
        return self

    async def executemany(self, sql: str, parameters: Iterable[Iterable[Any]]) -> _Cursor:
        self._done = await self._connection.statement(sql, parameters, is_many=True)
        return self

    async def fetchall(self) -> Sequence[Any]:
        """Returns the rows, once."""
        rows, self._done = self._done.rows, self._done._replace(rows=())
        return rows

    async def close(self) -> None:
        """Nothing is open."""


def _do(connection: sqlite3.Connection, begin: str, sql: str, parameters: Any, is_many: bool) -> _Done:
    if begin:
        connection.execute(begin)
    with contextlib.closing(connection.cursor()) as cursor:
        (cursor.executemany if is_many else cursor.execute)(sql, parameters)
        rows = cursor.fetchall() if cursor.description else ()
        return _Done(rows, cursor.description, cursor.rowcount, cursor.lastrowid)


async def connect(path: Path) -> aiosqlite.Connection:
    """Open the database in the file `path`, with a thread of its own that does not keep the process from ending."""

    def opened() -> sqlite3.Connection:
        # It is set up, and may be ended, from other threads than the one that uses it.
        return sqlite3.connect(path, check_same_thread=False)

    connection = _Connection(opened, _ROWS_AT_A_TIME)
    connection._thread.daemon = True  # as SQLAlchemy does it with those that it makes itself
    return await connection
