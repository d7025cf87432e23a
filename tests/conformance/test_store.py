"""What every store promises, see `kuma.store.protocol`. A new store joins by a fixture with its address, in STORES.

The one over the Kubernetes API has these tests in `tests/kubernetes`, beside what shares its API server.
"""

import asyncio
import contextlib
import random
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kuma.base import aio
from kuma.base.errors import AlreadyExists, Conflict, NotFound
from kuma.resources import kinds
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.models.secret import SecretSpec
from kuma.resources.models.traffic_permission import Selector, TrafficPermissionSpec
from kuma.resources.resource import Key, Resource
from kuma.store.protocol import (
    Commit,
    Create,
    Delete,
    Expect,
    ExpectAll,
    Listing,
    Put,
    Removed,
    RevisionTooOld,
    StillOwns,
    Store,
    Update,
)  # fmt: skip
from tests.conformance.crashing_writer import CHANGED, CREATED, DELETED
from tests.fakes.clock import ManualClock
from tests.fakes.stores import open_store

KEPT = 300
"""Revisions that the stores remember here; ten thousand by themselves."""
Opened = Callable[[], contextlib.AbstractAsyncContextManager[Store]]
Address = tuple[str, ...]


@pytest.fixture
def sqlite(tmp_path: Path) -> Address:
    return "sqlite", str(tmp_path / "kuma.db")


STORES = ("sqlite", "postgres")
MESH = kinds.MESH.key("default")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=STORES)
def address(request: pytest.FixtureRequest) -> Address:
    found: Address = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def opened(address: Address, clock: ManualClock) -> Opened:
    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Store]:
        store = await open_store(address, clock, KEPT)
        try:
            yield store
        finally:
            await store.close()

    return opened


@pytest.fixture
async def store(opened: Opened) -> AsyncIterator[Store]:
    async with opened() as found:
        yield found


def mesh(name: str = "default") -> Resource[Any]:
    return Resource(kinds.MESH.key(name), MeshSpec())


def changed(resource: Resource[Any]) -> Resource[Any]:
    """The resource with another label: a write that changes nothing is none for every store."""
    return replace(resource, labels={"write": str(int(resource.labels.get("write", "0")) + 1)})


def secret(name: str, data: bytes = b"x", mesh: str = "default") -> Resource[Any]:
    return Resource(kinds.SECRET.key(name, mesh), SecretSpec(data=data))


def permission(name: str, service: str = "*") -> Resource[Any]:
    any_service = Selector(match={"kuma.io/service": service})
    spec = TrafficPermissionSpec(sources=(any_service,), destinations=(any_service,))
    return Resource(kinds.TRAFFIC_PERMISSION.key(name, "default"), spec)


async def events(store: Store, since: int | None = None) -> AsyncGenerator[Any, None]:
    async for event in store.watch(since):
        yield event


async def test_what_is_created_is_read_back(store: Store) -> None:
    labelled = Resource(MESH, MeshSpec(), labels={"team": "a"})
    (stored,) = await store.transact([Create(labelled)])
    assert stored.version > 0
    assert stored.creation_time == stored.modification_time
    assert await store.get(MESH) == stored
    assert dict(stored.labels) == {"team": "a"}


async def test_reading_what_is_not_there(store: Store) -> None:
    with pytest.raises(NotFound, match='Mesh "default"'):
        await store.get(MESH)


async def test_creating_twice_is_refused(store: Store) -> None:
    await store.transact([Create(mesh())])
    with pytest.raises(AlreadyExists):
        await store.transact([Create(mesh())])


async def test_an_update_needs_the_version_that_is_stored(store: Store) -> None:
    (first,) = await store.transact([Create(mesh())])
    (second,) = await store.transact([Update(changed(first))])
    assert second.version > first.version
    with pytest.raises(Conflict):
        await store.transact([Update(first)])
    assert await store.get(MESH) == second


async def test_times_are_those_of_the_writes(store: Store, clock: ManualClock) -> None:
    (first,) = await store.transact([Create(mesh())])
    created = clock.now()
    clock.advance(60)
    (second,) = await store.transact([Update(changed(first))])
    assert (first.creation_time, first.modification_time) == (created, created)
    assert (second.creation_time, second.modification_time) == (created, clock.now())


async def test_a_deleted_resource_cannot_be_updated(store: Store) -> None:
    (stored,) = await store.transact([Create(mesh())])
    await store.transact([Delete(MESH)])
    with pytest.raises(Conflict):
        await store.transact([Update(stored)])


