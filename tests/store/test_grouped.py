"""What many ask of the store at once goes to the database together, and each gets an answer of its own."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from kuma.base import aio
from kuma.base.clock import SystemClock
from kuma.base.errors import AlreadyExists, Conflict, NotFound
from kuma.resources import kinds
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Commit, Create, Delete, Listing, Operation, Update
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.store.sql.store import SqlStore
from tests.fakes.control_plane import dataplane

MESH = Resource(kinds.MESH.key("default"), MeshSpec())
WHO = ContextVar("who", default=-1)


def creation(number: int) -> Create:
    return Create(dataplane(f"p{number}", "web", port=1000 + number), MESH.key)


async def revision(store: SqlStore) -> int:
    """The revision of the last commit."""
    listing = await anext(store.watch())
    assert isinstance(listing, Listing)
    return listing.revision


async def test_many_transactions_are_one_of_the_database_and_each_is_recorded_as_its_caller_s(tmp_path: Path) -> None:
    recorded: list[tuple[int, str]] = []

    def record(commit: Commit) -> None:
        recorded.extend((WHO.get(), change.resource.name) for change in commit.changes if hasattr(change, "resource"))

    async def caller(number: int) -> Any:
        WHO.set(number)
        return await store.transact([creation(number)])

    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    store.on_commit(record)
    await store.transact([Create(MESH)])
    before = await revision(store)
    found = await asyncio.gather(*(caller(number) for number in range(150)))
    assert [(one.name, one.version) for (one,) in found] == [(f"p{number}", 1) for number in range(150)]
    assert recorded[1:] == [(number, f"p{number}") for number in range(150)]
    assert await revision(store) == before + 1
    assert (await store.list(kinds.DATAPLANE.name)).total == 150
    await store.close()


async def test_one_that_breaks_a_rule_fails_alone(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    mesh, first = await store.transact([Create(MESH), creation(0)])
    lost = Create(dataplane("lost", "web"), kinds.MESH.key("other"))
    asked: tuple[list[Operation], ...] = (
        [creation(1)], [creation(1)], [lost], [Update(first)], [creation(2), Update(first)], [creation(3)],
        [Delete(mesh.key)], [creation(4)],
    )  # fmt: skip
    found = await asyncio.gather(*map(store.transact, asked), return_exceptions=True)
    outcomes = [type(one) if isinstance(one, BaseException) else len(one) for one in found]
    assert outcomes == [1, AlreadyExists, NotFound, 1, Conflict, 1, 0, NotFound]
    assert (await store.list(kinds.DATAPLANE.name)).total == 0
    await store.close()


async def test_what_is_asked_for_together_is_found_or_not_each_by_itself(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    await store.transact([Create(MESH), *(creation(number) for number in range(300))])
    keys = [kinds.DATAPLANE.key(f"p{number}", "default") for number in range(-5, 300)]
    found = await asyncio.gather(*map(store.get, keys), return_exceptions=True)
    assert all(isinstance(one, NotFound) for one in found[:5])
    assert [one.key for one in found[5:] if not isinstance(one, BaseException)] == keys[5:]
    await store.close()


async def test_what_is_stored_is_read_by_whoever_asks_afterwards(tmp_path: Path) -> None:
    """Also while others are being answered: a question goes with the next group, never with one that has begun."""
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    await store.transact([Create(MESH), creation(0)])
    key = kinds.DATAPLANE.key("p0", "default")

    async def others() -> None:
        while True:
            await store.get(key)

    tasks = [aio.spawn(others(), name="reader") for _ in range(5)]
    for version in range(1, 60):
        stored = await store.get(key)
        assert stored.version == version
        await store.transact([Update(stored)])
    await aio.stop(tasks)
    await store.close()


async def test_closing_waits_for_what_is_asked_of_it(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    await store.transact([Create(MESH)])
    tasks = [aio.spawn(store.transact([creation(number)]), name="caller") for number in range(20)]
    await asyncio.sleep(0)
    await aio.stop(tasks)
    await store.close()
    again = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    assert (await again.list(kinds.DATAPLANE.name)).total == 20
    await again.close()
