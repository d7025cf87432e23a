"""A store moves from SQLite to PostgreSQL and back with its backups, and its Secrets stay sealed on the way."""

import asyncio
import os
import subprocess
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import pytest

from demo.postgres import Postgres
from demo.processes import BIN, inherited
from kuma.base.clock import SystemClock
from kuma.base.errors import Misconfigured, StoreCorrupt
from kuma.resources import kinds
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create, Delete, Listing
from kuma.store.sql.postgresql import postgres_backup
from tests.fakes.patience import PATIENCE
from tests.fakes.stores import open_store, postgres_server

Address = tuple[str, ...]
PRIVATE = b"-----BEGIN PRIVATE KEY-----"
MESH = Resource(kinds.MESH.key("default"), MeshSpec())
SECRET = Resource(kinds.SECRET.key("a", "default"), SecretSpec(data=PRIVATE))


def kuma_cp(*arguments: str, environment: Mapping[str, str]) -> str:
    command = [str(BIN / "kuma-cp"), *arguments]
    done = subprocess.run(command, env={**inherited(), **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert environment.get("KUMA_STORE_POSTGRES_PASSWORD", os.devnull) not in done.stdout + done.stderr
    return done.stdout


async def stored(address: Address) -> list[Resource[SecretSpec]]:
    store = await open_store(address, SystemClock())
    try:
        return [await store.get(MESH.key), await store.get(SECRET.key)]
    finally:
        await store.close()


async def test_from_sqlite_to_postgres_and_back(postgres_instance: Postgres, tmp_path: Path) -> None:
    work = {"KUMA_GENERAL_WORK_DIR": str(tmp_path)}
    over_postgres = {**work, **postgres_instance.settings(postgres_instance.create("moved"))}
    sqlite = ("sqlite", str(tmp_path / "kuma.db"))
    store = await open_store(sqlite, SystemClock())
    await store.transact([Create(MESH), Create(SECRET, MESH.key)])
    await store.close()
    before = await stored(sqlite)
    kuma_cp("backup", str(tmp_path / "one"), environment=work)
    kuma_cp("restore", str(tmp_path / "one"), environment=over_postgres)
    address = ("postgres", str(tmp_path / "kuma.db.key"), str(postgres_instance.port), "moved")
    assert await stored(address) == before
    store = await open_store(address, SystemClock())
    await store.transact([Delete(MESH.key)])  # and what it owns
    assert not (await store.list("Secret")).total
    await store.close()
    kuma_cp("restore", str(tmp_path / "one"), environment=over_postgres)
    kuma_cp("backup", str(tmp_path / "two"), environment=over_postgres)
    for copy in (tmp_path / "one", tmp_path / "two", tmp_path / "kuma.db.replaced"):
        assert copy.stat().st_mode & 0o077 == 0
        assert b"PRIVATE KEY" not in copy.read_bytes()
    kuma_cp("restore", str(tmp_path / "two"), environment=work)
    assert await stored(sqlite) == before


async def test_who_follows_a_database_sees_what_a_backup_has_put_there(postgres: Address, tmp_path: Path) -> None:
    key, server, copy = Path(postgres[1]), postgres_server(*postgres[2:]), tmp_path / "copy"
    store = await open_store(postgres, SystemClock())
    await store.transact([Create(MESH)])
    await postgres_backup.backup(server, copy)
    await store.transact([Create(SECRET)])
    watching = aiter(store.watch())
    async with asyncio.timeout(PATIENCE):
        await anext(watching)
        await postgres_backup.restore(copy, server, key, tmp_path / "replaced")
        listing = await anext(watching)
    assert isinstance(listing, Listing)
    assert [resource.key for resource in listing.resources] == [MESH.key]
    assert isinstance(watching, AsyncGenerator)
    await watching.aclose()
    await store.close()


async def test_a_backup_under_another_key_or_over_a_file_is_refused(postgres: Address, tmp_path: Path) -> None:
    server, copy = postgres_server(*postgres[2:]), tmp_path / "copy"
    await postgres_backup.backup(server, copy)
    with pytest.raises(Misconfigured, match="exists; give the backup another name"):
        await postgres_backup.backup(server, copy)
    foreign = tmp_path / "foreign"
    foreign.write_text("A" * 43 + "=\n")
    foreign.chmod(0o600)
    with pytest.raises(StoreCorrupt):
        await postgres_backup.restore(copy, server, foreign, tmp_path / "replaced")
    with pytest.raises(Misconfigured, match="file is not a database"):
        await postgres_backup.restore(foreign, server, Path(postgres[1]), tmp_path / "replaced")
