"""A Mesh whose authority cannot be made is not stored, and nothing that was to come with it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kuma.admission.mesh_rules import MeshRules
from kuma.base.errors import InvalidResource
from kuma.resources import codec, kinds
from kuma.resources.resource import Resource
from kuma.store.manager import ResourceManager
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.store.sql.store import SqlStore
from tests.fakes.clock import ManualClock

MESH = kinds.MESH.key("other")
BUILTIN = {"name": "ca-1", "type": "builtin"}
PROVIDED = {
    "name": "own", "type": "provided", "conf": {"cert": {"inlineString": "no"}, "key": {"inlineString": "no"}},
}  # fmt: skip


def mesh(*backends: dict[str, Any]) -> Resource[Any]:
    mtls = {"enabledBackend": backends[0]["name"], "backends": list(backends)}
    return codec.parse({"type": "Mesh", "name": "other", "mtls": mtls})


async def stored(store: SqlStore) -> set[str]:
    """The names of everything in the store."""
    found: set[str] = set()
    for kind in (kinds.MESH, kinds.SECRET, kinds.MESH_TRANSITION):
        found |= {resource.name for resource in (await store.list(kind.name)).items}
    return found


async def test_a_root_that_cannot_be_made_leaves_no_mesh_behind(tmp_path: Path) -> None:
    """A root of ten years cannot be made five years before the last one that a date can say."""
    clock = ManualClock(datetime(9995, 1, 1, tzinfo=UTC))
    store = await open_sqlite(tmp_path / "kuma.db", clock)
    manager = ResourceManager(store, {kinds.MESH.name: MeshRules(clock)})
    with pytest.raises(OverflowError):
        await manager.put(mesh(BUILTIN))
    assert await stored(store) == set()

    await manager.put(codec.parse({"type": "Mesh", "name": "other"}))
    before, names = await manager.get(MESH), await stored(store)
    with pytest.raises(OverflowError):
        await manager.put(mesh(BUILTIN))
    assert await manager.get(MESH) == before
    assert await stored(store) == names
    await store.close()


@pytest.mark.parametrize("backends", [(PROVIDED,), (BUILTIN, PROVIDED)], ids=["alone", "after one that can be made"])
async def test_a_ca_that_cannot_be_opened_leaves_no_mesh_behind(tmp_path: Path, backends: tuple[Any, ...]) -> None:
    clock = ManualClock()
    store = await open_sqlite(tmp_path / "kuma.db", clock)
    manager = ResourceManager(store, {kinds.MESH.name: MeshRules(clock)})
    with pytest.raises(InvalidResource, match=r"mtls.backends\[\d].conf.cert"):
        await manager.put(mesh(*backends))
    assert await stored(store) == set()
    await store.close()
