"""A key that has lost its store, and a store that has lost a part of itself, are no new control plane."""

import itertools
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kuma.base.clock import SystemClock
from kuma.base.errors import Misconfigured
from kuma.resources import kinds
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create
from kuma.store.sql.embedded import backup
from kuma.store.sql.embedded.sqlite import open_sqlite
from tests.store.interrupted import KILL_BEFORE

MESH = Resource(kinds.MESH.key("default"), MeshSpec())


async def a_store(path: Path) -> None:
    store = await open_sqlite(path, SystemClock())
    await store.transact([Create(MESH)])
    await store.close()


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _without_tables(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA journal_mode=WAL")
    database.close()


def _without_seal(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM meta")
    database.close()


@pytest.mark.parametrize("lose", [Path.unlink, _emptied, _without_tables, _without_seal])
async def test_a_key_without_its_store_is_no_new_control_plane(tmp_path: Path, lose: Callable[[Path], None]) -> None:
    path = tmp_path / "kuma.db"
    await a_store(path)
    backup.backup(path, tmp_path / "copy.db")
    lose(path)
    before = path.read_bytes() if path.exists() else None
    for _ in range(2):
        with pytest.raises(Misconfigured, match="kuma-cp restore FILE") as caught:
            await open_sqlite(path, SystemClock())
        assert str(tmp_path / "kuma.db.key") in str(caught.value)
        assert (path.read_bytes() if path.exists() else None) == before
    backup.restore(tmp_path / "copy.db", path, tmp_path / "kuma.db.key")
    store = await open_sqlite(path, SystemClock())
    assert (await store.get(MESH.key)).spec == MESH.spec
    await store.close()


async def test_a_key_that_was_made_elsewhere_needs_to_be_told_that_there_is_no_store_yet(tmp_path: Path) -> None:
    await a_store(tmp_path / "one" / "kuma.db")
    key = (tmp_path / "one" / "kuma.db.key").rename(tmp_path / "key")
    with pytest.raises(Misconfigured, match="kuma-cp migrate up --new"):
        await open_sqlite(tmp_path / "kuma.db", SystemClock(), key)
    for anew in (True, False):
        store = await open_sqlite(tmp_path / "kuma.db", SystemClock(), key, anew=anew)
        assert not (await store.list("Mesh")).total
        await store.close()


async def test_to_begin_anew_loses_nothing_that_is_there(tmp_path: Path) -> None:
    await a_store(tmp_path / "kuma.db")
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock(), anew=True)
    assert (await store.list("Mesh")).total
    await store.close()


async def test_without_its_key_there_is_a_new_store(tmp_path: Path) -> None:
    await a_store(tmp_path / "kuma.db")
    (tmp_path / "kuma.db").unlink()
    (tmp_path / "kuma.db.key").unlink()
    await a_store(tmp_path / "kuma.db")


@pytest.mark.parametrize("with_key", [True, False])
async def test_the_database_of_another_program(tmp_path: Path, with_key: bool) -> None:
    path = tmp_path / "kuma.db"
    if with_key:
        await a_store(path)
        path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE orders (number INTEGER)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(Misconfigured, match="another program: it has a table orders"):
        await open_sqlite(path, SystemClock())
    assert path.read_bytes() == before


async def test_a_schema_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "kuma.db"
    await a_store(path)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    with pytest.raises(Misconfigured, match="a schema that this version does not know"):
        await open_sqlite(path, SystemClock())


async def test_a_database_without_the_log_of_what_was_stored_last(tmp_path: Path) -> None:
    """As after a kill: what was acknowledged is in the log only."""
    running, killed = tmp_path / "running", tmp_path / "killed"
    await a_store(running / "kuma.db")
    store = await open_sqlite(running / "kuma.db", SystemClock())
    await store.transact([Create(Resource(kinds.MESH.key("other"), MeshSpec()))])
    shutil.copytree(running, killed)
    await store.close()
    log = (killed / "kuma.db-wal").rename(tmp_path / "log")
    for _ in range(2):
        with pytest.raises(Misconfigured, match=r"kuma\.db-wal is missing.*kuma-cp restore FILE"):
            await open_sqlite(killed / "kuma.db", SystemClock())
    log.rename(killed / "kuma.db-wal")
    store = await open_sqlite(killed / "kuma.db", SystemClock())
    assert (await store.list("Mesh")).total == 2
    await store.close()
    assert not (killed / "kuma.db-wal").exists()
    await (await open_sqlite(killed / "kuma.db", SystemClock())).close()


async def test_a_first_start_that_is_killed_is_made_good_by_the_next(tmp_path: Path) -> None:
    """There is no moment at which the key and the store are not taken to be what they are."""
    for step in itertools.count():
        path = tmp_path / str(step) / "kuma.db"
        command = [sys.executable, "-m", "tests.store.interrupted", str(path), KILL_BEFORE, str(step)]
        status = subprocess.run(command, check=False).returncode
        await a_store(path)
        await (await open_sqlite(path, SystemClock())).close()
        assert {file.name for file in path.parent.iterdir()} == {
            "kuma.db", "kuma.db.key", "kuma.db.lock", "kuma.db.spare", "kuma.db.spare-2"
        }  # fmt: skip
        if status == 0:
            assert step > 5
            return
        assert status == -signal.SIGKILL
