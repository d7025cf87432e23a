"""What is special about the embedded store: its files, its key, its one process."""

import asyncio
import base64
import contextlib
import itertools
import os
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs

from kuma.base import aio
from kuma.base.clock import SystemClock
from kuma.base.errors import Misconfigured, StoreCorrupt, Unavailable
from kuma.resources import kinds
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Commit, Create, Delete, Listing
from kuma.store.sealing.encryption import AesGcmSealer
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.store.sql.rows import encode
from kuma.store.sql.schema import metadata
from kuma.store.sql.seal import SEAL, SEALED
from tests.fakes.patience import PATIENCE

PRIVATE = b"-----BEGIN PRIVATE KEY-----"
MESH = Resource(kinds.MESH.key("default"), MeshSpec())
SECRET = Resource(kinds.SECRET.key("ca", "default"), SecretSpec(data=PRIVATE))


async def test_only_the_owner_reads_the_files(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        store = await open_sqlite(tmp_path / "data" / "kuma.db", SystemClock())
        await store.transact([Create(SECRET)])
        files = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "data").iterdir()}
        await store.close()
    finally:
        os.umask(before)
    ends = ("", "-wal", "-shm", ".key", ".lock", ".spare", ".spare-2")
    assert {f"kuma.db{end}" for end in ends} == set(files)
    assert set(files.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


async def test_a_statement_is_one_errand_to_the_thread_of_its_connection(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    loop: Any = asyncio.get_running_loop()
    answer, errands = loop.call_soon_threadsafe, itertools.count()

    def counted(*arguments: Any, **more: Any) -> Any:
        next(errands)
        return answer(*arguments, **more)

    loop.call_soon_threadsafe = counted
    try:
        await store.transact([Create(MESH)])
        await store.get(MESH.key)
    finally:
        loop.call_soon_threadsafe = answer
        await store.close()
    # What is there, by which the transaction begins, the row, the revision, the change, the next revision, and commit;
    # then the row. Another connection may be opened meanwhile.
    assert next(errands) <= 13


async def test_a_reader_that_is_given_up_at_whatever_step_keeps_no_other_from_what_is_new(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    for steps in range(30):
        reading = aio.spawn(store.list("Mesh"), name="a reader")
        for _ in range(steps):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        await store.transact([Create(Resource(kinds.MESH.key(f"mesh-{steps}"), MeshSpec()))])
        assert (await store.list("Mesh")).total == steps + 1
        assert (await store.get(kinds.MESH.key(f"mesh-{steps}"))).version == 1
    await store.close()


async def test_no_file_shows_what_a_secret_holds(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    await store.transact([Create(SECRET)])
    contents = [path.read_bytes() for path in tmp_path.iterdir()]
    await store.close()
    contents += [path.read_bytes() for path in tmp_path.iterdir()]
    assert not any(b"PRIVATE KEY" in content or b"UFJJVkFURSBLRVk" in content for content in contents)


async def test_a_watcher_misses_nothing_though_a_recorder_raises(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    events = store.watch()
    assert isinstance(await anext(events), Listing)

    def record(commit: Commit) -> None:
        if commit.revision == 1:
            raise RuntimeError("no space left for the audit log")

    store.on_commit(record)
    with pytest.raises(RuntimeError):
        await store.transact([Create(MESH)])
    await store.transact([Create(SECRET)])
    async with asyncio.timeout(PATIENCE):
        anew = await anext(events)
        assert isinstance(anew, Listing)
        assert {resource.key for resource in anew.resources} == {MESH.key, SECRET.key}
        await store.transact([Delete(SECRET.key)])
        assert isinstance(await anext(events), Commit)
    await store.close()


async def test_another_key_is_refused_at_the_start(tmp_path: Path) -> None:
    await (await open_sqlite(tmp_path / "kuma.db", SystemClock())).close()
    await (await open_sqlite(tmp_path / "other.db", SystemClock())).close()
    with pytest.raises(StoreCorrupt, match="not the one that this store's Secrets are sealed with"):
        await open_sqlite(tmp_path / "kuma.db", SystemClock(), tmp_path / "other.db.key")


async def test_a_lost_key_is_not_replaced(tmp_path: Path) -> None:
    await (await open_sqlite(tmp_path / "kuma.db", SystemClock())).close()
    (tmp_path / "kuma.db.key").unlink()
    with pytest.raises(Misconfigured, match="Put the file back from a backup"):
        await open_sqlite(tmp_path / "kuma.db", SystemClock())
    assert not (tmp_path / "kuma.db.key").exists()


async def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    await (await open_sqlite(tmp_path / "kuma.db", SystemClock())).close()
    (tmp_path / "kuma.db.key").chmod(0o644)
    with pytest.raises(Misconfigured, match="chmod 600"):
        await open_sqlite(tmp_path / "kuma.db", SystemClock())


@pytest.mark.parametrize("held", [b"", b"hello", b"\xd8" * 32], ids=["empty", "text", "a key as it is"])
async def test_a_file_that_is_no_key_is_refused_and_none_of_it_shown(tmp_path: Path, held: bytes) -> None:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_bytes(held)
    with pytest.raises(Misconfigured, match="32 bytes in base64"):
        await open_sqlite(tmp_path / "kuma.db", SystemClock(), key)


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    with pytest.raises(Misconfigured, match="another control plane uses"):
        await open_sqlite(tmp_path / "kuma.db", SystemClock())
    await store.close()
    await (await open_sqlite(tmp_path / "kuma.db", SystemClock())).close()


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "kuma.db").write_text("something else")
    with pytest.raises(Misconfigured, match="is no SQLite database"):
        await open_sqlite(tmp_path / "kuma.db", SystemClock())
    await (await open_sqlite(tmp_path / "other.db", SystemClock())).close()
    (tmp_path / "kuma.db").write_bytes(b"SQLite format 3\0" + b"and then something else" * 100)
    with pytest.raises(Misconfigured, match="cannot be used as the store"):
        await open_sqlite(tmp_path / "kuma.db", SystemClock(), tmp_path / "other.db.key")


async def test_content_moved_to_another_name_does_not_open(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    other = Resource(kinds.SECRET.key("other", "default"), SecretSpec(data=b"harmless"))
    await store.transact([Create(SECRET), Create(other)])
    await store.close()
    with sqlite3.connect(tmp_path / "kuma.db") as database:
        database.execute("update resources set spec = (select spec from resources where name='other') where name='ca'")
    database.close()
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    with pytest.raises(StoreCorrupt, match='Secret "ca" in mesh "default" cannot be opened'):
        await store.get(SECRET.key)
    await store.close()


async def test_the_migrations_make_the_schema(tmp_path: Path) -> None:
    await (await open_sqlite(tmp_path / "kuma.db", SystemClock())).close()
    database = sqlite3.connect(tmp_path / "kuma.db")
    for table in metadata.sorted_tables:
        columns = [row[1] for row in database.execute(f"pragma table_info({table.name})")]
        assert columns == [column.name for column in table.columns]
    database.close()


async def test_secrets_are_sealed_anew_under_traffic(tmp_path: Path) -> None:
    path, key = tmp_path / "kuma.db", tmp_path / "kuma.db.key"
    store = await open_sqlite(path, SystemClock())
    await store.transact([Create(MESH), Create(SECRET, MESH.key)])
    old = key.read_text()
    sealed = await _stored(path)
    stop = asyncio.Event()
    counts = [0, 0]

    async def read() -> None:
        while not stop.is_set():
            assert (await store.get(SECRET.key)).spec.data == PRIVATE
            counts[0] += 1

    async def write() -> None:
        while not stop.is_set():
            other = Resource(kinds.SECRET.key(f"s{counts[1]}", "default"), SecretSpec(data=PRIVATE))
            await store.transact([Create(other, MESH.key)])
            counts[1] += 1

    tasks = [aio.spawn(read(), name="reader"), aio.spawn(write(), name="writer")]
    for number in range(3):
        while min(counts) < 5 * (number + 1):
            await asyncio.sleep(0.01)
        await store.rekey()
    stop.set()
    await asyncio.gather(*tasks)
    await store.close()
    assert key.read_text() != old
    assert (await _stored(path)) != sealed
    assert len(key.read_text().split()) == 1
    assert oct(key.stat().st_mode)[-3:] == "600"
    again = await open_sqlite(path, SystemClock())
    assert {s.spec.data for s in (await again.list("Secret")).items} == {PRIVATE}
    await again.close()
    key.write_text(old)
    with pytest.raises(StoreCorrupt, match="is not the one"):
        await open_sqlite(path, SystemClock())


async def _stored(path: Path) -> bytes:
    with sqlite3.connect(path) as database:
        found: bytes = database.execute("select spec from resources where kind = 'Secret' and name = 'ca'").fetchone()[
            0
        ]
    return found


def openable(path: Path, key: bytes) -> set[str]:
    """Names of Secrets of which some file still holds a form that `key` opens."""
    names = [*(resource.key for resource in (MESH, SECRET, *FURTHER)), SEAL]
    found, sealer = set(), AesGcmSealer([key])
    for file in (path, path.with_name(path.name + "-wal")):
        content = file.read_bytes() if file.exists() else b""
        for at in (match.start() for match in re.finditer(b"\x01", content)):
            for name, length in itertools.product(names, LENGTHS):
                with contextlib.suppress(StoreCorrupt):
                    sealer.open(name, content[at : at + length])
                    found.add(name.name)
    return found


FURTHER = [Resource(kinds.SECRET.key(f"s{i}", "default"), SecretSpec(data=PRIVATE)) for i in range(3)]
LENGTHS = sorted(
    {len(encode(resource, AesGcmSealer([bytes(32)]))["spec"]) for resource in (SECRET, MESH)}
    | {len(AesGcmSealer([bytes(32)]).seal(SEAL, SEALED))}
)


async def test_nothing_that_the_old_key_opens_is_left_in_any_file(tmp_path: Path) -> None:
    path, key_file = tmp_path / "kuma.db", tmp_path / "kuma.db.key"
    store = await open_sqlite(path, SystemClock())
    await store.transact([Create(MESH), Create(SECRET, MESH.key), *(Create(found, MESH.key) for found in FURTHER)])
    await store.transact([Delete(FURTHER[0].key)])
    old = base64.b64decode(key_file.read_text())
    assert openable(path, old) >= {"ca", "s1", "default", "seal"}
    await store.rekey()
    new = base64.b64decode(key_file.read_text())
    assert openable(path, old) == set()
    assert openable(path, new) == {"ca", "s1", "s2", "default", "seal"}
    assert (await store.get(SECRET.key)).spec.data == PRIVATE
    await store.close()
    assert openable(path, old) == set()


@pytest.mark.parametrize("point", ["before the rows", "after the rows", "after the scrub"])
async def test_a_kill_while_sealing_anew_is_made_good_at_the_next_start(tmp_path: Path, point: str) -> None:
    path, key_file = tmp_path / "kuma.db", tmp_path / "kuma.db.key"
    store = await open_sqlite(path, SystemClock())
    await store.transact([Create(MESH), Create(SECRET, MESH.key)])
    await store.close()
    old = base64.b64decode(key_file.read_text())
    sealed = await _stored(path)
    killed = subprocess.run([sys.executable, "-m", "tests.store.killed_rekey", str(path), point], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(key_file.read_text().split()) == 2
    shutil.copytree(tmp_path, tmp_path / "copy")  # looking at it would change it
    assert (await _stored(tmp_path / "copy" / "kuma.db") == sealed) is (point == "before the rows")
    with capture_logs() as logs:
        store = await open_sqlite(path, SystemClock())
    assert any("the old key dropped" in line["event"] for line in logs)
    assert len(key_file.read_text().split()) == 1
    assert (await store.get(SECRET.key)).spec.data == PRIVATE
    await store.close()
    assert openable(path, old) == set()


async def test_a_database_that_fails_while_sealing_anew_loses_nothing(tmp_path: Path) -> None:
    """The key file is written first, so that it opens what is stored, whichever of the two steps was the last."""
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    await store.transact([Create(MESH), Create(SECRET, MESH.key)])
    with contextlib.closing(sqlite3.connect(tmp_path / "kuma.db")) as database:
        database.execute("CREATE TRIGGER broken BEFORE UPDATE ON meta BEGIN SELECT RAISE(ABORT, 'disk'); END")
        with pytest.raises(IntegrityError, match="disk"):
            await store.rekey()
        database.execute("DROP TRIGGER broken")
    later = Resource(kinds.SECRET.key("later", "default"), SecretSpec(data=PRIVATE))
    await store.transact([Create(later, MESH.key)])  # sealed with the new key
    await store.close()
    again = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    assert [s.spec.data for s in (await again.list("Secret")).items] == [PRIVATE, PRIVATE]
    await again.rekey()
    await again.close()


@pytest.mark.parametrize("work", ["get", "list", "transact", "rekey"])
async def test_what_a_broken_database_says_is_for_the_log_only(tmp_path: Path, work: str) -> None:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    with contextlib.closing(sqlite3.connect(tmp_path / "kuma.db")) as database:
        database.execute("ALTER TABLE resources RENAME TO gone")
    attempts = {
        "get": lambda: store.get(MESH.key),
        "list": lambda: store.list("Mesh"),
        "transact": lambda: store.transact([Create(MESH)]),
        "rekey": store.rekey,
    }
    with capture_logs() as logs, pytest.raises(Unavailable, match="log of the control plane says why") as failed:
        await attempts[work]()
    assert "no such table" not in str(failed.value)
    assert [line["reason"] for line in logs if line["log_level"] == "error"] == ["no such table: resources"]
    await store.close()


async def test_files_that_others_could_read_are_theirs_no_more(tmp_path: Path) -> None:
    path = tmp_path / "kuma.db"
    store = await open_sqlite(path, SystemClock())
    await store.transact([Create(MESH)])
    for end in ("", "-wal", "-shm"):
        shutil.copy(path.with_name(path.name + end), tmp_path / f"copy.db{end}")
    await store.close()
    shutil.copy(tmp_path / "kuma.db.key", tmp_path / "copy.db.key")
    (tmp_path / "copy.db.key").chmod(0o600)
    for file in tmp_path.glob("copy.db*"):
        file.chmod(0o666 if file.suffix != ".key" else 0o600)
    again = await open_sqlite(tmp_path / "copy.db", SystemClock())
    assert (await again.get(MESH.key)).name == "default"
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("copy.db*")} == {0o600}
    await again.close()
