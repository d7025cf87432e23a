"""Mesh views over a real store."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kuma.base import aio
from kuma.base.clock import SystemClock
from kuma.resources import kinds
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create, Delete, Store
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.store.views import Views
from tests.fakes.control_plane import dataplane
from tests.fakes.patience import PATIENCE

WEB = dataplane("web-01", "web")
MESH = Resource(kinds.MESH.key("default"), MeshSpec())


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    yield store
    await store.close()


async def test_who_waits_for_a_dataplane_that_was_deleted_meanwhile_does_not_wait_for_ever(store: Store) -> None:
    views = Views(store)
    following = aio.spawn(views.run(), name="views")
    await store.transact([Create(MESH)])
    (stored,) = await store.transact([Create(WEB, MESH.key)])
    await store.transact([Delete(WEB.key)])
    await views.until(lambda: not views.view("default").dataplanes)
    async with asyncio.timeout(PATIENCE):
        await views.until(lambda: views.holds(stored))
        (again,) = await store.transact([Create(WEB, MESH.key)])
        await views.until(lambda: views.holds(again))
    assert views.view("default").dataplanes["web-01"] == again
    await aio.stop([following])


def alike(count: int) -> list[Resource[Any]]:
    """So many Dataplanes that differ in their name, of one that is parsed."""
    keys = (kinds.DATAPLANE.key(f"web-{number}", "default") for number in range(count))
    return [replace(WEB, key=key) for key in keys]


async def test_nobody_waits_for_ever_however_many_were_deleted(store: Store) -> None:
    many = alike(1100)
    views = Views(store)
    await store.transact([Create(MESH)])
    stored = await store.transact([Create(described, MESH.key) for described in many])
    following = aio.spawn(views.run(), name="views")
    await views.until(lambda: bool(views.view("default").dataplanes))
    await store.transact([Delete(MESH.key)])
    async with asyncio.timeout(PATIENCE):
        await views.until(lambda: not views.meshes)
        await views.until(lambda: all(views.holds(resource) for resource in stored))
    await aio.stop([following])


async def test_what_is_deleted_again_is_remembered_as_the_last(store: Store) -> None:
    others = alike(999)
    views = Views(store)
    await store.transact([Create(MESH)])
    following = aio.spawn(views.run(), name="views")
    await store.transact([Create(WEB, MESH.key)])
    await store.transact([Delete(WEB.key)])
    await store.transact([Create(other, MESH.key) for other in others])
    await store.transact([Delete(other.key) for other in others])
    (again,) = await store.transact([Create(WEB, MESH.key)])
    await store.transact([Delete(WEB.key)])
    for described in (dataplane("x-1", "x"), dataplane("x-2", "x")):
        await store.transact([Create(described, MESH.key)])
        await store.transact([Delete(described.key)])
    (end,) = await store.transact([Create(others[0], MESH.key)])
    async with asyncio.timeout(PATIENCE):
        await views.until(lambda: views.holds(end))
        await views.until(lambda: views.holds(again))
    await aio.stop([following])


async def test_whoever_commits_goes_on_before_what_follows_from_it(store: Store) -> None:
    """An answer over the API does not wait until thousands of proxies have been told."""
    views, order = Views(store), list[str]()
    views.on_change(lambda _: order.append("followed"))
    following = aio.spawn(views.run(), name="views")
    await views.until(lambda: True)
    order.clear()
    await store.transact([Create(MESH)])
    order.append("answered")
    async with asyncio.timeout(PATIENCE):
        await views.until(lambda: bool(views.meshes))
    assert order == ["answered", "followed"]
    await aio.stop([following])
