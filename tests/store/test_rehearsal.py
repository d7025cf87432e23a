"""A rehearsal shows what would be, and leaves everything as it is."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from kuma.base.clock import SystemClock
from kuma.base.errors import AlreadyExists, Conflict, NotFound
from kuma.resources import kinds
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create, Delete, Expect, StillOwns, Store, Update
from kuma.store.rehearsal import Rehearsal
from kuma.store.sql.embedded.sqlite import open_sqlite

MESH = Resource(kinds.MESH.key("default"), MeshSpec())
STORED = Resource(kinds.SECRET.key("b", "default"), SecretSpec(data=b"b"))
NEW = Resource(kinds.SECRET.key("a", "default"), SecretSpec(data=b"a"))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    found = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    await found.transact([Create(MESH), Create(STORED, MESH.key)])
    yield found
    await found.close()


async def names(store: Store, offset: int = 0, limit: int | None = None) -> tuple[list[str], int]:
    page = await store.list("Secret", "default", offset=offset, limit=limit)
    return [resource.name for resource in page.items], page.total


async def test_what_is_written_is_seen_by_the_rehearsal_alone(store: Store) -> None:
    rehearsal = Rehearsal(store)
    await rehearsal.transact([Create(NEW, MESH.key)])
    old = await rehearsal.get(STORED.key)
    (updated,) = await rehearsal.transact([Update(replace(old, spec=SecretSpec(data=b"c"))), Expect(NEW.key, 1)])
    assert (updated.version, (await rehearsal.get(STORED.key)).spec.data) == (old.version + 1, b"c")
    assert await names(rehearsal) == (["a", "b"], 2)
    assert await names(rehearsal, offset=1, limit=1) == (["b"], 2)
    await rehearsal.transact([Delete(STORED.key)])
    assert await names(rehearsal) == (["a"], 1)
    with pytest.raises(NotFound):
        await rehearsal.get(STORED.key)
    assert await names(store) == (["b"], 1)
    assert (await store.get(STORED.key)).spec.data == b"b"


async def test_it_refuses_what_the_store_would_refuse_and_then_changes_nothing(store: Store) -> None:
    rehearsal = Rehearsal(store)
    with pytest.raises(AlreadyExists):
        await rehearsal.transact([Create(NEW, MESH.key), Create(STORED, MESH.key)])
    with pytest.raises(NotFound):
        await rehearsal.transact([Create(replace(NEW, key=kinds.SECRET.key("a", "other")), kinds.MESH.key("other"))])
    with pytest.raises(Conflict):
        await rehearsal.transact([Update(replace(STORED, version=7))])
    with pytest.raises(StillOwns):
        await rehearsal.transact([Delete(MESH.key, unless_owns="Secret")])
    assert await names(rehearsal) == (["b"], 1)
