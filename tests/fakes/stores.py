"""Every kind of store, to be opened by an address that can be handed to another process."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo.postgres import PASSWORD, USER, Postgres
from kuma.base.clock import Clock
from kuma.store.sql.change_log import KEPT_REVISIONS
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.store.sql.postgresql.postgres import PostgresServer, migrate_postgres, open_postgres
from kuma.store.sql.store import SqlStore

_numbers = itertools.count(1)


def postgres_server(port: int | str, database: str) -> PostgresServer:
    """Where a database of the tests' server is."""
    return PostgresServer(host="127.0.0.1", port=int(port), user=USER, password=PASSWORD, database=database)


async def new_store(instance: Postgres, directory: Path) -> tuple[str, ...]:
    """The address of a new store in a database of its own, with its key in `directory`."""
    database, key = instance.create(f"test_{next(_numbers)}"), directory / "kuma.db.key"
    await migrate_postgres(postgres_server(instance.port, database), key, anew=True)
    return "postgres", str(key), str(instance.port), database


def store_settings(address: Sequence[str]) -> dict[str, Any]:
    """The settings of a control plane whose store is at `postgres KEY-FILE PORT DATABASE`."""
    _, key, port, database = address
    of_postgres = {"port": int(port), "user": USER, "password": PASSWORD, "db_name": database}
    return {"type": "postgres", "postgres": of_postgres, "encryption_key_file": Path(key)}


async def open_store(address: Sequence[str], clock: Clock, kept: int = KEPT_REVISIONS) -> SqlStore:
    """The store at `sqlite FILE` or `postgres KEY-FILE PORT DATABASE`."""
    kind, path, *rest = address
    if kind == "sqlite":
        return await open_sqlite(Path(path), clock, kept=kept)
    return await open_postgres(postgres_server(*rest), clock, Path(path), kept=kept)
