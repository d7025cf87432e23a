"""The store that an earlier version has left is opened, with all that it holds, and goes on in either kind of database.

`earlier/` is the store of commit 852a618 (2026-11-24), with which two Envoys had mutual TLS: as SQL, and its key.
"""

import shutil
import sqlite3
from pathlib import Path

from demo.postgres import Postgres
from kuma.base.clock import SystemClock
from kuma.resources import kinds
from kuma.store.protocol import Store
from kuma.store.sql.embedded import backup
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.store.sql.postgresql import postgres_backup
from kuma.store.sql.postgresql.postgres import open_postgres
from kuma.xds.envoy.resource import TypeUrl
from tests.fakes.control_plane import dataplane, running
from tests.fakes.stores import postgres_server

EARLIER = Path(__file__).parent / "earlier"
WEB = dataplane("web-01", "web")


def left_behind(directory: Path) -> Path:
    """The work directory of the earlier version, as it was when that ended."""
    path, key = directory / "kuma.db", directory / "kuma.db.key"
    with sqlite3.connect(path) as database:
        database.executescript((EARLIER / "store.sql").read_text())
    database.close()
    shutil.copy(EARLIER / "kuma.db.key", key)
    for file in (path, key):
        file.chmod(0o600)
    return path


async def everything(store: Store) -> dict[str, int]:
    """How many resources there are of each kind, each of which is opened and understood."""
    counts = {kind.name: (await store.list(kind.name)).total for kind in kinds.IN_EFFECT}
    return {name: count for name, count in counts.items() if count}


async def test_a_control_plane_goes_on_with_it(tmp_path: Path) -> None:
    left_behind(tmp_path)
    async with running(tmp_path) as cp:
        view = cp.parts.views.view("default")
        assert view.mesh is not None and view.mesh.spec.enabled_backend is not None
        assert {"web-01", "backend-01"} <= set(view.dataplanes)
        web = await cp.proxy(WEB)
        await web.until(lambda: web.certificate and web.names(TypeUrl.LISTENER))
        await cp.apply("{type: Mesh, name: another}")


async def test_its_backup_is_restored_in_either_kind_of_database(postgres_instance: Postgres, tmp_path: Path) -> None:
    path = left_behind(tmp_path)
    copy = tmp_path / "backup.db"
    backup.backup(path, copy)
    key = tmp_path / "kuma.db.key"
    store: Store = await open_sqlite(path, SystemClock(), key)
    before = await everything(store)
    await store.close()
    assert before["Secret"] >= 3
    backup.restore(copy, path, key)
    store = await open_sqlite(path, SystemClock(), key)
    assert await everything(store) == before
    await store.close()
    server = postgres_server(postgres_instance.port, postgres_instance.create("earlier"))
    await postgres_backup.restore(copy, server, key, tmp_path / "replaced")
    store = await open_postgres(server, SystemClock(), key)
    assert await everything(store) == before
    await store.close()
