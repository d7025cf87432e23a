"""Backups are whole, sealed and private; they are made under traffic and put back by a command."""

import asyncio
import signal
import stat
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from kuma.base import aio
from kuma.base.clock import SystemClock
from kuma.base.errors import Misconfigured, StoreCorrupt
from kuma.resources import kinds
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create, Delete
from kuma.store.sql.embedded.backup import backup, restore
from kuma.store.sql.embedded.sqlite import open_sqlite

PRIVATE = b"-----BEGIN PRIVATE KEY-----"
MESH = Resource(kinds.MESH.key("default"), MeshSpec())


def secret(name: str) -> Resource[SecretSpec]:
    return Resource(kinds.SECRET.key(name, "default"), SecretSpec(data=PRIVATE))


async def test_a_backup_under_traffic_is_put_back(tmp_path: Path) -> None:
    path, copy = tmp_path / "kuma.db", tmp_path / "copy.db"
    store = await open_sqlite(path, SystemClock())
    await store.transact([Create(MESH), Create(secret("a"), MESH.key)])
    stop = asyncio.Event()

    written = asyncio.Event()

    async def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            pair = [secret(f"s{number}-{part}") for part in ("cert", "key")]
            await store.transact([Create(each, MESH.key) for each in pair])
            written.set()

    writer = aio.spawn(write(), name="writer")
    await written.wait()
    await asyncio.to_thread(backup, path, copy)
    stop.set()
    await writer
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert b"PRIVATE KEY" not in copy.read_bytes()
    assert not list(tmp_path.glob("copy.db-*"))
    with pytest.raises(Misconfigured, match="another control plane uses"):
        restore(copy, path, tmp_path / "kuma.db.key")
    await store.transact([Delete(secret("a").key)])
    await store.close()

    restore(copy, path, tmp_path / "kuma.db.key")
    store = await open_sqlite(path, SystemClock())
    names = {found.name for found in (await store.list("Secret")).items}
    assert "a" in names
    assert {name.removesuffix("-cert") for name in names if name.endswith("-cert")} == {
        name.removesuffix("-key") for name in names if name.endswith("-key")
    }
    assert (await store.get(secret("a").key)).spec.data == PRIVATE
    await store.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (tmp_path / "kuma.db.replaced").exists()


async def test_a_kill_while_a_backup_is_put_back_leaves_a_whole_store(tmp_path: Path) -> None:
    """Without one, the next start would begin a new one: with other CAs, and without a word."""
    for change in count():
        directory = tmp_path / str(change)
        directory.mkdir()
        store = await open_sqlite(directory / "kuma.db", SystemClock())
        await store.transact([Create(MESH), Create(secret("old"), MESH.key)])
        backup(directory / "kuma.db", directory / "copy.db")
        await store.transact([Create(secret("new"), MESH.key)])
        await store.close()
        command = [sys.executable, "-m", "tests.fakes.killed", "restore", str(directory), str(change)]
        status = subprocess.run(command, check=False).returncode
        assert (directory / "kuma.db").exists(), change
        store = await open_sqlite(directory / "kuma.db", SystemClock())
        names = {found.name for found in (await store.list("Secret")).items}
        await store.close()
        assert names == {"old"} if status == 0 else names in ({"old"}, {"old", "new"})
        restore(directory / "copy.db", directory / "kuma.db", directory / "kuma.db.key")
        if status == 0:
            assert change > 2
            return
        assert status == -signal.SIGKILL


async def test_what_is_no_backup_replaces_nothing(tmp_path: Path) -> None:
    path, key = tmp_path / "kuma.db", tmp_path / "kuma.db.key"
    await (await open_sqlite(path, SystemClock())).close()
    before = path.read_bytes()
    (tmp_path / "text").write_text("something else entirely, and long enough to be looked at" * 100)
    (tmp_path / "empty").touch()
    await (await open_sqlite(tmp_path / "other.db", SystemClock())).close()
    for source, reason in (("text", "cannot be copied"), ("empty", "no backup"), ("nothing", "there is no backup")):
        with pytest.raises(Misconfigured, match=reason):
            restore(tmp_path / source, path, key)
    with pytest.raises(StoreCorrupt, match="not the one that this store's Secrets are sealed with"):
        restore(tmp_path / "other.db", path, key)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.restored"))


async def test_a_backup_overwrites_nothing(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="there is no store"):
        backup(tmp_path / "kuma.db", tmp_path / "copy.db")
    await (await open_sqlite(tmp_path / "kuma.db", SystemClock())).close()
    backup(tmp_path / "kuma.db", tmp_path / "copy.db")
    with pytest.raises(Misconfigured, match="exists; give the backup another name"):
        backup(tmp_path / "kuma.db", tmp_path / "copy.db")
    with pytest.raises(Misconfigured, match="cannot write"):
        backup(tmp_path / "kuma.db", tmp_path / "nowhere" / "copy.db")