async def test_an_owner_has_to_exist(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.transact([Create(secret("a"), owner=MESH)])


async def test_what_is_owned_goes_with_its_owner_first_the_owned(store: Store) -> None:
    a, b = secret("a"), secret("b")
    await store.transact([Create(mesh()), Create(a, owner=MESH), Create(b, owner=a.key), Create(mesh("other"))])
    watching = events(store)
    await anext(watching)
    await store.transact([Delete(MESH)])
    commit = await anext(watching)
    assert commit.changes == (Removed(b.key), Removed(a.key), Removed(MESH))
    assert (await store.list("Secret")).total == 0
    assert [m.name for m in (await store.list("Mesh")).items] == ["other"]
    await watching.aclose()


async def test_a_deletion_can_be_refused_for_what_is_owned(store: Store) -> None:
    await store.transact([Create(mesh()), Create(secret("a"), owner=MESH)])
    with pytest.raises(StillOwns):
        await store.transact([Delete(MESH, unless_owns="Secret")])
    await store.transact([Delete(MESH, unless_owns="Dataplane")])


async def test_deleting_what_is_not_there(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.transact([Delete(MESH)])


async def test_expectations_guard_a_transaction(store: Store) -> None:
    (stored,) = await store.transact([Expect(MESH, 0), Create(mesh())])
    with pytest.raises(Conflict):
        await store.transact([Expect(MESH, 0), Create(secret("a"))])
    await store.transact([Expect(MESH, stored.version), Create(secret("a"))])


async def test_all_of_a_kind_can_be_expected_to_be_as_it_was_read(store: Store, clock: ManualClock | None) -> None:
    """Also if one has come since, or has been deleted and made again, which begins with the same version."""
    await store.transact([Create(mesh()), Create(mesh("other"))])
    kind, first = kinds.TRAFFIC_PERMISSION.name, permission("a")
    nothing = ExpectAll(kind, "default", ())
    (stored,) = await store.transact([nothing, Create(first, MESH)])
    for unlike in (nothing, ExpectAll(kind, "default", (replace(stored, version=stored.version + 1),))):
        with pytest.raises(Conflict):
            await store.transact([unlike, Create(secret("s"))])
    one = ExpectAll(kind, "default", (stored,))
    await store.transact([one, ExpectAll(kind, "other", ()), Create(secret("s")), Delete(first.key)])
    if clock is not None:  # or it is the store's own
        clock.advance(1)
    await store.transact([Create(first, MESH)])
    with pytest.raises(Conflict):
        await store.transact([one, Create(secret("t"))])


@pytest.mark.parametrize(
    "failing", [Create(mesh()), Update(mesh("none")), Delete(kinds.MESH.key("none")), Expect(MESH, 9)]
)
async def test_a_transaction_that_fails_changes_nothing(store: Store, failing: Any) -> None:
    await store.transact([Create(mesh())])
    watching = events(store)
    listing = await anext(watching)
    with pytest.raises((AlreadyExists, Conflict, NotFound)):
        await store.transact([Create(secret("a")), Delete(MESH), Create(mesh()), failing])
    assert (await store.list("Secret")).total == 0
    await store.transact([Create(secret("b"))])
    commit = await anext(watching)
    assert [c.resource.name for c in commit.changes] == ["b"]
    assert commit.revision > listing.revision
    await watching.aclose()


async def test_lists_are_ordered_paged_and_filtered(store: Store) -> None:
    names = ["b-2", "a", "b-1", "b.x"]
    await store.transact([Create(secret(name)) for name in names] + [Create(secret("z", mesh="another"))])
    assert [(r.mesh, r.name) for r in (await store.list("Secret")).items] == [
        ("another", "z"), ("default", "a"), ("default", "b-1"), ("default", "b-2"), ("default", "b.x"),
    ]  # fmt: skip
    page = await store.list("Secret", "default", offset=1, limit=2)
    assert ([r.name for r in page.items], page.total) == (["b-1", "b-2"], 4)
    assert [r.name for r in (await store.list("Secret", name_contains=".")).items] == ["b.x"]
    assert (await store.list("Secret", name_contains="_")).total == 0  # which stands for any letter in SQL
    assert (await store.list("Secret", "nowhere")).total == 0


async def test_a_watch_begins_with_everything_and_goes_on_with_commits(store: Store) -> None:
    await store.transact([Create(mesh())])
    watching = events(store)
    listing = await anext(watching)
    assert isinstance(listing, Listing)
    assert [r.key for r in listing.resources] == [MESH]
    stored = await store.transact([Create(secret("a")), Create(secret("b"))])
    await store.transact([Delete(stored[0].key)])
    first, second = await anext(watching), await anext(watching)
    assert first.changes == tuple(Put(r) for r in stored)
    assert second.changes == (Removed(stored[0].key),)
    assert listing.revision < first.revision < second.revision
    await watching.aclose()


async def test_a_watch_resumes_where_it_ended(opened: Opened) -> None:
    async with opened() as store:
        watching = events(store)
        since = (await anext(watching)).revision
        await watching.aclose()
        await store.transact([Create(mesh()), Create(secret("a"))])
        await store.transact([Delete(secret("a").key)])
    async with opened() as store:
        resumed = events(store, since)
        (added,) = await store.transact([Create(secret("b"))])
        final: dict[Key, bool] = {}
        while not final.get(added.key):
            for change in (await anext(resumed)).changes:
                final[change.resource.key if isinstance(change, Put) else change.key] = isinstance(change, Put)
        await resumed.aclose()
    assert final == {MESH: True, secret("a").key: False, added.key: True}


async def test_who_is_too_far_behind_starts_anew_from_a_listing(store: Store) -> None:
    """More commits than are kept, for a watcher that does not read and for one that resumes."""
    watching = events(store)
    await anext(watching)
    (stored,) = await store.transact([Create(mesh())])
    for _ in range(KEPT + 200):
        (stored,) = await store.transact([Update(changed(stored))])
    listing = await anext(watching)
    assert isinstance(listing, Listing)
    assert listing.resources == (stored,)
    (last,) = await store.transact([Update(changed(stored))])
    commit = await anext(watching)
    assert isinstance(commit, Commit)
    assert commit.changes == (Put(last),)
    await watching.aclose()
    for unknown in (1, 1_000_000):
        with pytest.raises(RevisionTooOld):
            await anext(events(store, unknown))


async def test_a_watcher_that_waits_can_be_cancelled(store: Store) -> None:
    async def follow() -> None:
        async for _ in store.watch():
            pass

    task = aio.spawn(follow(), name="watcher")
    await asyncio.sleep(0.01)
    await aio.stop([task])
    await store.transact([Create(mesh())])
    assert task.cancelled()


async def test_a_cancelled_writer_leaves_nothing_half_done(store: Store) -> None:
    watching = events(store)
    await anext(watching)
    task = aio.spawn(store.transact([Create(mesh()), Create(secret("a"))]), name="writer")
    await asyncio.sleep(0)
    await aio.stop([task])
    assert [c.resource.key.kind for c in (await anext(watching)).changes] == ["Mesh", "Secret"]
    await watching.aclose()


async def test_nothing_is_lost_among_many_writers(store: Store) -> None:
    await store.transact([Create(secret("counter", b"0"))])

    async def add_one() -> None:
        while True:
            old = await store.get(secret("counter").key)
            try:
                await store.transact([Update(old.with_spec(SecretSpec(data=b"%d" % (int(old.spec.data) + 1))))])
                return
            except Conflict:
                continue

    await asyncio.gather(*(add_one() for _ in range(20)))
    assert (await store.get(secret("counter").key)).spec.data == b"20"


async def test_everything_is_there_after_a_restart(opened: Opened) -> None:
    async with opened() as store:
        stored = await store.transact([Create(mesh()), Create(secret("a", b"\x00\xff")), Create(permission("p"))])
    async with opened() as store:
        assert [await store.get(r.key) for r in stored] == list(stored)


async def test_what_was_acknowledged_survives_kill_9(opened: Opened, address: Address) -> None:
    """Writers store pairs, each in one transaction, and say when that is done; they are killed at a random moment."""
    acknowledged: dict[str, bytes] = {}
    for round_number, delay in enumerate(random.Random(7).choices(range(20, 250), k=4)):
        writer = subprocess.Popen(
            [sys.executable, "-m", "tests.conformance.crashing_writer", str(round_number), *address],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        said = [writer.stdout.readline()]
        await asyncio.sleep(delay / 1000)
        writer.send_signal(signal.SIGKILL)
        said += [line for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        acknowledged |= {pair: state.encode() for pair, state in map(str.split, said)}
        writer.stdout.close()
        writer.wait()
    async with opened() as store:
        found = {secret.name: secret.spec.data for secret in (await store.list("Secret")).items}
    pairs = {name.rpartition("-")[0] for name in found} | acknowledged.keys()
    states = {pair: {found.get(f"{pair}-{part}") for part in ("cert", "key")} for pair in pairs}
    assert [pair for pair, halves in states.items() if len(halves) != 1] == []
    for pair, said_last in acknowledged.items():
        (state,) = states[pair]  # the next one may have been stored, too, and nobody have said so any more
        may_be = {CREATED: (CREATED, CHANGED), CHANGED: (CHANGED, None), DELETED: (None,)}[said_last]
        assert state in may_be, (pair, said_last)
