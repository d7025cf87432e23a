"""A leader that hears no more what others say, but can still write, does nothing in their place."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kuma.base import aio
from kuma.base.errors import Conflict
from kuma.coordination.heartbeat import Heartbeat
from kuma.coordination.peers import Peers
from kuma.resources import kinds
from kuma.resources.models.coordination import InstanceSpec, RolloutProgressSpec
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.resource import Key, Resource
from kuma.store.protocol import AnyResource, Commit, Create, Listing, Operation, Page, Store, find
from kuma.store.sql.embedded.sqlite import open_sqlite
from tests.fakes.clock import ManualClock
from tests.fakes.patience import PATIENCE

MESH = Resource(kinds.MESH.key("default"), MeshSpec())


class DeafStore:
    """A store as one sees it whose follower hangs, while `hears` is not set: reads and writes go on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.hears = asyncio.Event()
        self.hears.set()

    async def get(self, key: Key) -> AnyResource:
        return await self._store.get(key)

    async def list(
        self, kind: str, mesh: str | None = None, *, name_contains: str = "", offset: int = 0, limit: int | None = None
    ) -> Page:
        return await self._store.list(kind, mesh, name_contains=name_contains, offset=offset, limit=limit)

    async def transact(self, operations: Sequence[Operation]) -> tuple[AnyResource, ...]:
        return await self._store.transact(operations)

    async def watch(self, since: int | None = None) -> AsyncIterator[Listing | Commit]:
        async for event in self._store.watch(since):
            await self.hears.wait()
            yield event

    async def close(self) -> None:
        await self._store.close()


def described() -> InstanceSpec:
    return InstanceSpec(started=datetime(2026, 1, 1, tzinfo=UTC), written=datetime(2026, 1, 1, tzinfo=UTC))


@contextlib.asynccontextmanager
async def instance(store: Store, clock: ManualClock, name: str) -> AsyncIterator[Peers]:
    peers = Peers(store, clock, name)
    heartbeat = Heartbeat(store, clock, peers, described, peers.known)
    tasks = [aio.spawn(part.run(), name=name) for part in (peers, heartbeat)]
    try:
        yield peers
    finally:
        await aio.stop(tasks)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    found = await open_sqlite(tmp_path / "kuma.db", ManualClock())
    try:
        yield found
    finally:
        await found.close()


class Pair:
    """Two control planes and their clocks; the first one may become deaf."""

    def __init__(self, store: Store) -> None:
        self.deaf = DeafStore(store)
        self.clocks = ManualClock(), ManualClock()
        self.stack = contextlib.AsyncExitStack()
        self.listening: list[Peers] = []
        """The second one, once it is there."""

    async def begin(self, store: Store) -> tuple[Peers, Peers]:
        """Return both once they know each other; the first one leads."""
        first = await self.stack.enter_async_context(instance(self.deaf, self.clocks[0], "a"))
        await self.until(lambda: first.leads)
        second = await self.stack.enter_async_context(instance(store, self.clocks[1], "b"))
        self.listening.append(second)
        await self.until(lambda: first.others() == {"b"} and second.others() == {"a"})
        return first, second

    async def until(self, holds: Callable[[], object]) -> None:
        """Return once something holds. Time goes on, and for the second one not before it has heard of the first."""
        async with asyncio.timeout(PATIENCE):
            while not holds():
                self.clocks[0].advance(0.5)
                if not self._second_waits():
                    self.clocks[1].advance(0.5)
                await asyncio.sleep(0.02)

    def _second_waits(self) -> bool:
        heard = [each.received for peers in self.listening for each in peers.instances() if each.name == "a"]
        return any((self.clocks[1].now() - received).total_seconds() > 5 for received in heard)


@pytest.fixture
async def pair(store: Store) -> AsyncIterator[Pair]:
    found = Pair(store)
    async with found.stack:
        yield found


async def test_a_leader_whose_follower_hangs_commits_nothing_and_clears_up_behind_nobody(
    store: Store, pair: Pair
) -> None:
    leader, other = await pair.begin(store)
    pair.deaf.hears.clear()
    said = other.version_of("b")
    await pair.until(lambda: other.version_of("b") > said and not leader.others())
    assert leader.leads
    with pytest.raises(Conflict):
        await store.transact([*leader.guard(), Create(MESH)])
    beats = other.version_of("a")
    await pair.until(lambda: other.version_of("a") > beats + 1)  # it has tried to clear up meanwhile
    assert await find(store, kinds.INSTANCE.key("b")) is not None
    pair.deaf.hears.set()
    await pair.until(lambda: leader.others() == {"b"})
    await store.transact([*leader.guard(), Create(MESH)])


async def test_who_was_not_heard_for_a_while_counts_again_although_nothing_was_removed(
    store: Store, pair: Pair
) -> None:
    """Those who listen to what it says of its proxies are told so."""
    first, _ = await pair.begin(store)
    told: list[tuple[str, str]] = []
    said = RolloutProgressSpec(mesh="default", instance="b")
    await store.transact([Create(Resource(kinds.ROLLOUT_PROGRESS.key("b/default"), said))])
    await pair.until(lambda: first.progress())
    first.on_progress(lambda name, mesh: told.append((name, mesh)))
    pair.deaf.hears.clear()
    await pair.until(lambda: not first.progress())
    assert told == [("b", "default")]
    pair.deaf.hears.set()
    await pair.until(lambda: first.progress())
    assert told == [("b", "default")] * 2
